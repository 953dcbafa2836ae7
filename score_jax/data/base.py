"""A data set in memory: decoded once, read in any order.

    data = digits()
    data.examples          # [N, H, W, C] uint8 images, or [N, D] float32 points
    data.labels            # [N] int32, or None

Loaders return it; `training` takes batches of it by index.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from score_jax.errors import UserError


class Dataset(NamedTuple):
    """Examples of one split.

    name: what the user would call it, for messages and reports.
    examples: [N, H, W, C] uint8 images with C = 1 or 3, or [N, D] float32 points.
    labels: [N] int32 class labels, or None where the source has none.
    conditions: what else a network may be told of each example, numbers of the order of 1: vectors
        [N, K] or, of images, images [N, H, W, K], float32; or None.
    """

    name: str
    examples: np.ndarray
    labels: np.ndarray | None = None
    conditions: np.ndarray | None = None

    @property
    def is_images(self) -> bool:
        """Images [N, H, W, C], and not points [N, D]."""
        return self.examples.ndim == 4

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return self.examples.shape[1:]


def checked(data: Dataset) -> Dataset:
    """Returns data if it can be trained on; raises UserError that says what is wrong if not:
    another type or shape than Dataset has, no examples, NaN or infinity in them.
    """
    x = data.examples
    if x.ndim == 4:
        if x.dtype != np.uint8:
            raise UserError(f"{data.name}: images must be uint8, got {x.dtype}")
        if x.shape[-1] not in (1, 3):
            raise UserError(
                f"{data.name}: images must be [N, H, W, C] with C = 1 or 3, got {x.shape}"
            )
    elif x.ndim == 2:
        if x.dtype != np.float32:
            raise UserError(f"{data.name}: points must be float32, got {x.dtype}")
        bad = int((~np.isfinite(x)).any(axis=1).sum())
        if bad:
            raise UserError(f"{data.name}: {bad} of {len(x)} examples hold NaN or infinity")
    else:
        raise UserError(
            f"{data.name}: expected images [N, H, W, C] or points [N, D], "
            f"got an array of shape {x.shape}"
        )
    if x.size == 0:
        raise UserError(f"{data.name}: no examples in an array of shape {x.shape}")
    if data.labels is not None and data.labels.shape != (len(x),):
        raise UserError(f"{data.name}: {len(x)} examples but labels of shape {data.labels.shape}")
    if data.conditions is not None:
        _check_conditions(data.name, x, data.conditions)
    return data


def _check_conditions(name: str, x: np.ndarray, conditions: np.ndarray) -> None:
    fits = [(len(x), conditions.shape[-1])] if conditions.ndim else []
    fits += [(*x.shape[:3], conditions.shape[-1])] if x.ndim == 4 and fits else []
    if conditions.shape not in fits or conditions.size == 0:
        wanted = "[N, K]" + (" or, of the images' size, [N, H, W, K]" if x.ndim == 4 else "")
        raise UserError(
            f"{name}: conditions must be {wanted}, got an array of shape {conditions.shape} for "
            f"examples of shape {x.shape}"
        )
    bad = int((~np.isfinite(conditions)).reshape(len(x), -1).any(axis=1).sum())
    if bad:
        raise UserError(
            f"{name}: the conditions of {bad} of {len(x)} examples hold NaN or infinity"
        )


def is_there(path: Path, kind: Callable[[Path], bool]) -> bool:
    """kind(path), as with Path.is_file; False for what could be no path."""
    try:
        return kind(path)
    except OSError:  # for one, too long a name
        return False
