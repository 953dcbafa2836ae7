"""No images, only what they would look like: enough to draw samples."""

import numpy as np

from score_jax.data.base import Dataset
from score_jax.errors import UserError
from score_jax.limits import check_at_most

MOST_PIXELS = 100_000  # of a side


def blank(*, size: int, channels: int = 3) -> Dataset:
    """Nothing: for --mode=sample where the data that the network was trained on are not at hand.

    size: of the images' sides, in pixels. channels: 3 for RGB, 1 for gray. Raises UserError for
    others, and for sides beyond 100,000.
    """
    check_at_most("config.data.size", size, MOST_PIXELS)
    if size < 1 or channels not in (1, 3):
        raise UserError(f"expected size >= 1 and channels 1 or 3, got {size} and {channels}")
    return Dataset("blank", np.zeros((0, size, size, channels), np.uint8))
