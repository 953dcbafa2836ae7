"""The integrals behind the exponential solvers, in float64 on the host.

With λ = log α/σ the probability-flow ODE has two exact solutions from λ_t to λ_s = λ_t + h:

    x_s = σ_s/σ_t x_t + α_s ∫_0^h e^-u x0(λ_s - u) du        (data prediction)
    x_s = α_s/α_t x_t - σ_s ∫_0^h e^u  ε(λ_s - u) du         (noise prediction)

(Lu et al. 2022, DPM-Solver++, arXiv 2211.01095, equation 8, and DPM-Solver, arXiv 2206.00927,
equation 3.4.) A solver replaces x0 or ε by a polynomial in λ, so its coefficients are
integrals of an exponential times a polynomial. Closed forms of them cancel where h is small;
Gauss-Legendre quadrature does not, and is exact to rounding.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from score_jax.processes import GaussianProcess
from score_jax.times import on_host

POINTS, MASS = np.polynomial.legendre.leggauss(64)
POINTS, MASS = 0.5 * (POINTS + 1.0), 0.5 * MASS  # on [0, 1]


class Curves(NamedTuple):
    """α, σ and λ = log α/σ at times, in float64."""

    alpha: Float[np.ndarray, " n"]
    sigma: Float[np.ndarray, " n"]
    lam: Float[np.ndarray, " n"]


def curves(process: GaussianProcess, times: Float[np.ndarray, " n"]) -> Curves:
    """The curves at arrays of times."""
    alpha, sigma, logsnr = on_host(
        lambda t: (process.alpha(t), process.sigma(t), process.logsnr(t)), times
    )
    return Curves(alpha, sigma, 0.5 * logsnr)


def phi(k: int, h: Float[np.ndarray, "*n"] | float) -> Float[np.ndarray, "*n"] | np.floating:
    """φ_k(h) = ∫_0^1 e^((1 - τ) h) τ^(k-1)/(k-1)! dτ; φ_1 = (e^h - 1)/h, φ_2 = (φ_1 - 1)/h."""
    each = np.asarray(h, np.float64)[..., None]
    factorial = np.prod(np.arange(1.0, k))
    return (np.exp((1 - POINTS) * each) * POINTS ** (k - 1) * MASS).sum(-1) / factorial


def basis_integrals(
    h: float, nodes: Float[np.ndarray, " m"], rate: float
) -> Float[np.ndarray, " m"]:
    """∫_0^h e^(-rate u) ℓ_j(λ_s - u) du for the Lagrange polynomials ℓ_j of the nodes.

    nodes: [m], the nodes' λ - λ_t; those of earlier steps are negative, that of s is h.
    """
    u = h * POINTS
    at = h - u
    basis = np.ones((len(nodes), len(u)))
    for j, node in enumerate(nodes):
        for other in np.delete(nodes, j):
            basis[j] *= (at - other) / (node - other)
    return h * (basis * np.exp(-rate * u) * MASS).sum(-1)
