"""Ladders: processes given at N noise levels, as NCSN and DDPM have them."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from score_jax.errors import UserError
from score_jax.limits import check_at_most
from score_jax.processes.base import GaussianProcess, require_increasing
from score_jax.types import Array, Times


@dataclass(frozen=True, eq=False)
class Tabulated(GaussianProcess):
    """A ladder of noise levels: level i = 0 .. N-1 stands at t = (i + 1)/N, clean data at t = 0.

    ratios: [N], the noise-to-signal ratios σ/α of the levels, increasing.
    preserving: True for α² + σ² = 1 (DDPM), False for α = 1 (NCSN).

    Between two levels the ratio runs geometrically, below the first its square runs
    linearly to 0, so the curves are defined, continuous and invertible on all of [0, 1].
    Raises UserError unless the ratios are positive and increasing.
    """

    ratios: Float[np.ndarray, " N"]
    preserving: bool

    def __post_init__(self):
        ratios = np.asarray(self.ratios, np.float64)
        if ratios.ndim != 1 or len(ratios) == 0:
            raise UserError(f"a ladder needs at least one level, got shape {ratios.shape}")
        if not (ratios[0] > 0 and np.all(np.diff(ratios) > 0) and np.isfinite(ratios[-1])):
            raise UserError(
                f"a ladder's noise levels must be positive and increasing, got {ratios}"
            )
        object.__setattr__(self, "ratios", ratios)

    @classmethod
    def from_sigmas(cls, sigmas: ArrayLike) -> "Tabulated":
        """NCSN's ladder (α = 1) from its noise levels [N], in increasing order.

        Song & Ermon 2019, section 4. Raises UserError as the class does.
        """
        return cls(np.asarray(sigmas, np.float64), preserving=False)

    @classmethod
    def from_betas(cls, betas: ArrayLike) -> "Tabulated":
        """DDPM's ladder from its forward variances β_1 .. β_N [N]: α_i² = Π_{j<=i} (1 - β_j).

        Ho et al. 2020 (arXiv 2006.11239), equations 2 and 4. Raises UserError unless
        every β lies in (0, 1).
        """
        betas = np.asarray(betas, np.float64)
        if not np.all((betas > 0) & (betas < 1)):
            raise UserError(f"every beta must lie in (0, 1), got {betas.min()} .. {betas.max()}")
        log_alpha2 = np.cumsum(np.log1p(-betas))
        return cls(np.sqrt(np.expm1(-log_alpha2)), preserving=True)

    @property
    def levels(self) -> int:
        """N: the levels are the times (i + 1)/N."""
        return len(self.ratios)

    def _ratio2(self, t):
        table = jnp.asarray(self.ratios**2)
        position = jnp.asarray(t) * self.levels
        k = jnp.clip(jnp.floor(position).astype(int), 0, self.levels - 1)
        lower, upper, w = table[jnp.maximum(k - 1, 0)], table[k], position - k
        return jnp.where(k == 0, w * upper, lower * (upper / lower) ** w)

    def log_alpha(self, t: Times) -> Float[Array, "*t"]:
        """log α = -log(1 + r²)/2 where α² + σ² = 1, r = σ/α; else 0."""
        ratio2 = self._ratio2(t)
        return -0.5 * jnp.log1p(ratio2) if self.preserving else jnp.zeros_like(ratio2)

    def sigma2(self, t: Times) -> Float[Array, "*t"]:
        """σ² = r²/(1 + r²) where α² + σ² = 1, r = σ/α; else r²."""
        ratio2 = self._ratio2(t)
        return ratio2 / (1.0 + ratio2) if self.preserving else ratio2

    def sigma(self, t: Times) -> Float[Array, "*t"]:
        """σ = √σ²."""
        return jnp.sqrt(self.sigma2(t))

    def logsnr(self, t: Times) -> Float[Array, "*t"]:
        """logsnr = -log r², r = σ/α; ∞ at t = 0."""
        return -jnp.log(self._ratio2(t))

    def time_of_logsnr(self, logsnr: Times) -> Float[Array, "*t"]:
        """The interpolation backwards; beyond the noisiest level 1."""
        table = 2.0 * np.log(self.ratios)
        times = np.arange(1, self.levels + 1) / self.levels
        below = jnp.exp(-jnp.asarray(logsnr) - table[0]) / self.levels
        above = jnp.interp(-jnp.asarray(logsnr), table, times)
        return jnp.where(-jnp.asarray(logsnr) < table[0], below, above)


def geometric(*, sigma_min: float, sigma_max: float, levels: int) -> Tabulated:
    """NCSN's ladder, σ_i = σ_min (σ_max/σ_min)^(i/(N-1)). Song & Ermon 2019, section 4.1.

    Raises UserError unless 0 < sigma_min < sigma_max and 2 <= levels <= MOST_LEVELS.
    """
    require_increasing("sigma_min", sigma_min, "sigma_max", sigma_max)
    require_levels(levels)
    return Tabulated.from_sigmas(np.geomspace(sigma_min, sigma_max, levels))


def linear_betas(*, beta_min: float, beta_max: float, levels: int) -> Tabulated:
    """DDPM's ladder: β linear, theirs from 1e-4 to 0.02 in 1,000. Ho et al. 2020, section 4.

    Raises UserError unless 0 < beta_min < beta_max < 1 and 2 <= levels <= MOST_LEVELS.
    """
    require_increasing("beta_min", beta_min, "beta_max", beta_max)
    require_levels(levels)
    return Tabulated.from_betas(np.linspace(beta_min, beta_max, levels))


def quadratic_betas(*, beta_min: float, beta_max: float, levels: int) -> Tabulated:
    """The square roots of β linear: Ho et al. 2020's "quad", which Song et al. 2020 use too.

    Raises UserError as `linear_betas`.
    """
    require_increasing("beta_min", beta_min, "beta_max", beta_max)
    require_levels(levels)
    return Tabulated.from_betas(np.linspace(beta_min**0.5, beta_max**0.5, levels) ** 2)


MOST_LEVELS = 1_000_000


def require_levels(levels: int) -> None:
    """Raises UserError for fewer than two levels, or more than a table should have."""
    if levels < 2:
        raise UserError(f"levels must be at least 2, got {levels}")
    check_at_most("levels", levels, MOST_LEVELS)
