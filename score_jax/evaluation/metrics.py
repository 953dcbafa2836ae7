"""Distances between two sets of features: pure functions of NumPy arrays, in float64."""

import numpy as np


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½) of features a [N, D] and b [M, D].

    The squared 2-Wasserstein distance of the Gaussians with the same moments, in units of
    the features squared; Heusel et al. 2017 (arXiv 1706.08500), equation 6, who take the
    features of Inception. Covariances are unbiased (N - 1). Biased upwards for finite N
    and M: compare figures at equal N and M only. Raises ValueError for unequal D or fewer
    than two examples.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"expected features [N, D] and [M, D], N, M >= 2, got {a.shape} and {b.shape}"
        )
    gap = a.mean(0) - b.mean(0)
    cov_a, cov_b = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    # tr (AB)^½ = sum of singular values of A^½ B^½: no square root of a non-symmetric matrix.
    cross = np.linalg.svd(_root(cov_a) @ _root(cov_b), compute_uv=False).sum()
    return float(gap @ gap + np.trace(cov_a) + np.trace(cov_b) - 2.0 * cross)


def _root(cov: np.ndarray) -> np.ndarray:
    """The symmetric square root of a covariance."""
    values, vectors = np.linalg.eigh(cov)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
