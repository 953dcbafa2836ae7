"""What a Gaussian mixture is once a linear observation of it is known: the exact posterior.

posterior = posterior_given(density, matrix, y, noise=0.1)
posterior.mean(), posterior.covariance(), posterior.sample(key)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real

from score_jax.densities.mixture import GaussianMixture
from score_jax.errors import UserError
from score_jax.types import Array, Given, Key


class Components(NamedTuple):
    """Σ_k w_k N(μ_k, C_k) on R^D, in float64; C_k may be singular.

    weights: [K], summing to 1. means: [K, D]. covariances: [K, D, D].
    """

    weights: Float[np.ndarray, " K"]
    means: Float[np.ndarray, "K D"]
    covariances: Float[np.ndarray, "K D D"]

    def mean(self) -> Float[np.ndarray, " D"]:
        """E[x] [D]."""
        return self.weights @ self.means

    def covariance(self) -> Float[np.ndarray, "D D"]:
        """Cov[x] [D, D]: within the components and between them."""
        centered = self.means - self.mean()
        within = np.einsum("k,kij->ij", self.weights, self.covariances)
        return within + np.einsum("k,ki,kj->ij", self.weights, centered, centered)

    def sample(self, key: Key) -> Float[Array, " D"]:
        """One draw [D]: μ_k + C_k^½ z with probability w_k, z ~ N(0, I)."""
        which, where = jax.random.split(key)
        values, vectors = np.linalg.eigh(self.covariances)
        roots = jnp.asarray(vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :])
        k = jax.random.categorical(which, jnp.log(jnp.asarray(self.weights)))
        z = jax.random.normal(where, self.means.shape[1:], roots.dtype)
        return jnp.asarray(self.means)[k] + roots[k] @ z


def posterior_given(
    density: GaussianMixture, matrix: Real[Given, "M D"], y: Real[Given, " M"], noise: float
) -> Components:
    """The law of x ~ density given y = A x + noise n, n ~ N(0, I): a mixture again.

    With C_k = diag(s_k²), S_k = A C_k Aᵀ + noise² I and the gain G_k = C_k Aᵀ S_k⁻¹,

        w_k ∝ w_k N(y; A μ_k, S_k),    μ_k + G_k (y - A μ_k),    (I - G_k A) C_k,

    in float64 on the host, the last as (I - G A) C (I - G A)ᵀ + noise² G Gᵀ, which no rounding
    makes negative. Bishop 2006, "Pattern Recognition and Machine Learning", equations 2.113 to
    2.117, in each component.

    matrix: A [M, D]. y: [M]. noise: may be 0, where every S_k must be regular.
    Raises UserError for shapes that do not fit, a negative noise, and a singular S_k.
    """
    matrix, y = np.asarray(matrix, np.float64), np.asarray(y, np.float64)
    weights, means, stds = (
        np.asarray(a, np.float64) for a in (density.weights, density.means, density.stds)
    )
    m, d = len(y), means.shape[1]
    if y.ndim != 1 or matrix.shape != (m, d):
        raise UserError(
            f"expected a matrix [M, {d}] and y [M], got shapes {matrix.shape} and {y.shape}"
        )
    if not 0.0 <= noise < np.inf:
        raise UserError(f"noise must be finite and at least 0, got {noise}")
    prior = stds[:, :, None] ** 2 * np.eye(d)
    cross = prior @ matrix.T
    spread = matrix @ cross + noise**2 * np.eye(m)
    values, vectors = np.linalg.eigh(spread)
    if np.any(values <= 1e-12 * np.max(values, initial=0.0, axis=1, keepdims=True)):
        raise UserError(
            f"with noise = {noise} this y has no density: the rows of the matrix depend on each "
            "other, or a component has no width where they look; use noise > 0"
        )
    gain = cross @ (vectors / values[:, None, :]) @ vectors.transpose(0, 2, 1)
    residual = y - means @ matrix.T
    whitened = np.einsum("kij,ki->kj", vectors, residual) / np.sqrt(values)
    log_weights = np.log(np.maximum(weights, 1e-300)) - 0.5 * (whitened**2 + np.log(values)).sum(1)
    posterior = np.exp(log_weights - log_weights.max()) * (weights > 0)
    kept = np.eye(d) - gain @ matrix
    covariances = kept @ prior @ kept.transpose(0, 2, 1)
    covariances += noise**2 * gain @ gain.transpose(0, 2, 1)
    return Components(
        posterior / posterior.sum(), means + np.einsum("kij,kj->ki", gain, residual), covariances
    )
