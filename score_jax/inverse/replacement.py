"""Replacing what is observed at every noise level, with and without RePaint's resampling."""

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.errors import UserError
from score_jax.inverse.observation import Observation, pseudo_inverse, require_memoryless
from score_jax.limits import check_at_most
from score_jax.processes import GaussianProcess, transition
from score_jax.samplers.base import MOST_STEPS, Sampler
from score_jax.times import on_host
from score_jax.types import Given


def replacement(sampler: Sampler, process: GaussianProcess, observation: Observation) -> Sampler:
    """After each step t -> s what is observed of x is what y says of x_s:

        x ← x + A⁺ (α_s y + c A z - A x),    z ~ N(0, I),    c² = σ_s² - α_s² noise²/λ,

    A Aᵀ = λ I, so that A x_s ~ N(α_s A x_0, σ_s² A Aᵀ) as under the process: the noise of y is
    part of it. Where c² < 0, y is noisier than x_s and nothing is replaced. Without noise A may
    be any: c A z has the right covariance whatever A Aᵀ is. After `finish`, without noise, what
    is observed is y itself.

    Song & Ermon 2019 (arXiv 1907.05600), algorithm 2; Song et al. 2021 (arXiv 2011.13456),
    appendix I.2.

    Biased: the noise put in at s is not that of t, so what is not observed hears of y too late.
    For normal data of deviations 1 and 0.3 along axes turned by 0.6, the first coordinate known
    exactly, the mean of the other is -0.48 where -0.67 is right and 0.03 all that is known
    without y, its deviation 1.11 times the right one; with 50 steps or 1000 (-0.46, -0.48). On a
    normal of which 2 mixed coordinates of 4 are seen the mean is off by 0.27 posterior deviations;
    on three modes of which one coordinate is seen by 0.63, with 0.41 of the modes' weights wrong
    (`benchmarks.conditional`).

    sampler: one whose state is x alone, and better a stochastic one (there ddim ends at -0.34).
    Raises UserError for a sampler with a memory or one to be calibrated, and with noise > 0 where
    A Aᵀ is no multiple of I (blur).
    """
    require_memoryless(sampler, "replacement")
    noise2 = observation.noise**2
    if noise2 > 0.0:
        noise2 /= _scale(observation)
    with jax.ensure_compile_time_eval():  # y may be traced, an example's own
        curves = lambda s: (process.alpha(s), process.sigma(s))
        alpha, sigma = on_host(curves, sampler.schedule[1])
    c2 = sigma**2 - alpha**2 * noise2
    replaced = (c2 >= 0.0).astype(np.float64)

    def step(key, predict, x, t, s, *row):
        *own, alpha, c, replaced = row
        ours, fresh = jax.random.split(key)
        x = sampler.step(ours, predict, x, t, s, *own)
        z = jax.random.normal(fresh, x.shape, x.dtype)
        wrong = alpha * observation.y + observation.forward(c * z - x)
        return x + replaced * pseudo_inverse(observation, wrong)

    def finish(predict, x):
        x = sampler.finish(predict, x)
        if observation.noise > 0.0:
            return x
        return x + pseudo_inverse(observation, observation.residual(x))

    schedule = (*sampler.schedule, alpha, np.sqrt(np.maximum(c2, 0.0)), replaced)
    return sampler._replace(schedule=schedule, step=step, finish=finish, kernel=None)


def repaint(
    sampler: Sampler,
    process: GaussianProcess,
    observation: Observation,
    *,
    repeats: int = 10,
    jump: int = 10,
) -> Sampler:
    """`replacement`, each segment of `jump` steps made `repeats` times.

    After all but the last time x is noised again from the segment's end s to its start t, x ← a x
    + b z, q(x_t | x_s) = N(a x_s, b² I): so what is observed and what is not come to agree.
    Lugmayr et al. 2022 (arXiv 2201.09865), algorithm 1, with their jumps; the schedule that they
    released makes the first segment, of almost pure noise, once. repeats = 1 is `replacement`.
    Segments in which y is noisier than x and replaces nothing are made once: made again
    without y they would forget it.

    Its bias is that of `replacement`, less the more repeats: in the example there 2, 5, 10 and 20
    of them (200 steps, jump 10) leave 1/2, 0.18, 0.09 and 0.04 of it.

    In `benchmarks.conditional`, 400 steps, its 10 repeats leave 0.11 of 0.27 on the normal, and on
    the three modes 0.49 of 0.63 and 0.32 of 0.41.

    Network evaluations: `repeats` times the sampler's, where y is heard. Raises UserError unless
    repeats and jump are at least 1, for what `replacement` refuses, and for a sampler whose steps
    do not each lead to an earlier time (langevin).
    """
    replaced = replacement(sampler, process, observation)
    for name, value in (("repeats", repeats), ("jump", jump)):
        if value < 1:
            raise UserError(f"repaint.{name} must be at least 1, got {value}")
    if repeats == 1:
        return replaced
    n, (t, s) = replaced.steps, replaced.schedule[:2]
    check_at_most("the sampler's number of steps times repaint.repeats", n * repeats, MOST_STEPS)
    if not np.all(s < t):
        raise UserError(
            "repaint needs a sampler whose every step leads to an earlier time; langevin and "
            "annealed_langevin stay at a noise level for many"
        )
    segments = [np.arange(first, min(first + jump, n)) for first in range(0, n, jump)]
    hears = replaced.schedule[-1] > 0.0  # whether a step is told of y
    times = [repeats if hears[segment].all() else 1 for segment in segments]
    order = np.concatenate([np.tile(segment, k) for segment, k in zip(segments, times)])
    back_to = np.concatenate([_back_to(t, segment, k) for segment, k in zip(segments, times)])
    up = np.isfinite(back_to)
    a, b = np.ones(len(order)), np.zeros(len(order))
    with jax.ensure_compile_time_eval():
        noised = on_host(lambda s, t: transition(process, s, t), s[order][up], back_to[up])
    a[up], b[up] = noised

    def step(key, predict, x, t, s, *row):
        *own, a, b = row
        ours, fresh = jax.random.split(key)
        x = replaced.step(ours, predict, x, t, s, *own)
        return a * x + b * jax.random.normal(fresh, x.shape, x.dtype)

    schedule = (*(column[order] for column in replaced.schedule), a, b)
    return replaced._replace(schedule=schedule, step=step)


def _back_to(t: Given, segment: np.ndarray, repeats: int) -> np.ndarray:
    """For each step of a repeated segment the time that x is noised to after it; NaN for none."""
    back_to = np.full((repeats, len(segment)), np.nan)
    back_to[:-1, -1] = t[segment[0]]
    return back_to.ravel()


def _scale(observation: Observation) -> float:
    """λ with A Aᵀ = λ I; raises UserError where there is none."""
    with jax.ensure_compile_time_eval(), jax.default_matmul_precision("highest"):
        shape, dtype = observation.y.shape, observation.y.dtype
        v = jax.random.normal(jax.random.key(0), shape, dtype)
        w = observation.forward(observation.adjoint(v))
        scale = float(jnp.vdot(v, w) / jnp.maximum(jnp.vdot(v, v), 1e-30))
        apart = float(jnp.linalg.norm((w - scale * v).ravel()))
        size = float(jnp.linalg.norm(w.ravel()))
    if not apart <= 1e-3 * size:
        raise UserError(
            "replacement of a noisy observation needs an operator with A Aᵀ = λ I (mask, gray, "
            f"downsample, random_projection), and A Aᵀ of this one is {apart / size:.2g} of its "
            "size away from that; use pigdm, mmps or dps, or noise = 0"
        )
    return scale if scale > 0.0 else 1.0  # where nothing is observed any will do
