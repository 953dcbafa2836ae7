"""The reverse Markov chain (Ho et al. 2020, algorithm 2) and DDIM (Song et al. 2020)."""

import jax.numpy as jnp
import numpy as np

from score_jax.errors import UserError, unknown
from score_jax.processes import GaussianProcess, posterior
from score_jax.samplers.base import Sampler, make_times, of_kernel
from score_jax.times import on_host
from score_jax.variances import VARIANCES, analytic_variance, between, reverse_log_variance


def ancestral(
    process: GaussianProcess,
    *,
    steps: int = 1000,
    grid: str = "uniform",
    start: float = 1.0,
    end: float = 0.0,
    variance: str = "small",
    denoise: bool = True,
) -> Sampler:
    """x_s = a x_t + b x0_θ(x_t) + √v z, with (a, b) of the posterior q(x_s | x_t, x_0).

    Ho et al. 2020 (arXiv 2006.11239), algorithm 2, for any process.

    variance: v is small, large, learned or analytic, see `variances`. An analytic one depends
    on the network and on the data: `calibrate` the sampler with the mean of
    `variances.eps_errors` at its times before it is used, as `sampling.make_draw` does:

        sampler = sampler.calibrate(errors)    # errors [n] at the times sampler.schedule[0]

    steps, grid, start, end, denoise: see `samplers.base.make_times`.
    Raises UserError for an unknown variance, learned without Prediction.variance (when it steps),
    and errors of another shape.
    """
    if variance not in VARIANCES:
        raise unknown("sampler.variance", variance, VARIANCES)
    divides = variance == "analytic"
    times = make_times(process, grid, steps, end, denoise, start, divides=divides)
    t, s = times.t, times.s
    a, b, _ = on_host(lambda t, s: posterior(process, s, t), t, s)

    def log_variance(kind):
        return on_host(lambda t, s: reverse_log_variance(process, s, t, kind), t, s)

    def kernel(predict, x, t, s, a, b, c):
        return a * x + b * predict(x, t).x0, c

    def learned(predict, x, t, s, a, b, log_small, log_large):
        prediction = predict(x, t)
        c = jnp.exp(0.5 * between(prediction.variance, log_small, log_large))
        return a * x + b * prediction.x0, c

    if variance == "learned":
        return of_kernel(times, learned, a, b, log_variance("small"), log_variance("large"))
    if variance != "analytic":
        return of_kernel(times, kernel, a, b, np.exp(0.5 * log_variance(variance)))

    def calibrate(errors):
        if np.shape(errors) != t.shape:
            raise UserError(f"expected errors {list(t.shape)}, got shape {np.shape(errors)}")
        variance = on_host(lambda t, s, e: analytic_variance(process, s, t, e), t, s, errors)
        return of_kernel(times, kernel, a, b, np.sqrt(variance))

    unknown_yet = np.full_like(t, np.nan)
    return of_kernel(times, kernel, a, b, unknown_yet)._replace(calibrate=calibrate)


def ddim(
    process: GaussianProcess,
    *,
    steps: int = 100,
    grid: str = "uniform",
    start: float = 1.0,
    end: float = 0.0,
    eta: float = 0.0,
    denoise: bool = True,
) -> Sampler:
    """x_s = α_s x0 + √(σ_s² - c²) eps + c z, with c = eta times the posterior's deviation.

    eta = 0 is deterministic and of first order: Euler's method on the probability-flow ODE,
    d(x/α) = eps d(σ/α). eta = 1 is `ancestral` with the small variance.
    Song et al. 2020 (DDIM, arXiv 2010.02502), equations 12 and 16, for any process.
    Raises UserError unless 0 <= eta <= 1.
    """
    if not 0.0 <= eta <= 1.0:
        raise UserError(f"sampler.eta must lie in [0, 1], got {eta}")
    times = make_times(process, grid, steps, end, denoise, start)
    t, s = times.t, times.s
    alpha, sigma = on_host(lambda s: (process.alpha(s), process.sigma(s)), s)
    c = eta * on_host(lambda t, s: posterior(process, s, t), t, s)[2]
    kept = np.sqrt(sigma**2 - c**2)

    def kernel(predict, x, t, s, alpha, kept, c):
        prediction = predict(x, t)
        return alpha * prediction.x0 + kept * prediction.eps, c

    if eta > 0.0:
        return of_kernel(times, kernel, alpha, kept, c)

    def step(key, predict, x, *row):
        return kernel(predict, x, *row)[0]

    return Sampler((t, s, alpha, kept, c), lambda x: x, step, times.finish, times.start)
