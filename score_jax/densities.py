"""Densities whose score is known exactly: the oracles of the tests and of the notebooks.

A Gaussian mixture is closed under x_t = α x_0 + σ ε, so the exact score, denoiser and
marginal of every process on it are one line:

    p = GaussianMixture(weights=[0.2, 0.8], means=[[-5.0, -5.0], [5.0, 5.0]], stds=[1.0, 1.0])
    p.noised(alpha, sigma).score(x)
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.types import Array, Key


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """p(x) = Σ_k w_k N(x; μ_k, diag(s_k²)) on R^D.

    weights: [K], positive, normalized here. means: [K, D].
    stds: [K] (isotropic components) or [K, D] (one scale per coordinate).
    """

    weights: Array
    means: Array
    stds: Array

    def __post_init__(self):
        weights, means = jnp.asarray(self.weights), jnp.asarray(self.means)
        stds = jnp.asarray(self.stds)
        if weights.ndim != 1 or means.ndim != 2 or len(weights) != len(means):
            raise ValueError(
                f"expected weights [K] and means [K, D], got {weights.shape} and {means.shape}"
            )
        if stds.shape not in (weights.shape, means.shape):
            raise ValueError(
                f"expected stds [K] or [K, D], got {stds.shape} for K = {len(weights)}"
            )
        if stds.ndim == 1:
            stds = jnp.broadcast_to(stds[:, None], means.shape)
        object.__setattr__(self, "weights", weights / weights.sum())
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "stds", stds)

    def component_log_probs(self, x: Array) -> Array:
        """log w_k N(x; μ_k, diag(s_k²)) in nats, [K], at one point x [D]."""
        z = (x - self.means) / self.stds
        log_normal = -0.5 * (z**2 + jnp.log(2 * jnp.pi)) - jnp.log(self.stds)
        return jnp.log(self.weights) + log_normal.sum(-1)

    def log_prob(self, x: Array) -> Array:
        """log p(x) in nats at one point x [D]."""
        return jax.nn.logsumexp(self.component_log_probs(x))

    def score(self, x: Array) -> Array:
        """∇ log p(x) [D] at one point x [D]: Σ_k p(k | x) (μ_k - x) / s_k²."""
        responsibility = jax.nn.softmax(self.component_log_probs(x))
        return responsibility @ ((self.means - x) / self.stds**2)

    def sample(self, key: Key) -> Array:
        """One draw [D]."""
        which, where = jax.random.split(key)
        k = jax.random.categorical(which, jnp.log(self.weights))
        noise = jax.random.normal(where, self.means.shape[1:], self.means.dtype)
        return self.means[k] + self.stds[k] * noise

    def noised(self, alpha: Array, sigma: Array) -> "GaussianMixture":
        """The exact density of α x + σ ε for x ~ p, ε ~ N(0, I)."""
        return GaussianMixture(
            self.weights, alpha * self.means, jnp.sqrt((alpha * self.stds) ** 2 + sigma**2)
        )

    def mean(self) -> Array:
        return self.weights @ self.means

    def covariance(self) -> Array:
        centered = self.means - self.mean()
        within = jnp.diag(self.weights @ self.stds**2)
        return within + jnp.einsum("k,ki,kj->ij", self.weights, centered, centered)


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


DENSITIES = {"two_modes": two_modes, "three_modes": three_modes}
