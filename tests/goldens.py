"""What networks of other code bases put out, for weights that everyone can make again.

tests/golden/<family>.npz holds for each case, as <case>.<what>:

    options     JSON: how the network was made
    names       JSON: {name: shape} of the tensors of its state
    x, c, label what it was asked: images [B, H, W, C], the noise level [B], classes [B] (or none)
    y           what it answered, [B, H, W, C]

The weights are not stored: tensor by tensor they are `fill(name, shape)`. tests/golden/README.md
says which network each file is from and how it was run.
"""

import functools
import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FOLDER = Path(__file__).parent / "golden"


class Golden(NamedTuple):
    options: dict[str, Any]
    tensors: dict[str, np.ndarray]
    x: np.ndarray
    c: np.ndarray
    label: np.ndarray | None
    y: np.ndarray


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The random values of a tensor: they follow from its name and shape."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    values = rng.standard_normal(shape)
    if len(shape) > 1:
        values /= np.sqrt(np.prod(shape[1:]))
    else:
        values = float(name.endswith(("weight", "scale"))) + 0.1 * values
    return values.astype(np.float32)


def he(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """`fill` for a deep network of max(0, .): signals keep their size, variances are positive."""
    values = fill(name, shape)
    if len(shape) > 1:
        return np.float32(np.sqrt(2.0)) * values
    return np.exp(3.0 * values) if name.endswith("running_var") else values


@functools.cache
def _file(family: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{family}.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def cases(family: str) -> list[str]:
    return sorted({name.rsplit(".", 1)[0] for name in _file(family)})


def golden(family: str, case: str) -> Golden:
    file = _file(family)
    names, options = (json.loads(str(file[f"{case}.{what}"])) for what in ("names", "options"))
    return Golden(
        options={k: tuple(v) if isinstance(v, list) else v for k, v in options.items()},
        tensors={name: fill(name, tuple(shape)) for name, shape in names.items()},
        x=file[f"{case}.x"],
        c=file[f"{case}.c"],
        label=file.get(f"{case}.label"),
        y=file[f"{case}.y"],
    )


def relative_error(found, expected) -> float:
    """|found - expected| / |expected|, in the Euclidean norm over all numbers."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
