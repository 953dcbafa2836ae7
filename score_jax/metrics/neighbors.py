"""Metrics of nearest neighbors: how much of the data samples cover, and whether they stray.

Distances are found by matrix products, |x|² + |y|² - 2 x·y, of features about their mean, and
wherever rounding could change the answer once more as Σ(x - y)². So the answers are those of the
latter, ties and duplicates included, in bounded memory.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from score_jax.metrics.base import Features, Others, blocks, checked


class PrecisionRecall(NamedTuple):
    """The share of samples near the data, and of the data near samples."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """How often samples are near the data, and the share of the data with a sample near."""

    density: float
    coverage: float


def precision_recall(samples: Features, real: Others, *, k: int = 3) -> PrecisionRecall:
    """How many samples lie where data are, and how many of the data where samples are.

    A point's ball reaches to its k-th nearest other point of the same set, that one included.
    precision: the share of samples [N, D] in the ball of some real row; recall: the share of
    real rows [M, D] in the ball of some sample. Kynkäänniemi et al. 2019 (arXiv 1904.06991),
    equations 1 to 3. A point is no neighbor of itself, but a duplicate of it is one, so balls
    of duplicates may have radius 0. Both depend on N and M; one outlier has a wide ball.
    Raises ValueError as `checked`, and unless 1 <= k < N, M.
    """
    samples, real = checked(samples, real)
    of_samples, of_real = _squared_radii(samples, k), _squared_radii(real, k)
    precise, recalled = 0, np.zeros(len(real), bool)
    for rows, within in _comparisons(samples, real):
        precise += int(within(of_real).any(1).sum())
        recalled |= within(of_samples[rows, None]).any(0)
    return PrecisionRecall(precise / len(samples), float(recalled.mean()))


def density_coverage(samples: Features, real: Others, *, k: int = 5) -> DensityCoverage:
    """How many data's balls a sample lies in, over k, and the share of balls with a sample.

    density = (number of pairs (sample, real ball around it))/kN, above 1 where samples crowd
    where data are dense; coverage in [0, 1]. Naeem et al. 2020 (arXiv 2002.09797), section 3;
    the balls are those of `precision_recall`. They include their border, which in the authors'
    code they do not: another figure where distances tie, as between sets that share rows.
    Raises ValueError as `checked`, and unless 1 <= k < M.
    """
    samples, real = checked(samples, real)
    of_real = _squared_radii(real, k)
    pairs, covered = 0, np.zeros(len(real), bool)
    for _, within in _comparisons(samples, real):
        inside = within(of_real)
        pairs += int(inside.sum())
        covered |= inside.any(0)
    return DensityCoverage(pairs / (k * len(samples)), float(covered.mean()))


def nearest(
    queries: Features, points: Others, *, k: int = 1
) -> tuple[Int[np.ndarray, "N {k}"], Float[np.ndarray, "N {k}"]]:
    """Of each query [N, D] the k nearest points [M, D]: (indices [N, k], distances [N, k]).

    Nearest first, of equally near ones that of the lower index; distances in units of the
    features. Raises ValueError as `checked` (one row is enough), and unless 1 <= k <= M.
    """
    queries, points = checked(queries, points, least=1)
    if not 1 <= k <= len(points):
        raise ValueError(f"expected k from 1 to the {len(points)} points, got {k}")
    indices, squared = _nearest(queries, points, k, others=False)
    return indices, np.sqrt(squared)


def _squared_radii(points: np.ndarray, k: int) -> np.ndarray:
    """The squared distance of each point's k-th nearest other, [M]."""
    if not 1 <= k < len(points):
        raise ValueError(
            f"expected k from 1 to {len(points) - 1}, the neighbors that each of {len(points)} "
            f"rows has, got {k}"
        )
    return _nearest(points, points, k, others=True)[1][:, -1]


def _comparisons(
    queries: np.ndarray, points: np.ndarray
) -> Iterator[tuple[slice, Callable[..., np.ndarray]]]:
    """(rows, within) of blocks of R queries: within(limits) is |query - point|² <= limits.

    [R, M], for limits [M] of the points or [R, 1] of the queries.
    """
    exactly = _by_differences(queries, points)
    for rows, squared, error in _squared_distances(queries, points):

        def within(limits, rows=rows, squared=squared, error=error):
            gap = squared - limits
            inside = gap <= 0.0
            row, column = np.nonzero(np.abs(gap) <= error)
            exact = exactly(row + rows.start, column)
            inside[row, column] = exact <= np.broadcast_to(limits, gap.shape)[row, column]
            return inside

        yield rows, within


def _nearest(
    queries: np.ndarray, points: np.ndarray, k: int, *, others: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Indices and squared distances, [N, k]; with `others`, query i may not be point i."""
    exactly = _by_differences(queries, points)
    indices = np.empty((len(queries), k), np.int64)
    nearest_squared = np.empty((len(queries), k))
    for rows, squared, error in _squared_distances(queries, points):
        if others:
            np.fill_diagonal(squared[:, rows], np.inf)
        kth = np.partition(squared, k - 1, axis=1)[:, k - 1 : k]
        row, column = np.nonzero(squared <= kth + 2.0 * error)
        exact = exactly(row + rows.start, column)
        order = np.lexsort((column, exact, row))
        starts = np.searchsorted(row, np.arange(len(squared)))
        chosen = order[starts[:, None] + np.arange(k)]
        indices[rows], nearest_squared[rows] = column[chosen], exact[chosen]
    return indices, nearest_squared


def _squared_distances(
    queries: np.ndarray, points: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """(rows, |query - point|² [R, M], a bound of its error [R, 1]) of blocks of R queries."""
    center = points.mean(0)
    points = points - center
    norms = (points**2).sum(1)
    rounding = 2.0 * (points.shape[1] + 8) * np.finfo(np.float64).eps
    for rows in blocks(len(queries), max(points.shape)):
        block = queries[rows] - center
        own = (block**2).sum(1, keepdims=True)
        yield rows, own + norms - 2.0 * (block @ points.T), rounding * (own + norms.max())


def _by_differences(queries: np.ndarray, points: np.ndarray) -> Callable[..., np.ndarray]:
    """(row, column) -> Σ(x - y)² of these pairs, [pairs].

    Equal rows are worked on once: of samples that are all the same, every pair is in doubt.
    """
    first_query, first_point = _first_equal(queries), _first_equal(points)

    def exactly(row, column):
        codes = first_query[row] * len(points) + first_point[column]
        codes, place = np.unique(codes, return_inverse=True)
        row, column = codes // len(points), codes % len(points)
        exact = np.empty(len(codes))
        for pairs in blocks(len(codes), 4 * points.shape[1]):
            exact[pairs] = ((queries[row[pairs]] - points[column[pairs]]) ** 2).sum(1)
        return exact[place]

    return exactly


def _first_equal(x: np.ndarray) -> np.ndarray:
    """The index of the first row that is the same, by a digest of its bytes, [N]."""
    seen: dict[bytes, int] = {}
    digests = (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in x)
    return np.array([seen.setdefault(digest, i) for i, digest in enumerate(digests)])
