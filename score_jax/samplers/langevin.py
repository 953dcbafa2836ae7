"""Langevin dynamics, at one noise level and annealed over many (Song & Ermon 2019).

One convention, the papers':   x ← x + ε/2 ∇ log p(x) + √ε z.
The authors' image code writes x ← x + ε ∇ log p(x) + √(2 ε) z: its ε is half of ours.
Their toy code follows the paper.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from score_jax.errors import UserError
from score_jax.limits import check_at_most
from score_jax.processes import GaussianProcess
from score_jax.samplers.base import MOST_STEPS, Sampler, make_finish, make_grid, where_data_is_left
from score_jax.times import on_host
from score_jax.types import Array, Key, Scalar


def langevin_step(
    key: Key, score: Float[Array, "*shape"], x: Float[Array, "*shape"], step_size: Scalar
) -> Float[Array, "*shape"]:
    """x + ε/2 s + √ε z, with s = ∇ log p(x) and ε = step_size in units of x²."""
    return x + 0.5 * step_size * score + jnp.sqrt(step_size) * langevin_noise(key, x)


def langevin_noise(key: Key, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The z ~ N(0, I) of a Langevin step with this key."""
    return jax.random.normal(key, x.shape, x.dtype)


def langevin(
    process: GaussianProcess,
    *,
    steps: int = 1000,
    step_size: float = 1e-4,
    end: float,
    denoise: bool = False,
) -> Sampler:
    """Langevin dynamics at the one time `end`, from the prior. Song & Ermon 2019, equation 4.

    x ← x + ε/2 score + √ε z, ε = step_size in units of x².
    Biased by the step size and slow to mix between modes: that is its lesson.
    steps: network evaluations. denoise: end with x ← E[x_0 | x], one evaluation more.
    Raises UserError as `times_at`: where σ(end) = 0 there is no score.
    """
    at = times_at(process, steps, end, step_size)

    def step(key, predict, x, t, s):
        return langevin_step(key, predict(x, t).score, x, step_size)

    return Sampler((at, at), lambda x: x, step, make_finish(end, denoise))


def times_at(
    process: GaussianProcess, steps: int, end: float, step_size: float
) -> Float[np.ndarray, " {steps}"]:
    """`steps` times `end`: the times of a chain at one noise level.

    Raises UserError for steps < 1 or beyond MOST_STEPS, an end outside [0, 1) or without noise,
    and a step size that is not positive.
    """
    require_positive(step_size)
    at = np.full(len(make_grid(process, "uniform", steps, 1.0, end)) - 1, end)
    if not on_host(process.sigma, at[:1])[0] > 0:
        raise UserError(
            f"sampler.end = {end}: there is no noise at this time, and so no score; "
            "use a time above 0"
        )
    return at


def annealed_langevin(
    process: GaussianProcess,
    *,
    levels: int,
    steps_per_level: int = 100,
    step_size: float = 2e-5,
    grid: str = "ladder",
    start: float = 1.0,
    end: float = 0.0,
    denoise: bool = True,
) -> Sampler:
    """Langevin dynamics at noise level after noise level. Song & Ermon 2019, algorithm 1.

    At level i: T = steps_per_level steps with ε_i = step_size σ_i²/σ_L², where σ_L is the
    smallest level, so that the signal-to-noise ratio ε_i |s| / (2 √ε_i) ~ const. Between
    levels x is only rescaled by α_s/α_t (1 for NCSN).

    Biased for finite T: a coordinate of standard deviation s stops mixing at the level
    where T ε_i falls below s², and keeps that level's noise in its spread.

    levels: noise levels on the grid between start and end, end itself not among them. Where
        α(start) = 0 (flow) the first is `processes.start_time`: it is divided by.
    step_size: ε at σ_L, in units of x²; half of it is the step of the authors' image code.
    denoise: end with x ← E[x_0 | x] = x + σ_L² s(x, σ_L) (Jolicoeur-Martineau et al. 2020).
    Network evaluations: levels T, and one more with denoise.
    Raises UserError unless levels, T >= 1 and step_size > 0, and as `samplers.base.make_grid`.
    """
    require_positive(step_size)
    for name, value in (("levels", levels), ("steps_per_level", steps_per_level)):
        if value < 1:
            raise UserError(f"sampler.{name} must be at least 1, got {value}")
    check_at_most("sampler.levels * sampler.steps_per_level", levels * steps_per_level, MOST_STEPS)
    t = make_grid(process, grid, levels, where_data_is_left(process, start), end)[:-1]
    sigma, alpha_t = on_host(lambda t: (process.sigma(t), process.alpha(t)), t)
    alpha_s = np.append(alpha_t[1:], alpha_t[-1])  # the last level is where x stays
    rescale = np.ones((levels, steps_per_level))
    rescale[:, -1] = alpha_s / alpha_t
    every = lambda values: np.repeat(values, steps_per_level)
    step_sizes = every(step_size * (sigma / sigma[-1]) ** 2)
    s = np.append(every(t)[1:], t[-1])

    def step(key, predict, x, t, s, step_size, rescale):
        return rescale * langevin_step(key, predict(x, t).score, x, step_size)

    schedule = (every(t), s, step_sizes, rescale.ravel())
    return Sampler(schedule, lambda x: x, step, make_finish(t[-1], denoise), t[0])


def require_positive(step_size: float) -> None:
    """Raises UserError unless the step size is positive."""
    if not step_size > 0:
        raise UserError(f"sampler.step_size must be positive, got {step_size}")
