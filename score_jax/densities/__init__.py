"""Densities whose score is known exactly: the oracles of the tests and of the notebooks.

Gaussian mixtures, and rotations of them, are closed under x_t = α x_0 + σ ε, so the exact
score, denoiser and marginal of every process on them are one line each:

    p = GaussianMixture(weights=[0.2, 0.8], means=[[-5.0, -5.0], [5.0, 5.0]], stds=[1.0, 1.0])
    p.noised(alpha, sigma).score(x)
    p.posterior_mean(x, alpha, sigma)

A Density has log_prob, score, sample, noised, posterior_mean, mean and covariance.
DENSITIES maps a name to a density without arguments: the toy data sets.
"""

from collections.abc import Callable

from score_jax.densities.mixture import GaussianMixture, parzen
from score_jax.densities.rotated import Density, Rotated
from score_jax.densities.toys import moons, rings, subspace, three_modes, two_modes

DENSITIES: dict[str, Callable[[], Density]] = {
    "two_modes": two_modes,
    "three_modes": three_modes,
    "rings": rings,
    "moons": moons,
    "subspace": subspace,
}

__all__ = [
    "DENSITIES",
    "Density",
    "GaussianMixture",
    "Rotated",
    "moons",
    "parzen",
    "rings",
    "subspace",
    "three_modes",
    "two_modes",
]
