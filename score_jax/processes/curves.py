"""The continuous processes: VE, VP, sub-VP, cosine, EDM and flow matching."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from score_jax.errors import UserError
from score_jax.processes.base import GaussianProcess, require_increasing
from score_jax.types import Array, Times


@dataclass(frozen=True)
class VE(GaussianProcess):
    """Variance exploding: α = 1, σ(t) = σ_min (σ_max/σ_min)^t.

    σ(0) = σ_min, not 0. Song et al. 2021 (arXiv 2011.13456), equation 9 and appendix C.
    Raises UserError unless 0 < σ_min < σ_max.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self):
        require_increasing("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    def log_alpha(self, t: Times) -> Float[Array, "*t"]:
        """log α = 0."""
        return jnp.zeros_like(t, dtype=jnp.result_type(float))

    def sigma(self, t: Times) -> Float[Array, "*t"]:
        """σ = σ_min (σ_max/σ_min)^t."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** jnp.asarray(t)

    def time_of_logsnr(self, logsnr: Times) -> Float[Array, "*t"]:
        """t = log(σ/σ_min)/log(σ_max/σ_min), log σ = -logsnr/2."""
        low, high = np.log(self.sigma_min), np.log(self.sigma_max)
        return (-0.5 * jnp.asarray(logsnr) - low) / (high - low)


class _LinearBeta(GaussianProcess):
    """What VP and sub-VP share: β(t) = β_min + t (β_max - β_min) and log α = -∫β/2."""

    beta_min: float
    beta_max: float

    def __post_init__(self):
        require_increasing("beta_min", self.beta_min, "beta_max", self.beta_max)

    def log_alpha(self, t: Times) -> Float[Array, "*t"]:
        """log α = -(β_min t + (β_max - β_min) t²/2)/2."""
        t = jnp.asarray(t)
        return -0.5 * (self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2)

    def _time_of_log_alpha(self, log_alpha):
        integral = -2.0 * log_alpha
        slope = self.beta_max - self.beta_min
        root = jnp.sqrt(self.beta_min**2 + 2.0 * slope * integral)
        return 2.0 * integral / (self.beta_min + root)


@dataclass(frozen=True)
class VP(_LinearBeta):
    """Variance preserving: dx = -β(t)/2 x dt + √β(t) dw, β(t) = β_min + t (β_max - β_min).

    log α = -(β_min t + (β_max - β_min) t²/2)/2 and σ² = 1 - α², by expm1: the published
    form 1 - exp(2 log α) is off by half a percent of σ at t = 1e-5 in float32.
    Song et al. 2021, equation 11 and appendix C.
    Raises UserError unless 0 < β_min < β_max.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def sigma2(self, t: Times) -> Float[Array, "*t"]:
        """σ² = 1 - α²."""
        return -jnp.expm1(2.0 * self.log_alpha(t))

    def sigma(self, t: Times) -> Float[Array, "*t"]:
        """σ = √(1 - α²)."""
        return jnp.sqrt(self.sigma2(t))

    def time_of_logsnr(self, logsnr: Times) -> Float[Array, "*t"]:
        """The t with ∫_0^t β = log(1 + e^-logsnr), the root of a quadratic equation."""
        return self._time_of_log_alpha(-0.5 * jax.nn.softplus(-jnp.asarray(logsnr)))


@dataclass(frozen=True)
class SubVP(_LinearBeta):
    """Sub-VP: the drift of VP, and σ = 1 - α² where VP has √(1 - α²): α² + σ² <= 1.

    g² = β(t) (1 - exp(-2 ∫β)). By expm1: the published form is off by one percent of σ at
    t = 1e-5 in float32. Song et al. 2021, equation 12 and appendix C.
    Raises UserError unless 0 < β_min < β_max.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def sigma(self, t: Times) -> Float[Array, "*t"]:
        """σ = 1 - α²."""
        return -jnp.expm1(2.0 * self.log_alpha(t))

    def time_of_logsnr(self, logsnr: Times) -> Float[Array, "*t"]:
        """The t with ∫_0^t β = 2 arcsinh(e^(-logsnr/2)/2), the root of a quadratic equation."""
        ratio = jnp.exp(-0.5 * jnp.asarray(logsnr))  # σ/α = 1/α - α = 2 sinh(-log α)
        return self._time_of_log_alpha(-jnp.arcsinh(0.5 * ratio))


@dataclass(frozen=True)
class Cosine(GaussianProcess):
    """α = cos θ(t), σ = sin θ(t), the angle θ running linearly in t.

    Its ends are where logsnr = -2 log tan θ is logsnr_max (t = 0) and logsnr_min (t = 1),
    so neither α nor σ is ever 0. Nichol & Dhariwal 2021 (arXiv 2102.09672), equation 17,
    with the ends of Hoogeboom et al. 2023 (arXiv 2301.11093), section 2.
    Raises UserError unless logsnr_min < logsnr_max.
    """

    logsnr_min: float = -15.0
    logsnr_max: float = 15.0

    def __post_init__(self):
        if not self.logsnr_min < self.logsnr_max:
            raise UserError(
                "expected logsnr_min < logsnr_max, got logsnr_min = "
                f"{self.logsnr_min} and logsnr_max = {self.logsnr_max}"
            )

    @property
    def _clean(self):
        """θ(0)."""
        return np.arctan(np.exp(-0.5 * self.logsnr_max))

    @property
    def _noisy(self):
        """π/2 - θ(1)."""
        return np.arctan(np.exp(0.5 * self.logsnr_min))

    @property
    def _turn(self):
        return np.pi / 2 - self._noisy - self._clean

    def alpha(self, t: Times) -> Float[Array, "*t"]:
        """α = cos θ."""
        return jnp.sin(self._noisy + (1.0 - jnp.asarray(t)) * self._turn)

    def log_alpha(self, t: Times) -> Float[Array, "*t"]:
        """log α = log cos θ."""
        return jnp.log(self.alpha(t))

    def sigma(self, t: Times) -> Float[Array, "*t"]:
        """σ = sin θ."""
        return jnp.sin(self._clean + jnp.asarray(t) * self._turn)

    def time_of_logsnr(self, logsnr: Times) -> Float[Array, "*t"]:
        """t = (θ - θ(0))/(θ(1) - θ(0)), θ = arctan e^(-logsnr/2)."""
        return (jnp.arctan(jnp.exp(-0.5 * jnp.asarray(logsnr))) - self._clean) / self._turn


@dataclass(frozen=True)
class EDM(GaussianProcess):
    """α = 1 and σ(t) = (σ_min^(1/ρ) + t (σ_max^(1/ρ) - σ_min^(1/ρ)))^ρ.

    Equal steps of t are the noise levels of Karras et al. 2022 (arXiv 2206.00364),
    equation 5; σ(0) = σ_min. What they write σ is our σ(t): no result of theirs depends
    on how time is counted, since every ODE solver here is unchanged by a warp of time.
    Raises UserError unless 0 < σ_min < σ_max and 0.1 <= ρ <= 1000.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self):
        require_increasing("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)
        if not 0.1 <= self.rho <= 1000:  # beyond, σ^(1/ρ) has no digits left
            raise UserError(f"rho must lie in [0.1, 1000], got {self.rho}")

    @property
    def _ends(self):
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)

    def log_alpha(self, t: Times) -> Float[Array, "*t"]:
        """log α = 0."""
        return jnp.zeros_like(t, dtype=jnp.result_type(float))

    def sigma(self, t: Times) -> Float[Array, "*t"]:
        """σ = (σ_min^(1/ρ) + t (σ_max^(1/ρ) - σ_min^(1/ρ)))^ρ."""
        low, high = self._ends
        return (low + jnp.asarray(t) * (high - low)) ** self.rho

    def time_of_logsnr(self, logsnr: Times) -> Float[Array, "*t"]:
        """t = (σ^(1/ρ) - σ_min^(1/ρ))/(σ_max^(1/ρ) - σ_min^(1/ρ)), σ = e^(-logsnr/2)."""
        low, high = self._ends
        return (jnp.exp(-0.5 / self.rho * jnp.asarray(logsnr)) - low) / (high - low)


@dataclass(frozen=True)
class Flow(GaussianProcess):
    """Flow matching with straight paths (rectified flow): α = 1 - t, σ = t.

    Nothing of the data is left at t = 1: x_0 cannot be told from ε or from the score
    there, only from x0, v or the velocity. Liu et al. 2022 (arXiv 2209.03003), equation 1;
    Lipman et al. 2023 (arXiv 2210.02747), equation 22 with σ_min = 0. Their time runs from
    noise to data, ours from data to noise.
    """

    def alpha(self, t: Times) -> Float[Array, "*t"]:
        """α = 1 - t."""
        return 1.0 - jnp.asarray(t, jnp.result_type(float))

    def log_alpha(self, t: Times) -> Float[Array, "*t"]:
        """log α = log(1 - t)."""
        return jnp.log1p(-jnp.asarray(t, jnp.result_type(float)))

    def sigma(self, t: Times) -> Float[Array, "*t"]:
        """σ = t."""
        return jnp.asarray(t, jnp.result_type(float))

    def time_of_logsnr(self, logsnr: Times) -> Float[Array, "*t"]:
        """t = 1/(1 + e^(logsnr/2))."""
        return jax.nn.sigmoid(-0.5 * jnp.asarray(logsnr))
