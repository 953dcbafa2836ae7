"""A density in another orthonormal basis: correlated Gaussians, data on a subspace."""

from dataclasses import dataclass
from typing import Union

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from score_jax.densities.mixture import GaussianMixture
from score_jax.errors import UserError
from score_jax.types import Array, Given, Key, Scalar


@dataclass(frozen=True, eq=False)
class Rotated:
    """The law of x = Q y for y ~ density: p(x) = density(Qᵀ x), Q orthonormal.

    The noise does not see Q: Q ε ~ N(0, I), so it is closed under noising when y is.
    density: any density of this package. basis: Q [D, D]; its columns are y's axes in x.
    Raises UserError unless QᵀQ = I to 1e-5.
    """

    density: "Density"
    basis: Float[np.ndarray, "D D"]

    def __post_init__(self):
        basis, d = np.asarray(self.basis, np.float64), len(self.density.mean())
        if basis.shape != (d, d):
            raise UserError(f"expected a basis [D, D] with D = {d}, got {basis.shape}")
        error = np.abs(basis.T @ basis - np.eye(d)).max()
        if not error < 1e-5:
            raise UserError(f"basis must be orthonormal, got max |QᵀQ - I| = {error:.2g}")
        object.__setattr__(self, "basis", basis)

    def log_prob(self, x: Float[Given, " D"]) -> Float[Array, ""]:
        """log p(x) in nats at one point x [D]: that of the density at Qᵀ x."""
        return self.density.log_prob(x @ self.basis)

    def score(self, x: Float[Given, " D"]) -> Float[Array, " D"]:
        """∇ log p(x) [D] at one point x [D]: Q times the score at Qᵀ x."""
        return jnp.matmul(self.basis, self.density.score(x @ self.basis))

    def sample(self, key: Key) -> Float[Array, " D"]:
        """One draw [D]: Q y, y ~ density."""
        return jnp.matmul(self.basis, self.density.sample(key))

    def noised(self, alpha: Scalar, sigma: Scalar) -> "Rotated":
        """The exact density of α x + σ ε for x ~ p, ε ~ N(0, I): the rotated noised density."""
        return Rotated(self.density.noised(alpha, sigma), self.basis)

    def posterior_mean(
        self, x: Float[Given, " D"], alpha: Scalar, sigma: Scalar
    ) -> Float[Array, " D"]:
        """E[x_0 | α x_0 + σ ε = x] [D] for x_0 ~ p, at one point x [D]: Q times it at Qᵀ x."""
        return jnp.matmul(self.basis, self.density.posterior_mean(x @ self.basis, alpha, sigma))

    def mean(self) -> Float[Array, " D"]:
        """E[x] [D]: Q E[y]."""
        return jnp.matmul(self.basis, self.density.mean())

    def covariance(self) -> Float[Array, "D D"]:
        """Cov[x] [D, D]: Q Cov[y] Qᵀ."""
        return jnp.matmul(self.basis, self.density.covariance()) @ self.basis.T


Density = Union[GaussianMixture, Rotated]  # noqa: UP007 (quoted above, before it exists)
