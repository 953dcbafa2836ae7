"""What a sampler is, and the one loop that runs it.

    sampler = ancestral(process, steps=1000)
    x = sample(key, process, sampler, predict, shape)

A sampler is a value: its schedule is a tuple of arrays made on the host in float64, of
which each step is given one row (t, s, coefficients...), t the time now and s < t the
time to go to. Its functions are given `predict` itself, not a value of it, and call it
as often as they need. A draw depends on its own key alone, so neither the batch size nor
batch mates nor devices nor the chunks that the loop is cut into change it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.errors import UserError, unknown
from score_jax.predictions import PredictFn
from score_jax.processes import GaussianProcess, sample_prior
from score_jax.times import GRIDS
from score_jax.types import Array, Key

State = Any  # a pytree; for a sampler without memory, x itself


class Sampler(NamedTuple):
    """init and finish frame n steps, n the length of the schedule's arrays.

    schedule: a tuple (t, s, ...) of arrays with leading dimension n.
    init: x_1 -> state.
    step: (key, predict, state, t, s, ...) -> state at s.
    finish: (predict, state) -> x.
    """

    schedule: tuple[np.ndarray, ...]
    init: Callable[[Array], State]
    step: Callable[..., State]
    finish: Callable[[PredictFn, State], Array]

    @property
    def steps(self) -> int:
        return len(self.schedule[0])


def advance(
    key: Key, sampler: Sampler, predict: PredictFn, state: State, start: int, stop: int
) -> State:
    """Runs steps start .. stop - 1 inside the program; a run cut into pieces is the same run."""
    dtype = jnp.result_type(float)
    schedule = tuple(jnp.asarray(c, dtype) for c in sampler.schedule)

    def body(i, state):
        row = (c[i] for c in schedule)
        return sampler.step(jax.random.fold_in(key, i), predict, state, *row)

    return jax.lax.fori_loop(start, stop, body, state)


def start(key: Key, process: GaussianProcess, sampler: Sampler, shape: tuple[int, ...]) -> State:
    """The state before the first step, at a draw from the process's prior."""
    return sampler.init(sample_prior(jax.random.fold_in(key, sampler.steps), process, shape))


def sample(
    key: Key,
    process: GaussianProcess,
    sampler: Sampler,
    predict: PredictFn,
    shape: tuple[int, ...],
) -> Array:
    """One draw, from the prior to the end: start, all steps, finish."""
    state = start(key, process, sampler, shape)
    return sampler.finish(predict, advance(key, sampler, predict, state, 0, sampler.steps))


def on_host(fn: Callable[..., Any], *times: np.ndarray) -> Any:
    """fn of scalar times, at arrays of them, in float64 on the host: how coefficients are made."""
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        out = jax.vmap(fn)(*(jnp.asarray(t, jnp.float64) for t in times))
        return jax.tree.map(np.asarray, out)


def make_grid(process: GaussianProcess, grid: str, steps: int, end: float) -> np.ndarray:
    """The n + 1 decreasing times of a sampler. Raises UserError for options that cannot be."""
    if grid not in GRIDS:
        raise unknown("sampler.grid", grid, GRIDS)
    if steps < 1:
        raise UserError(f"sampler.steps must be at least 1, got {steps}")
    if not 0.0 <= end < 1.0:
        raise UserError(f"sampler.end must lie in [0, 1), got {end}")
    times = GRIDS[grid](process, steps, end)
    if not np.all(np.diff(times) < 0):
        raise UserError(
            f"sampler.end = {end} must come before the grid's last time {times[-2]:.6g}"
        )
    return times
