"""Maximum mean discrepancies: kernel distances, unbiased for every number of samples."""

import math

import numpy as np
from jaxtyping import Float

from score_jax.metrics.base import Estimate, Features, Others, Spread, blocks, checked

BLOCKS = 10  # of rows, at least: with fewer the standard error itself is not known well
MEDIAN_ROWS = 1000  # of each set, whose distances the default bandwidth is the median of


def squared_mmd(
    k_aa: Float[np.ndarray, "N N"], k_bb: Float[np.ndarray, "M M"], k_ab: Float[np.ndarray, "N M"]
) -> float:
    """Σ_{i≠j} k(a_i, a_j)/N(N-1) + Σ_{i≠j} k(b_i, b_j)/M(M-1) - 2 Σ_ij k(a_i, b_j)/NM.

    Of the kernel's values k_aa [N, N], k_bb [M, M] and k_ab [N, M], N, M >= 2: the unbiased
    estimate of MMD², Gretton et al. 2012 (JMLR 13), lemma 6. It may be negative. Raises
    ValueError for shapes that do not fit.
    """
    n, m = k_ab.shape
    if k_aa.shape != (n, n) or k_bb.shape != (m, m) or min(n, m) < 2:
        raise ValueError(
            "expected kernels [N, N], [M, M] and [N, M], N, M >= 2, "
            f"got {k_aa.shape}, {k_bb.shape} and {k_ab.shape}"
        )
    within_a = (k_aa.sum() - np.trace(k_aa)) / (n * (n - 1))
    within_b = (k_bb.sum() - np.trace(k_bb)) / (m * (m - 1))
    return float(within_a + within_b - 2.0 * k_ab.mean())


def kernel_distance(
    a: Features,
    b: Others,
    *,
    size: int = 1000,
    rng: np.random.Generator | None = None,
) -> Estimate:
    """MMD² of features a [N, D] and b [M, D] with the kernel (x·y/D + 1)³, and its error.

    Bińkowski et al. 2018 (arXiv 1801.01401), equation 4 and section 4: KID where the features
    are Inception's. The mean of `squared_mmd` over disjoint blocks of `size` rows of each, as
    many as there are whole ones in both; the rest is left out. Blocks of independent rows are
    independent, so standard_error = (deviation over blocks)/√blocks is that of the value. Where
    there would be fewer than BLOCKS, blocks have ⌊min(N, M)/BLOCKS⌋ rows, which costs some
    spread and no bias. The value is unbiased for any N, M, and so negative at times where the
    distributions are close.

    rng: rows are first permuted, those of a, then those of b. Without, they are taken as they
    come, which is right for rows in no order, and not for rows sorted by class.
    Raises ValueError as `checked`, for size < 2, and for fewer than 2 BLOCKS rows.
    """
    a, b = checked(a, b)
    rows = min(len(a), len(b))
    if size < 2 or rows < 2 * BLOCKS:
        raise ValueError(
            f"kernel_distance needs blocks of at least 2 rows and {2 * BLOCKS} rows of each set "
            f"for its standard error, got size = {size} of {len(a)} and {len(b)} rows"
        )
    if rng is not None:
        a, b = a[rng.permutation(len(a))], b[rng.permutation(len(b))]
    size = min(size, rows // BLOCKS)
    starts = range(0, rows - size + 1, size)
    values = [_polynomial_mmd(a[i : i + size], b[i : i + size]) for i in starts]
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values))))


def kernel_distance_of_subsets(
    a: Features,
    b: Others,
    *,
    subsets: int = 100,
    size: int = 1000,
    rng: np.random.Generator | np.random.RandomState,
) -> Spread:
    """The kernel distance by the protocol that most published KID follow: random subsets.

    The mean of `squared_mmd` over `subsets` pairs of subsets, each of `size` rows drawn without
    replacement, of a and then of b. With np.random.RandomState(2020) the figures are those of
    torch-fidelity 0.4. The standard deviation is over subsets. It tells how one
    subset's figure scatters, and neither it nor it/√subsets is the standard error of the mean:
    subsets share rows, so their figures are dependent, and more subsets do not make up for
    more samples. `kernel_distance` has a standard error.
    Raises ValueError as `checked`, for subsets < 1 and unless 2 <= size <= N, M.
    """
    a, b = checked(a, b)
    if subsets < 1 or not 2 <= size <= min(len(a), len(b)):
        raise ValueError(
            f"expected subsets >= 1 and a size from 2 to the {min(len(a), len(b))} rows that both "
            f"sets have, got subsets = {subsets} and size = {size}"
        )
    draw = lambda x: x[rng.choice(len(x), size, replace=False)]
    values = [_polynomial_mmd(draw(a), draw(b)) for _ in range(subsets)]
    return Spread(float(np.mean(values)), float(np.std(values)))


def maximum_mean_discrepancy(a: Features, b: Others, *, bandwidth: float | None = None) -> Estimate:
    """MMD² of a [N, D] and b [M, D] with the kernel exp(-|x - y|²/2h²), and its standard error.

    `squared_mmd` of all rows: unbiased, at most 2, negative at times. h: the bandwidth, in
    units of the features, `median_distance(a, b)` unless given; figures compare at equal h
    only. Kernels are made in blocks of rows, so that memory stays bounded.

    standard_error: √(4 Var u/N + 4 Var v/M), with u_i = mean_{j≠i} k(a_i, a_j) - mean_j
    k(a_i, b_j) and v_j likewise of b: to first order the jackknife's, and like it rather too
    large than too small. For different distributions it tends to the true one; for equal ones,
    where the first order vanishes, it is √2 too large at N = M.
    Raises ValueError as `checked`, and for a bandwidth that is not positive and finite.
    """
    a, b = checked(a, b)
    h = median_distance(a, b) if bandwidth is None else bandwidth
    if not (h > 0 and math.isfinite(h)):
        raise ValueError(
            f"expected a positive, finite bandwidth, got {h}"
            + (": half of all distances are zero, so give one" if bandwidth is None else "")
        )
    center = b.mean(0)
    x, y = checked((a - center) / h, (b - center) / h)
    n, m = len(x), len(y)
    across, back = _kernel_sums(x, y)
    u = _kernel_sums(x, x)[0] / (n - 1) - across / m
    v = _kernel_sums(y, y)[0] / (m - 1) - back / n
    error = math.sqrt(4.0 * u.var(ddof=1) / n + 4.0 * v.var(ddof=1) / m)
    return Estimate(float(u.mean() + v.mean()), error)


def median_distance(a: Features, b: Others) -> float:
    """The median of |x - y| over all pairs of the rows of a [N, D] and b [M, D] together.

    Of at most MEDIAN_ROWS rows of each, evenly spaced, so that it follows from the features
    alone. The heuristic of Gretton et al. 2012. Raises ValueError as `checked`.
    """
    a, b = checked(a, b)
    pooled = np.concatenate([_evenly(a), _evenly(b)])
    pooled = pooled - pooled.mean(0)
    pairs = np.triu_indices(len(pooled), 1)
    return float(np.sqrt(np.median(_squared_distances(pooled, pooled)[pairs])))


def _evenly(x: np.ndarray) -> np.ndarray:
    kept = min(len(x), MEDIAN_ROWS)
    return x[np.arange(kept) * len(x) // kept]


def _polynomial_mmd(a: np.ndarray, b: np.ndarray) -> float:
    def kernel(x, y):
        k = x @ y.T / x.shape[1] + 1.0
        return k * k * k  # ten times faster than k ** 3

    return squared_mmd(kernel(a, a), kernel(b, b), kernel(a, b))


def _kernel_sums(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Σ_j and Σ_i of exp(-|x_i - y_j|²/2), [N] and [M]; where y is x without j = i."""
    over_y, over_x = np.empty(len(x)), np.zeros(len(y))
    for rows in blocks(len(x), len(y)):
        k = np.exp(-0.5 * _squared_distances(x[rows], y))
        if y is x:
            np.fill_diagonal(k[:, rows], 0.0)
        over_y[rows] = k.sum(1)
        over_x += k.sum(0)
    return over_y, over_x


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|x_i - y_j|² to some 1e-15 of |x_i|² + |y_j|²: for features about their mean."""
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1)
    return np.maximum(squares - 2.0 * (x @ y.T), 0.0)
