"""One-step solvers of the probability-flow ODE along the process's own two curves.

The ODE is dx = x0(x, t) dα + ε(x, t) dσ: what the network says, along the curves. No time
appears in it, so warping time changes none of these solvers; what counts is which (α, σ)
they stop at. On VE and EDM it is Karras et al.'s dx/dσ = ε, on `Flow` the straight
dx = (x0 - ε) d(1 - t).
"""

import jax
import numpy as np

from score_jax.errors import UserError
from score_jax.predictions import Prediction
from score_jax.processes import GaussianProcess, transition
from score_jax.samplers.ancestral import ddim
from score_jax.samplers.base import Sampler, make_times
from score_jax.times import on_host
from score_jax.types import Array, Scalar


def euler(
    process: GaussianProcess,
    *,
    steps: int = 50,
    grid: str = "uniform",
    start: float = 1.0,
    end: float = 0.0,
    denoise: bool = True,
) -> Sampler:
    """x_s = x_t + (α_s - α_t) x0 + (σ_s - σ_t) ε: probability-flow Euler, of first order.

    On `Flow` it is the Euler of flow matching, on VE and EDM that of Karras et al. 2022. Since
    x_t = α_t x0 + σ_t ε, it is α_s x0 + σ_s ε: `ddim` with eta = 0, under its other name.
    """
    return ddim(process, steps=steps, grid=grid, start=start, end=end, denoise=denoise)


def heun(
    process: GaussianProcess,
    *,
    steps: int = 18,
    grid: str = "uniform",
    start: float = 1.0,
    end: float = 0.0,
    denoise: bool = True,
) -> Sampler:
    """The trapezoidal rule, its right end foreseen by `euler`: second order, two evaluations.

    x_s = x_t + ½ Σ_(t, s) ((α_s - α_t) x0 + (σ_s - σ_t) ε). Karras et al. 2022 (arXiv
    2206.00364), algorithm 1, on their process; their 18 steps and 35 evaluations are
    process "edm", grid = "uniform", steps = 17, denoise = True.
    """
    t, s, first, finish = make_times(process, grid, steps, end, denoise, start)

    def step(key, predict, x, t, s, d_alpha, d_sigma):
        return _heun_step(predict, x, t, s, d_alpha, d_sigma)

    schedule = (t, s, *_increments(process, t, s))
    return Sampler(schedule, lambda x: x, step, finish, first, between=(s,))


def edm_stochastic(
    process: GaussianProcess,
    *,
    steps: int = 255,
    grid: str = "uniform",
    start: float = 1.0,
    end: float = 0.0,
    churn: float = 40.0,
    s_min: float = 0.05,
    s_max: float = 50.0,
    s_noise: float = 1.003,
    denoise: bool = True,
) -> Sampler:
    """Heun's steps after a little fresh noise: Karras et al. 2022, algorithm 2.

    Where s_min <= σ/α <= s_max, each step first goes back up to (1 + γ) σ/α, with
    γ = min(churn/N, √2 - 1), N counting the denoising step, and noise of s_noise times the right
    deviation, but not beyond σ/α of the first x. The defaults are theirs for ImageNet-64
    (table 5).
    churn = 0 is `heun`, but on `Flow` this one starts where something of the data is left;
    s_noise other than 1 is a bias, meant to repair a network's own.
    Raises UserError unless churn >= 0, 0 <= s_min < s_max and s_noise > 0.
    """
    for name, value, good, expected in (
        ("churn", churn, churn >= 0, "at least 0"),
        ("s_min", s_min, 0 <= s_min < s_max, f"in [0, s_max = {s_max})"),
        ("s_noise", s_noise, s_noise > 0, "positive"),
    ):
        if not good:
            raise UserError(f"sampler.{name} must be {expected}, got {value}")
    t, s, first, finish = make_times(process, grid, steps, end, denoise, start, divides=True)
    ratio = np.exp(-0.5 * on_host(process.logsnr, t))
    largest = np.exp(-0.5 * on_host(process.logsnr, np.array([first]))[0])
    rounds = steps + (denoise and len(t) == steps)  # theirs count the last one, to 0
    gamma = np.where((s_min <= ratio) & (ratio <= s_max), min(churn / rounds, 2**0.5 - 1), 0.0)
    raised = (gamma > 0) & (ratio < largest)
    up = np.minimum(ratio * (1 + gamma), largest)
    t_hat = np.where(raised, on_host(process.time_of_logsnr, -2 * np.log(up)), t)
    a, b = on_host(lambda t, t_hat: transition(process, t, t_hat), t, t_hat)  # (1, 0) if t_hat = t

    def step(key, predict, x, t, s, t_hat, a, b, d_alpha, d_sigma):
        x = x if churn == 0 else a * x + b * jax.random.normal(key, x.shape, x.dtype)
        return _heun_step(predict, x, t_hat, s, d_alpha, d_sigma)

    schedule = (t, s, t_hat, a, s_noise * b, *_increments(process, t_hat, s))
    return Sampler(schedule, lambda x: x, step, finish, first, between=(t_hat, s))


def _increments(process, t, s):
    alpha_t, sigma_t = on_host(lambda t: (process.alpha(t), process.sigma(t)), t)
    alpha_s, sigma_s = on_host(lambda t: (process.alpha(t), process.sigma(t)), s)
    return alpha_s - alpha_t, sigma_s - sigma_t


def _move(prediction: Prediction, d_alpha: Scalar, d_sigma: Scalar) -> Array:
    return d_alpha * prediction.x0 + d_sigma * prediction.eps


def _heun_step(predict, x, t, s, d_alpha, d_sigma):
    here = _move(predict(x, t), d_alpha, d_sigma)
    there = _move(predict(x + here, s), d_alpha, d_sigma)
    return x + 0.5 * (here + there)
