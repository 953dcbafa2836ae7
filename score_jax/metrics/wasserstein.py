"""The sliced Wasserstein distance: exact transport along random directions."""

import math

import numpy as np

from score_jax.metrics.base import Estimate, Features, Others, blocks, checked


def sliced_wasserstein(
    a: Features, b: Others, *, projections: int = 1000, rng: np.random.Generator
) -> Estimate:
    """E_θ W₂²(θ·a, θ·b) of a [N, D] and b [M, D], θ uniform on the unit sphere.

    W₂² of numbers is ∫ (F_a⁻¹(q) - F_b⁻¹(q))² dq over q in [0, 1], here exact for all N and M.
    Squared, in units of the features squared: a shift by v gives |v|²/D. Bonneel et al. 2015
    (J. Math. Imaging Vis. 51), up to the sphere's area. Estimated by `projections` random
    directions; standard_error is over these, and tells nothing of the finite numbers of
    samples, which bias the value upwards: compare figures at equal N and M only.
    Raises ValueError as `checked`, and for fewer than two projections.
    """
    a, b = checked(a, b)
    if projections < 2:
        raise ValueError(
            f"expected at least 2 projections, for the standard error, got {projections}"
        )
    directions = rng.standard_normal((projections, a.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    rank_a, rank_b, weights = _merged(len(a), len(b))
    values = np.empty(projections)
    for some in blocks(projections, len(weights)):
        sorted_a = np.sort(directions[some] @ a.T, axis=1)
        sorted_b = np.sort(directions[some] @ b.T, axis=1)
        values[some] = (sorted_a[:, rank_a] - sorted_b[:, rank_b]) ** 2 @ weights
    return Estimate(float(values.mean()), float(values.std(ddof=1) / math.sqrt(projections)))


def _merged(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pieces of [0, 1] on which both quantile functions are constant: (ranks, ranks, lengths).

    In whole multiples of 1/nm, so that no two ends that are equal differ by rounding.
    """
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    return (ends - 1) // m, (ends - 1) // n, np.diff(ends, prepend=0) / (n * m)
