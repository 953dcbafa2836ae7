"""The variance of a reverse step p(x_s | x_t) = N(a x_t + b x0_θ(x_t), v I), s < t.

With q(x_t | x_s) = N(a' x_s, β I) (`transition`), q(x_s | x_t, x_0) = N(a x_t + b x_0, c² I)
(`posterior`) and ε_θ(x_t) the network's noise,

    small       v = c²: optimal for data that are a point
    large       v = β: optimal, on α² + σ² = 1, for data from N(0, I)
    learned     log v between the two, in shares that the network gives
    analytic    v = c² + b² (σ_t²/α_t²) E|ε - ε_θ|²/D: optimal among all numbers

Small and large: Ho et al. 2020 (arXiv 2006.11239), section 3.2. Learned: Nichol & Dhariwal 2021
(arXiv 2102.09672), equation 15. Analytic: Bao et al. 2022 (arXiv 2201.06503), theorem 1, since
x_0 - x0_θ = -(σ_t/α_t)(ε - ε_θ), and the best v is the mean squared distance of x_s ~ q from
the step's mean, per dimension: what the posterior scatters, c², and what x0_θ errs by.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from score_jax.errors import UserError, unknown
from score_jax.predictions import PredictFn
from score_jax.processes import GaussianProcess, add_noise, posterior, transition
from score_jax.types import Array, Example, Given, Key, Scalar, Times

VARIANCES = ("small", "large", "learned", "analytic")


def small_log_variance(process: GaussianProcess, s: Times, t: Times) -> Float[Array, "*t"]:
    """log c² of q(x_s | x_t, x_0). The first step of a ladder, to s = 0, has that of the second.

    c = 0 at s = 0: the variance is clipped there as in Ho et al. 2020's code and Nichol &
    Dhariwal 2021's. Without a ladder it is -∞ where σ(s) = 0.
    """
    if process.levels is not None:
        first = jnp.asarray(s) <= 0.0
        s, t = jnp.where(first, t, s), jnp.where(first, t + 1.0 / process.levels, t)
    return 2.0 * jnp.log(posterior(process, s, t)[2])


def large_log_variance(process: GaussianProcess, s: Times, t: Times) -> Float[Array, "*t"]:
    """log β of q(x_t | x_s), β = σ_t² - (α_t/α_s)² σ_s²."""
    return 2.0 * jnp.log(transition(process, s, t)[1])


def between(share: Example | None, log_small: Scalar, log_large: Scalar) -> Float[Array, "*shape"]:
    """share log large + (1 - share) log small. Nichol & Dhariwal 2021, equation 15.

    share: Prediction.variance; with None, of a network that does not know it, raises UserError.
    """
    if share is None:
        raise UserError(
            "variance = 'learned' needs a network that tells it (Prediction.variance): "
            "parameterization.learned_variance = True"
        )
    return jnp.asarray(share) * log_large + (1.0 - share) * log_small


def analytic_variance(
    process: GaussianProcess, s: Times, t: Times, error: Times
) -> Float[Array, "*t"]:
    """v = c² + b² (σ_t²/α_t²) min(E|ε - ε_θ|²/D, 1), for α_t > 0.

    error: the mean over x_t of `eps_errors` at t. So c² <= v <= β/a'², the bounds of Bao et al.
    2022, theorem 2, for any data: the lower of data known from x_t, the upper of data about
    which nothing is known.
    """
    _, b, c = posterior(process, s, t)
    return c**2 + b**2 * jnp.exp(-process.logsnr(t)) * jnp.minimum(error, 1.0)


def reverse_log_variance(
    process: GaussianProcess,
    s: Scalar,
    t: Scalar,
    kind: str,
    share: Example | None = None,
    error: Scalar | None = None,
) -> Float[Array, ""] | Float[Array, "*shape"]:
    """log v of the step from t to s: a scalar, or, learned, an array of x's shape.

    kind: one of VARIANCES. share: Prediction.variance, for "learned". error: the mean of
    `eps_errors` at t, for "analytic". No variance is below small's: see `small_log_variance`.
    Raises UserError for an unknown kind, and where share or error are needed and None.
    """
    if kind not in VARIANCES:
        raise unknown("variance", kind, VARIANCES)
    small = small_log_variance(process, s, t)
    if kind == "small":
        return small
    if kind == "large":
        return large_log_variance(process, s, t)
    if kind == "learned":
        return between(share, small, large_log_variance(process, s, t))
    if error is None:
        raise UserError("variance = 'analytic' needs the mean of `eps_errors` at each time")
    return jnp.maximum(small, jnp.log(analytic_variance(process, s, t, error)))


def eps_errors(
    key: Key, process: GaussianProcess, predict: PredictFn, x_0: Example, times: Float[Given, " n"]
) -> Float[Array, " n"]:
    """|ε - ε_θ(x_t, t)|²/D at each of these times [n], for one example and a fresh ε at each.

    Its mean over examples is what `analytic_variance` needs. At the exact ε_θ it is
    1 - E|ε_θ|²/D, which Bao et al. 2022 estimate instead (equation 8); this is the right number
    for any network (Bao et al. 2022b, arXiv 2206.07309) and, being no difference, it is as
    precise where x_t is nearly all noise.
    """

    def at(i):
        eps = jax.random.normal(jax.random.fold_in(key, i), x_0.shape, x_0.dtype)
        t = times[i]
        return jnp.mean((eps - predict(add_noise(process, x_0, eps, t), t).eps) ** 2)

    times = jnp.asarray(times, jnp.result_type(float))
    return jax.lax.map(at, jnp.arange(len(times)))
