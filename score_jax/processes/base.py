"""A process is two curves.

    x_t = α(t) x_0 + σ(t) ε,    ε ~ N(0, I),    t in [0, 1], t = 0 clean, t = 1 noise.

    process = VP()
    x_t = add_noise(process, x_0, eps, t)

α(t) is the signal's scale, σ(t) the noise's standard deviation and
logsnr(t) = log α²/σ², decreasing in t. Drift, diffusion, transition, posterior and prior
are functions *of* a process, written once below; the processes differ in the two curves
and in nothing else. s < t always: s is the earlier, cleaner time.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from score_jax.errors import UserError
from score_jax.types import Array, Example, Key, Scalar, Times


class GaussianProcess:
    """The two curves. A subclass gives `log_alpha` and `sigma`, both differentiable in t, and
    `time_of_logsnr`.

    All are of one time, or of an array of them, each by itself.
    """

    @property
    def levels(self) -> int | None:
        """The number of noise levels of a tabulated process."""
        return None

    def log_alpha(self, t: Times) -> Float[Array, "*t"]:
        """log α(t), differentiable in t: what a process has to say."""
        raise NotImplementedError

    def sigma(self, t: Times) -> Float[Array, "*t"]:
        """σ(t) > 0 for t > 0, differentiable in t: the other curve."""
        raise NotImplementedError

    def sigma2(self, t: Times) -> Float[Array, "*t"]:
        """σ(t)², differentiable also where σ = 0."""
        return self.sigma(t) ** 2

    def alpha(self, t: Times) -> Float[Array, "*t"]:
        """α(t), the signal that is left."""
        return jnp.exp(self.log_alpha(t))

    def logsnr(self, t: Times) -> Float[Array, "*t"]:
        """log α(t)²/σ(t)²; +∞ where σ = 0, -∞ where α = 0."""
        return 2.0 * (self.log_alpha(t) - jnp.log(self.sigma(t)))

    def time_of_logsnr(self, logsnr: Times) -> Float[Array, "*t"]:
        """The t with logsnr(t) = logsnr: the inverse of `logsnr`, between its ends."""
        raise NotImplementedError


def drift(process: GaussianProcess, x: Example | float, t: Scalar) -> Float[Array, "*shape"]:
    """f(x, t) = x d log α/dt of the forward SDE dx = f dt + g dw. Units of x per unit of t.

    Song et al. 2021 (arXiv 2011.13456), equation 5; f and g are those whose x_t is α x_0 + σ ε.
    """
    return x * jax.grad(process.log_alpha)(jnp.asarray(t, float))


def diffusion2(process: GaussianProcess, t: Scalar) -> Float[Array, ""]:
    """g(t)² = dσ²/dt - 2 σ² d log α/dt of the forward SDE dx = f dt + g dw. x² per unit of t."""
    t = jnp.asarray(t, float)
    growth = jax.grad(process.sigma2)(t)
    return growth - 2.0 * process.sigma2(t) * jax.grad(process.log_alpha)(t)


def add_noise(
    process: GaussianProcess, x_0: Example, eps: Example, t: Scalar
) -> Float[Array, "*shape"]:
    """x_t = α(t) x_0 + σ(t) ε. Raises UserError for x_0 and ε of unequal shapes."""
    if jnp.shape(x_0) != jnp.shape(eps):
        raise UserError(f"expected eps of the shape of x_0, {jnp.shape(x_0)}, got {jnp.shape(eps)}")
    return process.alpha(t) * x_0 + process.sigma(t) * eps


def share_new(process: GaussianProcess, s: Times, t: Times) -> Float[Array, "*t"]:
    """1 - SNR(t)/SNR(s) in [0, 1], without cancellation: the share of noise at t new since s."""
    return -jnp.expm1(process.logsnr(t) - process.logsnr(s))


def transition(
    process: GaussianProcess, s: Times, t: Times
) -> tuple[Float[Array, "*t"], Float[Array, "*t"]]:
    """(a, b) with q(x_t | x_s) = N(a x_s, b² I): a = α_t/α_s, b² = σ_t² - a² σ_s².

    Ho et al. 2020, equation 2, for any two times s < t; for neighbouring levels of DDPM
    b² is β_t.
    """
    a = jnp.exp(process.log_alpha(t) - process.log_alpha(s))
    return a, process.sigma(t) * jnp.sqrt(share_new(process, s, t))


def posterior(
    process: GaussianProcess, s: Times, t: Times
) -> tuple[Float[Array, "*t"], Float[Array, "*t"], Float[Array, "*t"]]:
    """(a, b, c) with q(x_s | x_t, x_0) = N(a x_t + b x_0, c² I), for s < t.

    Ho et al. 2020, equations 6 and 7, for any process: a = α_t σ_s² / (α_s σ_t²),
    b = α_s (1 - SNR(t)/SNR(s)), c² = σ_s² (1 - SNR(t)/SNR(s)).
    """
    new = share_new(process, s, t)
    alpha_s, sigma_s = process.alpha(s), process.sigma(s)
    a = process.alpha(t) / alpha_s * (sigma_s / process.sigma(t)) ** 2
    return a, alpha_s * new, sigma_s * jnp.sqrt(new)


def sample_prior(
    key: Key, process: GaussianProcess, shape: tuple[int, ...], t: Scalar = 1.0
) -> Float[Array, "..."]:
    """One draw [shape] from N(0, σ(t)² I), the law of x_t but for what is left of the data."""
    return process.sigma(t) * jax.random.normal(key, shape)


START_LOGSNR = -14.0


def start_time(process: GaussianProcess) -> float:
    """1, or, where α(1) = 0, the time at which logsnr = -14 (α = 0.0009 on `Flow`).

    For what divides by α: solvers in the log-SNR, the reverse SDE, the likelihood. Less of
    the data is left there than at the end of VP (α = 0.0066).
    """
    with jax.ensure_compile_time_eval():
        if float(process.alpha(1.0)) > 0.0:
            return 1.0
        return float(process.time_of_logsnr(START_LOGSNR))


def require_increasing(low_name: str, low: float, high_name: str, high: float) -> None:
    """Raises UserError unless 0 < low < high < ∞."""
    if not (0 < low < high and np.isfinite(high)):
        raise UserError(
            f"expected 0 < {low_name} < {high_name}, got {low_name} = {low} and "
            f"{high_name} = {high}"
        )
