"""Mixtures of axis-aligned Gaussians, and the kernel density estimate, which is one."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real
from numpy.typing import ArrayLike

from score_jax.errors import UserError
from score_jax.types import Array, Given, Key, Scalar


@dataclass(frozen=True, eq=False, init=False)
class GaussianMixture:
    """p(x) = Σ_k w_k N(x; μ_k, diag(s_k²)) on R^D.

    weights: [K], not negative and not all 0, normalized here. means: [K, D].
    stds: [K] (isotropic components) or [K, D] (one scale per coordinate). Where one is 0
    the mixture has no log_prob and no score, but `noised` with σ > 0 does, and `sample`,
    `posterior_mean`, `mean` and `covariance` are those of the singular law.
    Raises UserError for shapes that do not fit, negative weights or stds, and what is not finite.
    """

    weights: Float[Array, " K"]
    means: Float[Array, "K D"]
    stds: Float[Array, "K D"]

    def __init__(self, weights: ArrayLike, means: ArrayLike, stds: ArrayLike):
        w, m, s = (_floating(a) for a in (weights, means, stds))
        if w.ndim != 1 or m.ndim != 2 or len(w) != len(m) or m.size == 0:
            raise UserError(f"expected weights [K] and means [K, D], got {w.shape} and {m.shape}")
        if s.shape not in (w.shape, m.shape):
            raise UserError(f"expected stds [K] or [K, D], got {s.shape} for K = {len(w)}")
        _check("weights", w, "not negative", lambda w: np.all(w >= 0) and w.sum() > 0)
        _check("means", m, "numbers", lambda m: True)
        _check("stds", s, "not negative", lambda s: np.all(s >= 0))
        if s.ndim == 1:
            s = jnp.broadcast_to(s[:, None], m.shape)
        object.__setattr__(self, "weights", w / w.sum())
        object.__setattr__(self, "means", m)
        object.__setattr__(self, "stds", s)

    def component_log_probs(self, x: Float[Given, " D"]) -> Float[Array, " K"]:
        """log w_k N(x; μ_k, diag(s_k²)) in nats, [K], at one point x [D].

        Raises UserError for another shape, as do all that follow from it.
        """
        if jnp.shape(x) != self.means.shape[1:]:
            raise UserError(
                f"expected a point [{self.means.shape[1]}], got shape {jnp.shape(x)}; for many "
                "use jax.vmap"
            )
        z = (x - self.means) / self.stds
        log_normal = -0.5 * (z**2 + jnp.log(2 * jnp.pi)) - jnp.log(self.stds)
        return jnp.log(self.weights) + log_normal.sum(-1)

    def log_prob(self, x: Float[Given, " D"]) -> Float[Array, ""]:
        """log p(x) in nats at one point x [D]: log Σ_k w_k N(x; μ_k, diag(s_k²))."""
        return jax.nn.logsumexp(self.component_log_probs(x))

    def score(self, x: Float[Given, " D"]) -> Float[Array, " D"]:
        """∇ log p(x) [D] at one point x [D]: Σ_k p(k | x) (μ_k - x) / s_k²."""
        responsibility = jax.nn.softmax(self.component_log_probs(x))
        return responsibility @ ((self.means - x) / self.stds**2)

    def sample(self, key: Key) -> Float[Array, " D"]:
        """One draw [D]: μ_k + s_k z with probability w_k, z ~ N(0, I)."""
        which, where = jax.random.split(key)
        k = jax.random.categorical(which, jnp.log(self.weights))
        noise = jax.random.normal(where, self.means.shape[1:], self.means.dtype)
        return self.means[k] + self.stds[k] * noise

    def noised(self, alpha: Scalar, sigma: Scalar) -> "GaussianMixture":
        """The exact density of α x + σ ε, x ~ p, ε ~ N(0, I): α μ_k and √(α² s_k² + σ²)."""
        return GaussianMixture(
            self.weights, alpha * self.means, jnp.sqrt((alpha * self.stds) ** 2 + sigma**2)
        )

    def posterior_mean(
        self, x: Float[Given, " D"], alpha: Scalar, sigma: Scalar
    ) -> Float[Array, " D"]:
        """E[x_0 | α x_0 + σ ε = x] [D] for x_0 ~ p, at one point x [D]: the ideal denoiser.

        Σ_k p(k | x) (σ² μ_k + α s_k² x) / (α² s_k² + σ²), by Bayes' rule in each component:
        no cancellation as σ → 0 and no 0/0; the mean of p at α = 0, x/α at σ = 0 (for s > 0).
        Undefined (NaN) where σ = 0 and s = 0.
        """
        noised = self.noised(alpha, sigma)
        responsibility = jax.nn.softmax(noised.component_log_probs(x))
        noise, signal = (sigma / noised.stds) ** 2, alpha * (self.stds / noised.stds) ** 2
        return responsibility @ (noise * self.means + signal * x)

    def conditional(
        self, index: tuple[int, ...], values: Float[Given, " some"]
    ) -> "GaussianMixture":
        """p(the other coordinates, in their order | x[index] = values): a mixture again.

        The weights become w_k N(values; μ_k[index], diag(s_k[index]²)), normalized in log space.
        index: distinct coordinates in 0 .. D - 1, at least one and not all. values: [len(index)].
        Raises UserError for another index, or values of another shape.
        """
        d, at = self.means.shape[1], _floating(values)
        if len(set(index)) != len(index) or not all(0 <= i < d for i in index):
            raise UserError(f"index must hold distinct coordinates in 0 .. {d - 1}, got {index}")
        if not 0 < len(index) < d:
            raise UserError(f"index must hold some of the {d} coordinates but not all, got {index}")
        if at.shape != (len(index),):
            raise UserError(f"expected values [{len(index)}] for index {index}, got {at.shape}")
        known, rest = np.array(index), np.setdiff1d(np.arange(d), index)
        marginal = GaussianMixture(self.weights, self.means[:, known], self.stds[:, known])
        weights = jax.nn.softmax(marginal.component_log_probs(at))
        return GaussianMixture(weights, self.means[:, rest], self.stds[:, rest])

    def mean(self) -> Float[Array, " D"]:
        """E[x] [D]: Σ_k w_k μ_k."""
        return self.weights @ self.means

    def covariance(self) -> Float[Array, "D D"]:
        """Cov[x] [D, D]: within the components and between them."""
        centered = self.means - self.mean()
        within = jnp.diag(self.weights @ self.stds**2)
        return within + jnp.einsum("k,ki,kj->ij", self.weights, centered, centered)


def parzen(points: Real[Given, "N D"], bandwidth: float) -> GaussianMixture:
    """p(x) = 1/N Σ_n N(x; x_n, h² I): the kernel density estimate of points [N, D].

    bandwidth: h, in the units of x; 0 gives the empirical distribution, which has a log_prob
    only after noising: `parzen(points, 0.0).noised(1.0, h)` is `parzen(points, h)`.
    Parzen 1962, with a Gaussian kernel; Vincent 2011.
    Raises UserError for points that are not [N, D] or not finite, or a negative bandwidth.
    """
    x = _floating(points)
    if x.ndim != 2 or x.size == 0:
        raise UserError(f"expected points [N, D], got {x.shape}")
    if not 0 <= bandwidth < np.inf:
        raise UserError(f"bandwidth must be finite and not negative, got {bandwidth}")
    n = len(x)
    return GaussianMixture(np.ones(n), x, np.full(n, float(bandwidth)))


def _floating(values: ArrayLike) -> Array:
    values = jnp.asarray(values)
    return values.astype(jnp.result_type(values, float))


def _check(name, values, expected, accepts):
    """Refuses bad values where they are known; inside a traced computation they are not."""
    if isinstance(values, jax.core.Tracer):
        return
    values = np.asarray(values)
    if not np.all(np.isfinite(values)) or not accepts(values):
        raise UserError(f"{name} must be finite and {expected}, got {values}")
