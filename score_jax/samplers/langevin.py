"""Langevin dynamics, at one noise level and annealed over many (Song & Ermon 2019).

One convention, the papers':   x ← x + ε/2 ∇ log p(x) + √ε z.
The authors' image code writes x ← x + ε ∇ log p(x) + √(2 ε) z: its ε is half of ours.
Their toy code follows the paper.
"""

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.errors import UserError
from score_jax.processes import GaussianProcess
from score_jax.samplers.base import Sampler, make_grid, on_host
from score_jax.types import Array, Key, ScoreFn


def langevin_step(key: Key, score: Array, x: Array, step_size: Array) -> Array:
    """x + ε/2 s + √ε z, with s = ∇ log p(x) and ε = step_size in units of x²."""
    z = jax.random.normal(key, x.shape, x.dtype)
    return x + 0.5 * step_size * score + jnp.sqrt(step_size) * z


def run_langevin(key: Key, score: ScoreFn, x: Array, t, step_size: Array, steps: int) -> Array:
    """`steps` Langevin steps at time t."""
    return jax.lax.fori_loop(
        0,
        steps,
        lambda i, x: langevin_step(jax.random.fold_in(key, i), score(x, t), x, step_size),
        x,
    )


def langevin(
    process: GaussianProcess,
    *,
    steps: int = 1000,
    step_size: float = 1e-4,
    end: float,
    denoise: bool = False,
) -> Sampler:
    """Langevin dynamics at the one time `end`, from the prior. Song & Ermon 2019, equation 4.

    Biased by the step size and slow to mix between modes: that is its lesson.
    steps: network evaluations. denoise: end with x ← E[x_0 | x], one evaluation more.
    Raises UserError where σ(end) = 0: there is no score without noise.
    """
    _require_positive(step_size)
    at = np.full(make_grid(process, "uniform", steps, end).size - 1, end)
    if not on_host(process.sigma, at)[0] > 0:
        raise UserError(
            f"sampler.end = {end}: there is no noise at this time, and so no score; "
            "use a time above 0"
        )

    def step(key, predict, x, t, s):
        return langevin_step(key, predict(x, t).score, x, step_size)

    return Sampler((at, at), lambda x: x, step, _finish(end, denoise))


def annealed_langevin(
    process: GaussianProcess,
    *,
    levels: int,
    steps_per_level: int = 100,
    step_size: float = 2e-5,
    grid: str = "ladder",
    denoise: bool = True,
) -> Sampler:
    """Langevin dynamics at noise level after noise level. Song & Ermon 2019, algorithm 1.

    At level i: T = steps_per_level steps with ε_i = step_size σ_i²/σ_L², where σ_L is the
    smallest level, so that the signal-to-noise ratio ε_i |s| / (2 √ε_i) ~ const. Between
    levels x is only rescaled by α_s/α_t (1 for NCSN).

    Biased for finite T: a coordinate of standard deviation s stops mixing at the level
    where T ε_i falls below s², and keeps that level's noise in its spread.

    step_size: ε at σ_L, in units of x²; half of it is the step of the authors' image code.
    denoise: end with x ← E[x_0 | x] = x + σ_L² s(x, σ_L) (Jolicoeur-Martineau et al. 2020).
    Network evaluations: levels T, and one more with denoise.
    """
    _require_positive(step_size)
    for name, value in (("levels", levels), ("steps_per_level", steps_per_level)):
        if value < 1:
            raise UserError(f"sampler.{name} must be at least 1, got {value}")
    times = make_grid(process, grid, levels, 0.0)
    t, s = times[:-1], times[1:]
    sigma, alpha_t = on_host(lambda t: (process.sigma(t), process.alpha(t)), t)
    alpha_s = np.append(alpha_t[1:], alpha_t[-1])  # the last level is where x stays
    step_sizes = step_size * (sigma / sigma[-1]) ** 2

    def step(key, predict, x, t, s, step_size, rescale):
        score = lambda x, t: predict(x, t).score
        return rescale * run_langevin(key, score, x, t, step_size, steps_per_level)

    schedule = (t, s, step_sizes, alpha_s / alpha_t)
    return Sampler(schedule, lambda x: x, step, _finish(t[-1], denoise))


def _finish(t: float, denoise: bool):
    if denoise:
        return lambda predict, x: predict(x, t).x0
    return lambda predict, x: x


def _require_positive(step_size):
    if not step_size > 0:
        raise UserError(f"sampler.step_size must be positive, got {step_size}")
