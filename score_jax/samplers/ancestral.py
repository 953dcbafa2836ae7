"""Ancestral sampling of the reverse Markov chain (Ho et al. 2020, algorithm 2)."""

import jax
import numpy as np

from score_jax.errors import unknown
from score_jax.processes import GaussianProcess, posterior, transition
from score_jax.samplers.base import Sampler, make_grid, on_host

VARIANCES = ("small", "large")


def ancestral(
    process: GaussianProcess,
    *,
    steps: int = 1000,
    grid: str = "uniform",
    end: float = 0.0,
    variance: str = "small",
) -> Sampler:
    """x_s = a x_t + b x0_θ(x_t) + c z, with (a, b) of the posterior q(x_s | x_t, x_0).

    variance "small": c² of that posterior (optimal for a point mass of data); "large":
    the forward variance b² of q(x_t | x_s) (optimal for N(0, I) data); Ho et al. 2020,
    section 3.2. The step to s = 0 adds no noise (where σ(0) = 0
    it returns x0_θ: it is the denoising step).

    steps: network evaluations. grid: "ladder" (a trained ladder's levels) or "uniform".
    end: the last time, 0 for clean.
    """
    if variance not in VARIANCES:
        raise unknown("sampler.variance", variance, VARIANCES)
    times = make_grid(process, grid, steps, end)
    t, s = times[:-1], times[1:]
    a, b, small = on_host(lambda t, s: posterior(process, s, t), t, s)
    _, large = on_host(lambda t, s: transition(process, s, t), t, s)
    c = np.where(s == 0.0, 0.0, small if variance == "small" else large)

    def step(key, predict, x, t, s, a, b, c):
        return a * x + b * predict(x, t).x0 + c * jax.random.normal(key, x.shape, x.dtype)

    return Sampler((t, s, a, b, c), lambda x: x, step, lambda predict, x: x)
