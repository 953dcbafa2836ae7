"""Forward processes: a process is two curves.

    x_t = α(t) x_0 + σ(t) ε,    ε ~ N(0, I),    t in [0, 1], t = 0 clean, t = 1 noise.

    process = VP()
    x_t = add_noise(process, x_0, eps, t)

α(t) is the signal's scale, σ(t) the noise's standard deviation and
logsnr(t) = log α²/σ², decreasing in t. Drift, diffusion, transition, posterior and prior
are functions *of* a process,
written once below; the processes differ in the two curves and in nothing else.
s < t always: s is the earlier, cleaner time.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.errors import UserError
from score_jax.types import Array, Key, Scalar


class GaussianProcess:
    """The two curves. A subclass gives `log_alpha` and `sigma`, both differentiable in t."""

    levels: int | None = None  # the number of noise levels of a tabulated process

    def log_alpha(self, t: Scalar) -> Array:
        raise NotImplementedError

    def sigma(self, t: Scalar) -> Array:
        raise NotImplementedError

    def alpha(self, t: Scalar) -> Array:
        return jnp.exp(self.log_alpha(t))

    def logsnr(self, t: Scalar) -> Array:
        """log α(t)²/σ(t)²; +∞ where σ = 0."""
        return 2.0 * (self.log_alpha(t) - jnp.log(self.sigma(t)))

    def time_of_logsnr(self, logsnr: Scalar) -> Array:
        """The t with logsnr(t) = logsnr; the inverse of `logsnr`."""
        raise NotImplementedError


@dataclass(frozen=True)
class VE(GaussianProcess):
    """Variance exploding: α = 1, σ(t) = σ_min (σ_max/σ_min)^t.

    σ(0) = σ_min, not 0. Song et al. 2021 (arXiv 2011.13456), equation 9 and appendix C.
    Raises UserError unless 0 < σ_min < σ_max.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self):
        _require_increasing("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    def log_alpha(self, t):
        return jnp.zeros_like(t, dtype=jnp.result_type(float))

    def sigma(self, t):
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** jnp.asarray(t)

    def time_of_logsnr(self, logsnr):
        low, high = np.log(self.sigma_min), np.log(self.sigma_max)
        return (-0.5 * logsnr - low) / (high - low)


@dataclass(frozen=True)
class VP(GaussianProcess):
    """Variance preserving: dx = -β(t)/2 x dt + √β(t) dw, β(t) = β_min + t (β_max - β_min).

    log α = -(β_min t + (β_max - β_min) t²/2)/2 and σ² = 1 - α², by expm1: the published
    form 1 - exp(2 log α) is off by half a percent of σ at t = 1e-5 in float32.
    Song et al. 2021, equation 11 and appendix C.
    Raises UserError unless 0 < β_min < β_max.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self):
        _require_increasing("beta_min", self.beta_min, "beta_max", self.beta_max)

    def log_alpha(self, t):
        return -0.5 * (self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2)

    def sigma(self, t):
        return jnp.sqrt(-jnp.expm1(2.0 * self.log_alpha(t)))

    def time_of_logsnr(self, logsnr):
        integral = jax.nn.softplus(-jnp.asarray(logsnr))  # ∫β = -2 log α = log(1 + σ²/α²)
        slope = self.beta_max - self.beta_min
        root = jnp.sqrt(self.beta_min**2 + 2.0 * slope * integral)
        return 2.0 * integral / (self.beta_min + root)


@dataclass(frozen=True, eq=False)
class Tabulated(GaussianProcess):
    """A ladder of noise levels: level i = 0 .. N-1 stands at t = (i + 1)/N, clean data at t = 0.

    ratios: [N], the noise-to-signal ratios σ/α of the levels, increasing.
    preserving: True for α² + σ² = 1 (DDPM), False for α = 1 (NCSN).

    Between two levels the ratio runs geometrically, below the first its square runs
    linearly to 0, so the curves are defined, continuous and invertible on all of [0, 1].
    Raises UserError unless the ratios are positive and increasing.
    """

    ratios: np.ndarray
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
    def from_sigmas(cls, sigmas) -> "Tabulated":
        """NCSN's ladder (α = 1) from its noise levels, in increasing order."""
        return cls(np.asarray(sigmas, np.float64), preserving=False)

    @classmethod
    def from_betas(cls, betas) -> "Tabulated":
        """DDPM's ladder from its forward variances β_1 .. β_N: α_i² = Π_{j<=i} (1 - β_j).

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
        return len(self.ratios)

    def _ratio2(self, t):
        table = jnp.asarray(self.ratios**2)
        position = jnp.asarray(t) * self.levels
        k = jnp.clip(jnp.floor(position).astype(int), 0, self.levels - 1)
        lower, upper, w = table[jnp.maximum(k - 1, 0)], table[k], position - k
        return jnp.where(k == 0, w * upper, lower * (upper / lower) ** w)

    def log_alpha(self, t):
        ratio2 = self._ratio2(t)
        return -0.5 * jnp.log1p(ratio2) if self.preserving else jnp.zeros_like(ratio2)

    def sigma(self, t):
        ratio2 = self._ratio2(t)
        return jnp.sqrt(ratio2 / (1.0 + ratio2) if self.preserving else ratio2)

    def logsnr(self, t):
        return -jnp.log(self._ratio2(t))

    def time_of_logsnr(self, logsnr):
        table = 2.0 * np.log(self.ratios)
        times = np.arange(1, self.levels + 1) / self.levels
        below = jnp.exp(-jnp.asarray(logsnr) - table[0]) / self.levels
        above = jnp.interp(-jnp.asarray(logsnr), table, times)
        return jnp.where(-jnp.asarray(logsnr) < table[0], below, above)


def geometric(*, sigma_min: float, sigma_max: float, levels: int) -> Tabulated:
    """NCSN's ladder: σ geometric from sigma_max to sigma_min. Song & Ermon 2019, section 4.1."""
    _require_increasing("sigma_min", sigma_min, "sigma_max", sigma_max)
    _require_levels(levels)
    return Tabulated.from_sigmas(np.geomspace(sigma_min, sigma_max, levels))


def linear_betas(*, beta_min: float, beta_max: float, levels: int) -> Tabulated:
    """DDPM's ladder: β linear, theirs from 1e-4 to 0.02 in 1,000. Ho et al. 2020, section 4."""
    _require_increasing("beta_min", beta_min, "beta_max", beta_max)
    _require_levels(levels)
    return Tabulated.from_betas(np.linspace(beta_min, beta_max, levels))


PROCESSES = {"ve": VE, "vp": VP, "ncsn": geometric, "ddpm": linear_betas}


def drift(process: GaussianProcess, x: Array, t: Scalar) -> Array:
    """f(x, t) = x d log α/dt of the forward SDE dx = f dt + g dw. Units of x per unit of t."""
    return x * jax.grad(process.log_alpha)(jnp.asarray(t, float))


def diffusion2(process: GaussianProcess, t: Scalar) -> Array:
    """g(t)² = dσ²/dt - 2 σ² d log α/dt of the forward SDE dx = f dt + g dw."""
    t = jnp.asarray(t, float)
    growth = jax.grad(lambda t: process.sigma(t) ** 2)(t)
    return growth - 2.0 * process.sigma(t) ** 2 * jax.grad(process.log_alpha)(t)


def add_noise(process: GaussianProcess, x_0: Array, eps: Array, t: Scalar) -> Array:
    """x_t = α(t) x_0 + σ(t) ε."""
    return process.alpha(t) * x_0 + process.sigma(t) * eps


def share_new(process: GaussianProcess, s: Scalar, t: Scalar) -> Array:
    """1 - SNR(t)/SNR(s) in [0, 1], without cancellation: the share of noise at t new since s."""
    return -jnp.expm1(process.logsnr(t) - process.logsnr(s))


def transition(process: GaussianProcess, s: Scalar, t: Scalar) -> tuple[Array, Array]:
    """(a, b) with q(x_t | x_s) = N(a x_s, b² I): a = α_t/α_s, b² = σ_t² - a² σ_s².

    Ho et al. 2020, equation 2, for any two times s < t; for neighbouring levels of DDPM
    b² is β_t.
    """
    a = jnp.exp(process.log_alpha(t) - process.log_alpha(s))
    return a, process.sigma(t) * jnp.sqrt(share_new(process, s, t))


def posterior(process: GaussianProcess, s: Scalar, t: Scalar) -> tuple[Array, Array, Array]:
    """(a, b, c) with q(x_s | x_t, x_0) = N(a x_t + b x_0, c² I), for s < t.

    Ho et al. 2020, equations 6 and 7, for any process: a = α_t σ_s² / (α_s σ_t²),
    b = α_s (1 - SNR(t)/SNR(s)), c² = σ_s² (1 - SNR(t)/SNR(s)).
    """
    new = share_new(process, s, t)
    alpha_s, sigma_s = process.alpha(s), process.sigma(s)
    a = process.alpha(t) / alpha_s * (sigma_s / process.sigma(t)) ** 2
    return a, alpha_s * new, sigma_s * jnp.sqrt(new)


def sample_prior(key: Key, process: GaussianProcess, shape: tuple[int, ...]) -> Array:
    """One draw from N(0, σ(1)² I), the law of x_1 up to what is left of the data."""
    return process.sigma(1.0) * jax.random.normal(key, shape)


def _require_increasing(low_name, low, high_name, high):
    if not 0 < low < high:
        raise UserError(
            f"expected 0 < {low_name} < {high_name}, got {low_name} = {low} and "
            f"{high_name} = {high}"
        )


def _require_levels(levels):
    if levels < 2:
        raise UserError(f"levels must be at least 2, got {levels}")
