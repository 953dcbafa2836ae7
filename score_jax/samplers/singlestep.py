"""DPM-Solver-2 and -3: exponential Runge-Kutta methods in the log-SNR.

Lu et al. 2022 (arXiv 2206.00927), sections 3.2 and B.

λ = log α/σ, h = λ_s - λ_t; the nodes inside a step stand at λ_t + r h. Noise prediction.
"""

import numpy as np

from score_jax.processes import GaussianProcess
from score_jax.samplers.base import Sampler, make_times
from score_jax.samplers.exponential import curves, phi
from score_jax.times import on_host


def dpm_solver_2(
    process: GaussianProcess,
    *,
    steps: int = 25,
    grid: str = "logsnr",
    start: float = 1.0,
    end: float = 1e-3,
    denoise: bool = True,
) -> Sampler:
    """Second order, two evaluations a step, r = 1/2. Lu et al. 2022, algorithm 1.

    x_s = α_s/α_t x_t - σ_s (e^h - 1) ε(u, s_1), u the step of order one to the middle s_1.
    """
    t, s, first, finish = make_times(process, grid, steps, end, denoise, start, divides=True)
    here, there, h, (middle,) = _inside(process, t, s, (1 / 2,))
    at = curves(process, middle)

    def step(key, predict, x, t, s, s_1, a_1, b_1, a, b):
        u = a_1 * x + b_1 * predict(x, t).eps
        return a * x + b * predict(u, s_1).eps

    half = (at.alpha / here.alpha, -at.sigma * np.expm1(h / 2))
    full = (there.alpha / here.alpha, -there.sigma * np.expm1(h))
    schedule = (t, s, middle, *half, *full)
    return Sampler(schedule, lambda x: x, step, finish, first, between=(middle,))


def dpm_solver_3(
    process: GaussianProcess,
    *,
    steps: int = 17,
    grid: str = "logsnr",
    start: float = 1.0,
    end: float = 1e-3,
    denoise: bool = True,
) -> Sampler:
    """Third order, three evaluations a step, r = 1/3, 2/3. Lu et al. 2022, algorithm 2.

    x_s = α_s/α_t x_t - σ_s (e^h - 1) ε - σ_s/r_2 ((e^h - 1)/h - 1) (ε(u_2, s_2) - ε),
    u_2 the step of order two to s_2 by ε and ε(u_1, s_1), u_1 that of order one to s_1.
    """
    t, s, first, finish = make_times(process, grid, steps, end, denoise, start, divides=True)
    r_1, r_2 = 1 / 3, 2 / 3
    here, there, h, (s_1, s_2) = _inside(process, t, s, (r_1, r_2))
    one, two = curves(process, s_1), curves(process, s_2)

    def step(key, predict, x, t, s, s_1, s_2, a_1, b_1, a_2, b_2, c_2, a, b, c):
        eps = predict(x, t).eps
        d_1 = predict(a_1 * x + b_1 * eps, s_1).eps - eps
        d_2 = predict(a_2 * x + b_2 * eps + c_2 * d_1, s_2).eps - eps
        return a * x + b * eps + c * d_2

    schedule = (
        *(t, s, s_1, s_2),
        *(one.alpha / here.alpha, -one.sigma * np.expm1(r_1 * h)),
        *(two.alpha / here.alpha, -two.sigma * np.expm1(r_2 * h)),
        -two.sigma * (r_2 / r_1) * r_2 * h * phi(2, r_2 * h),
        *(there.alpha / here.alpha, -there.sigma * np.expm1(h)),
        -there.sigma / r_2 * h * phi(2, h),
    )
    return Sampler(schedule, lambda x: x, step, finish, first, between=(s_1, s_2))


def _inside(process, t, s, fractions):
    """The curves at t and at s, h = λ_s - λ_t, and the times at λ_t + r h."""
    here, there = curves(process, t), curves(process, s)
    h = there.lam - here.lam
    at = lambda r: on_host(process.time_of_logsnr, 2 * (here.lam + r * h))
    return here, there, h, [at(r) for r in fractions]
