"""What the metrics share: features that are checked, results with their spread, blocks of rows."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real

Features = Real[np.ndarray, "N D"]  # a row for each example
Others = Real[np.ndarray, "M D"]  # the same features of M other examples
LARGEST = 1e20  # squared cubes of products of such numbers are finite: no metric overflows
BLOCK = 2**24  # numbers of a block of work: 128 MiB


class Estimate(NamedTuple):
    """standard_error: of the value; each metric says over what."""

    value: float
    standard_error: float


class Spread(NamedTuple):
    """A mean and the standard deviation (of all, not of all but one) of what it is the mean of.

    The figures that others publish as "value ± deviation"; not a standard error.
    """

    value: float
    standard_deviation: float


def checked(
    a: Features, b: Others, *, least: int = 2
) -> tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "M D"]]:
    """Features a [N, D] and b [M, D] in float64, fit to be compared.

    Raises ValueError unless both have two axes, equally many features and at least `least`
    rows, and all numbers are finite and within ±LARGEST: no metric returns NaN.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    fit = a.ndim == b.ndim == 2 and a.shape[1] == b.shape[1] >= 1
    if not fit or min(len(a), len(b)) < least:
        raise ValueError(
            f"expected features [N, D] and [M, D], N, M >= {least}, got {a.shape} and {b.shape}"
        )
    return finite(a, "the first features"), finite(b, "the second features")


def finite(x: Float[np.ndarray, "N ..."], what: str) -> Float[np.ndarray, "N ..."]:
    """x [N, ...] itself; raises ValueError for NaN, infinity and numbers beyond ±LARGEST."""
    good = (np.abs(x) <= LARGEST).reshape(len(x), -1).all(1)
    if not good.all():
        raise ValueError(
            f"{what} hold NaN, infinity or numbers beyond {LARGEST:g} in {(~good).sum()} of "
            f"{len(x)} rows, first in row {good.argmin()}: find where they come from, or leave "
            "these rows out and say so"
        )
    return x


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of `rows` rows, each of at most BLOCK numbers of rows of `columns` (or one row)."""
    step = max(1, BLOCK // columns)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
