"""The Fréchet distance: how far two Gaussians with the features' moments are apart."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Real

from score_jax.metrics.base import Features, Others, blocks, checked, finite

TOLERANCE = 1e-4  # of a given covariance's asymmetry and negative eigenvalues, against its largest


class Moments(NamedTuple):
    """mean: [D]. covariance: [D, D], unbiased. count: of examples, None where not published."""

    mean: Real[np.ndarray, " D"]
    covariance: Real[np.ndarray, "D D"]
    count: int | None = None  # type: ignore[assignment]  # hides a method that no one calls


def moments(x: Features) -> Moments:
    """Mean and unbiased covariance (N - 1) of features x [N, D]. Raises ValueError as `checked`."""
    x, _ = checked(x, x)
    mean = x.mean(0)
    total = np.zeros((x.shape[1], x.shape[1]))
    for rows in blocks(*x.shape):
        centered = x[rows] - mean
        total += centered.T @ centered
    return Moments(mean, total / (len(x) - 1), len(x))


def frechet_distance(a: Features, b: Others) -> float:
    """|μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½) of features a [N, D] and b [M, D].

    The squared 2-Wasserstein distance of the Gaussians with the same moments, in units of
    the features squared; Heusel et al. 2017 (arXiv 1706.08500), equation 6, who take the
    features of Inception. Covariances are unbiased (N - 1). Biased upwards for finite N
    and M: compare figures at equal N and M only.

    With Σ = RᵀR, R from a QR decomposition of the centered features, tr (Σ_a Σ_b)^½ is the sum
    of the singular values of R_a R_bᵀ. No covariance is formed and no root taken, so that the
    error is some 1e-15 of tr Σ_a + tr Σ_b, also where the covariances are singular; what
    rounding leaves below zero is zero. Raises ValueError as `checked`.
    """
    a, b = checked(a, b)
    return _distance(a.mean(0) - b.mean(0), _triangle(a), _triangle(b))


def frechet_distance_of_moments(a: Moments, b: Moments) -> float:
    """`frechet_distance` of means and covariances, as of published reference statistics.

    Where covariances are singular the error is some 1e-8 of their traces: half of the digits
    of a small eigenvalue are lost with the root. Raises ValueError for shapes that do not fit,
    numbers that are not finite and a matrix that is no covariance.
    """
    a, b = _checked_moments(a, "the first"), _checked_moments(b, "the second")
    if len(a.mean) != len(b.mean):
        raise ValueError(
            f"expected moments of the same features, got {len(a.mean)} and {len(b.mean)} of them"
        )
    return _distance(a.mean - b.mean, _root(a.covariance), _root(b.covariance))


def _distance(gap: np.ndarray, root_a: np.ndarray, root_b: np.ndarray) -> float:
    """Of the means' difference and of any R with RᵀR = Σ, [any, D]."""
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    return max(0.0, float(gap @ gap + (root_a**2).sum() + (root_b**2).sum() - 2.0 * cross))


def _triangle(x: np.ndarray) -> np.ndarray:
    """R [min(N, D), D] with RᵀR the covariance of x, a block of rows after the other."""
    mean, r = x.mean(0), x[:0]
    for rows in blocks(*x.shape):
        new = np.concatenate([r, x[rows] - mean])
        r = np.linalg.qr(new, mode="r")  # type: ignore[assignment]  # NumPy's stub knows no modes
    return r / np.sqrt(len(x) - 1)


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T


def _checked_moments(given: Moments, which: str) -> Moments:
    mean, cov = (np.asarray(part, np.float64) for part in given[:2])
    if mean.ndim != 1 or not len(mean) or cov.shape != (len(mean), len(mean)):
        raise ValueError(
            f"expected {which} mean [D] and covariance [D, D], got {mean.shape} and {cov.shape}"
        )
    finite(mean, f"{which} mean")
    finite(cov, f"{which} covariance")
    allowed = TOLERANCE * np.abs(cov).max()
    if np.abs(cov - cov.T).max() > allowed or np.linalg.eigvalsh(cov)[0] < -allowed:
        raise ValueError(
            f"expected a symmetric {which} covariance without negative eigenvalues: these are "
            "not mean and covariance of the features, or not in this order"
        )
    return Moments(mean, cov, given.count)
