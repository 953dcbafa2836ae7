"""The schedulers of diffusers and our samplers, run alike: for the tests that compare them.

Both draw with the exact network of the same mixture, from the same noise, at the same times.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.densities import three_modes
from score_jax.predictions import clipped, exact
from score_jax.processes import PROCESSES
from score_jax.samplers import SAMPLERS
from score_jax.samplers.base import Run, advance, finish
from score_jax.times import GRIDS

torch = pytest.importorskip("torch")

N = 1000
DENSITY = three_modes()
STARTS = np.random.default_rng(0).normal(size=(32, 2))
ROUNDED = 2e-5  # of x, by tables in float32


@functools.cache
def ladder():
    return PROCESSES["ddpm"](beta_min=1e-4, beta_max=0.02, levels=N)


@functools.cache
def network(view="eps"):
    """(x [B, D], timestep 0 .. N-1) -> what a perfect network of this view says."""
    predict = exact(ladder(), DENSITY)
    one = lambda x, level: getattr(predict(x, (level + 1) / N), view)
    many = jax.jit(jax.vmap(one, (0, None)))
    return lambda x, level: torch.from_numpy(np.array(many(x.numpy(), float(level))))


def keys():
    return jax.random.split(jax.random.key(3), len(STARTS))


def ours(sampler, x=STARTS, process=None, steps=None, clip=False):
    """Where our sampler comes from these starts; or its state after so many steps."""
    process = process or ladder()
    predict = exact(process, DENSITY)
    predict = clipped(predict, process, -1.0, 1.0) if clip else predict

    def one(key, x):
        run = Run(sampler.init(x), jnp.zeros((), jnp.int32))
        if steps is not None:
            return advance(key, sampler, predict, run, 0, steps).state
        run = advance(key, sampler, predict, run, 0, sampler.steps)
        return finish(sampler, predict, run)[0]

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(keys()[: len(x)], x))


@functools.cache
def noise(steps):
    """[steps, B, D]: what our samplers draw."""
    one = lambda i, key: jax.random.normal(jax.random.fold_in(key, i), STARTS.shape[1:])
    every = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(jnp.arange(steps), keys())
    return torch.from_numpy(np.array(every))


def theirs(scheduler, steps, stop=None, noise=None, levels=None, view="eps", **options):
    """Where their scheduler comes from the same starts; levels: to ask at instead of its own."""
    scheduler.set_timesteps(steps)
    x = torch.from_numpy(STARTS.copy())
    if hasattr(scheduler, "init_noise_sigma") and scheduler.init_noise_sigma > 1:
        x = x / float(ladder().alpha((float(scheduler.timesteps[0]) + 1) / N))  # they have α = 1
    for i, t in enumerate(scheduler.timesteps[:stop]):
        given = options if noise is None else options | dict(variance_noise=noise[i])
        y = network(view)(scheduler.scale_model_input(x, t), t if levels is None else levels[i])
        x = scheduler.step(y, t, x, **given).prev_sample
    return x.numpy()


def sampler_at(times, name, process=None, **options):
    """Our sampler of this name with these times."""
    GRIDS["theirs"] = lambda process, n, start, end: times
    ends = dict(steps=len(times) - 1, start=float(times[0]), end=float(times[-1]))
    try:
        return SAMPLERS[name](process or ladder(), grid="theirs", **ends, **options)
    finally:
        del GRIDS["theirs"]


def times_of(scheduler, steps):
    """Their timesteps as times of ours, and clean data."""
    scheduler.set_timesteps(steps)
    return np.append((np.unique(scheduler.timesteps.numpy())[::-1] + 1.0) / N, 0.0)


def apart(a, b):
    return np.max(np.abs(a - b))


def in_float64(scheduler):
    """The scheduler with the tables that it means."""
    alphas2 = torch.cumprod(1 - torch.linspace(1e-4, 0.02, N, dtype=torch.float64), 0)
    scheduler.alphas_cumprod = alphas2
    return scheduler
