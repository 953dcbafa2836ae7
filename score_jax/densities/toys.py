"""The toy data sets, each a density that is known exactly.

The curves are Gaussian mixtures with equal components strung along them, so dense against
their standard deviation that the density along the curve is constant to rounding: components a
distance h apart make it ripple by 2 exp(-2π² s²/h²) (Poisson's summation formula).
"""

import math

import numpy as np

from score_jax.densities.mixture import GaussianMixture
from score_jax.densities.rotated import Rotated
from score_jax.errors import UserError

CURVE_STD = 0.1
_SPACING = 0.75 * CURVE_STD  # at most: a ripple below 1e-14


def two_modes() -> GaussianMixture:
    """1/5 N((-5, -5), I) + 4/5 N((5, 5), I): the toy of Song & Ermon 2019, section 3.2.2."""
    return GaussianMixture(
        np.array([0.2, 0.8]), np.array([[-5.0, -5.0], [5.0, 5.0]]), np.array([1.0, 1.0])
    )


def three_modes() -> GaussianMixture:
    """Three unequal, anisotropic modes in the plane: the toy of `configs/ncsn_toy.py`."""
    return GaussianMixture(
        np.array([0.5, 0.3, 0.2]),
        np.array([[-1.0, 0.4], [0.8, 1.0], [0.3, -1.1]]),
        np.array([[0.25, 0.15], [0.35, 0.2], [0.1, 0.3]]),
    )


def rings() -> GaussianMixture:
    """Two circles about 0 of radius 1 and 2, thickened by N(0, 0.1² I); a third of the mass
    is on the inner one, so that both have the same density along them."""
    return _thickened(_arc(1.0, 2 * math.pi), _arc(2.0, 2 * math.pi))


def moons() -> GaussianMixture:
    """Two half circles of radius 1, the upper one about (0, 0) and the lower one about
    (1, 1/2), each end inside the other, thickened by N(0, 0.1² I): scikit-learn's make_moons."""
    upper = _arc(1.0, math.pi)
    return _thickened(upper, np.array([1.0, 0.5]) - upper)


def subspace(rank: int = 2, dimensions: int = 16) -> Rotated:
    """A Gaussian on a random subspace of R^dimensions: data on a manifold.

    In the subspace the mean is 1/2 in every direction and the standard deviations run from
    1 to 1/2; off it they are 0. So log_prob and score exist only after noising, which is the
    manifold hypothesis of Song & Ermon 2019, section 3.2.1, in its simplest form.
    Raises UserError unless 1 <= rank <= dimensions.
    """
    if not 1 <= rank <= dimensions:
        raise UserError(
            f"expected 1 <= rank <= dimensions, got rank = {rank} and dimensions = {dimensions}"
        )
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(dimensions, dimensions)))
    mean, std = np.zeros((1, dimensions)), np.zeros((1, dimensions))
    mean[0, :rank], std[0, :rank] = 0.5, np.linspace(1.0, 0.5, rank)
    return Rotated(GaussianMixture(np.ones(1), mean, std), basis)


def _arc(radius, angle):
    """Points [K, 2], evenly spread over an arc about 0 that starts on the first axis."""
    n = math.ceil(radius * angle / _SPACING)
    theta = (np.arange(n) + 0.5) * angle / n
    return radius * np.stack([np.cos(theta), np.sin(theta)], axis=1)


def _thickened(*curves):
    means = np.concatenate(curves)
    return GaussianMixture(np.ones(len(means)), means, np.full(len(means), CURVE_STD))
