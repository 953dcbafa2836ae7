"""What a sampler is, and the one loop that runs it.

    sampler = ancestral(process, steps=1000)
    x = sample(key, process, sampler, predict, shape)

A sampler is a value: its schedule is a tuple of arrays made on the host in float64, of
which each step is given one row (t, s, coefficients...), t the time now and s < t the
time to go to. Its functions are given `predict` itself, not a value of it, and call it
as often as they need; the calls are counted where they are made. A draw depends on its own
key alone, so neither the batch size nor batch mates nor devices nor the chunks that the loop
is cut into change it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from score_jax.errors import UserError, unknown
from score_jax.limits import check_at_most
from score_jax.predictions import PredictFn
from score_jax.processes import GaussianProcess, sample_prior, start_time
from score_jax.threefry import unrolled
from score_jax.times import GRIDS, on_host
from score_jax.types import Array, Given, Integer, Key

MOST_STEPS = 1_000_000  # of a sampler's schedule

State = Any  # a pytree; for a sampler without memory, x itself
# (predict, x, t, s, ...) -> (mean, deviation)
Kernel = Callable[..., tuple[Float[Array, "*shape"], Float[Array, "..."]]]


class Sampler(NamedTuple):
    """init and finish frame n steps, n the length of the schedule's arrays.

    schedule: a tuple (t, s, ...) of arrays with leading dimension n.
    init: x at the start -> state.
    step: (key, predict, state, t, s, ...) -> state at s. It calls predict outside loops of
        its own, or else gives `evaluations`.
    finish: (predict, state) -> x.
    start: the time of the first x.
    evaluations: state -> the calls of predict so far, of a sampler that has a loop of its own.
    calibrate: of a sampler whose schedule depends on the network: (the mean of
        `variances.eps_errors` at the times of its schedule [n]) -> the sampler to be used.
    kernel: of a sampler each of whose steps is one draw from a normal, see `of_kernel`.
    first: (key, shape) -> x at the start; None for a draw from the process's prior.
    between: the times at which a step asks the network besides t; None if it chooses them.
    """

    schedule: tuple[Float[Given, "n ..."], ...]
    init: Callable[[Float[Array, "*shape"]], State]
    step: Callable[..., State]
    finish: Callable[[PredictFn, State], Float[Array, "..."]]
    start: float = 1.0
    evaluations: Callable[[State], Int[Array, ""]] | None = None
    calibrate: Callable[[Float[Given, " n"]], "Sampler"] | None = None
    between: tuple[Float[np.ndarray, " n"], ...] | None = ()
    kernel: Kernel | None = None
    first: Callable[[Key, tuple[int, ...]], Float[Array, "..."]] | None = None

    @property
    def steps(self) -> int:
        """The length of the schedule."""
        return len(self.schedule[0])

    def asked(self) -> Float[np.ndarray, " all"] | None:
        """All times at which the network may be asked; None if they are not known before."""
        if self.between is None:
            return None
        last = self.schedule[1][-1:] if self.steps else np.array([self.start])
        return np.concatenate([self.schedule[0], last, *self.between])

    @property
    def has_memory(self) -> bool:
        """Whether its state is more than x."""
        x = jnp.zeros(())
        return self.init(x) is not x


def of_kernel(times: "Times", kernel: Kernel, *columns: Float[np.ndarray, " n"]) -> Sampler:
    """The sampler x_s = mean + deviation z, z ~ N(0, I), (mean, deviation) = kernel(...).

    The deviation is a number, or an array of x's shape. columns: the schedule's besides t and s.
    """

    def step(key, predict, x, *row):
        mean, deviation = kernel(predict, x, *row)
        return mean + deviation * jax.random.normal(key, x.shape, x.dtype)

    schedule = (times.t, times.s, *columns)
    return Sampler(schedule, lambda x: x, step, times.finish, times.start, kernel=kernel)


class Run(NamedTuple):
    """A sampler under way: its state, and how often the network has been asked."""

    state: State
    evaluations: Int[Array, ""] | int


class _Counted:
    """predict, and how often networks were asked for what it said."""

    def __init__(self, predict: PredictFn):
        self.predict = predict
        self.evaluations: Int[Array, ""] | int = 0

    def __call__(self, x, t):
        prediction = self.predict(x, t)
        self.evaluations += prediction.evaluations
        return prediction


def start(key: Key, process: GaussianProcess, sampler: Sampler, shape: tuple[int, ...]) -> Run:
    """The run before the first step: at a draw from N(0, σ(start)² I), or at sampler.first."""
    key = jax.random.fold_in(unrolled(key), sampler.steps)
    first = sampler.first or (lambda key, shape: sample_prior(key, process, shape, sampler.start))
    x = first(key, shape)
    return Run(sampler.init(x), jnp.zeros((), jnp.int32))


def advance(
    key: Key, sampler: Sampler, predict: PredictFn, run: Run, start: Integer, stop: Integer
) -> Run:
    """Makes steps start .. stop - 1 inside the program; a run cut into pieces is the same run.

    Raises UserError for a sampler that is to be calibrated first.
    """
    if sampler.calibrate is not None:
        raise UserError(
            "this sampler's schedule depends on the network and the data: use "
            "sampler.calibrate(errors), errors the mean of variances.eps_errors at the times "
            "sampler.schedule[0]"
        )
    if sampler.steps == 0:
        return run
    key, dtype = unrolled(key), jnp.result_type(float)
    schedule = tuple(jnp.asarray(c, dtype) for c in sampler.schedule)

    def body(i, run):
        row = (c[i] for c in schedule)
        counted = _Counted(predict)
        state = sampler.step(jax.random.fold_in(key, i), counted, run.state, *row)
        if sampler.evaluations is not None:
            return Run(state, sampler.evaluations(state))
        return Run(state, run.evaluations + counted.evaluations)

    return jax.lax.fori_loop(start, stop, body, run)


def finish(
    sampler: Sampler, predict: PredictFn, run: Run
) -> tuple[Float[Array, "..."], Int[Array, ""]]:
    """(x, how often the network was asked for it)."""
    counted = _Counted(predict)
    x = sampler.finish(counted, run.state)
    return x, jnp.asarray(run.evaluations + counted.evaluations, jnp.int32)


def sample_counted(
    key: Key,
    process: GaussianProcess,
    sampler: Sampler,
    predict: PredictFn,
    shape: tuple[int, ...],
) -> tuple[Float[Array, "..."], Int[Array, ""]]:
    """(x [shape], network evaluations): one draw: `start`, all steps, `finish`.

    Raises UserError as `advance`.
    """
    run = start(key, process, sampler, shape)
    return finish(sampler, predict, advance(key, sampler, predict, run, 0, sampler.steps))


def sample(
    key: Key,
    process: GaussianProcess,
    sampler: Sampler,
    predict: PredictFn,
    shape: tuple[int, ...],
) -> Float[Array, "..."]:
    """One draw [shape], from the prior to the end. Raises UserError as `advance`."""
    return sample_counted(key, process, sampler, predict, shape)[0]


class Times(NamedTuple):
    """The times t -> s of every step, the first x's time, and how the sampler ends."""

    t: Float[np.ndarray, " n"]
    s: Float[np.ndarray, " n"]
    start: float
    finish: Callable[
        [PredictFn, Float[Array, "*shape"]], Float[Array, "*shape"]
    ]  # of x at the last time


def make_grid(
    process: GaussianProcess, grid: str, steps: int, start: float, end: float
) -> Float[np.ndarray, " {steps}+1"]:
    """The n + 1 decreasing times of n steps, by a name of `times.GRIDS`.

    Raises UserError for an unknown grid, steps < 1 or beyond MOST_STEPS, unless 0 <= end < start
    <= 1, where the grid cannot be had, and for an end that is not below its last time.
    """
    if grid not in GRIDS:
        raise unknown("sampler.grid", grid, GRIDS)
    if steps < 1:
        raise UserError(f"sampler.steps must be at least 1, got {steps}")
    check_at_most("the sampler's number of steps", steps, MOST_STEPS)
    if not 0.0 <= end < 1.0:
        raise UserError(f"sampler.end must lie in [0, 1), got {end}")
    if not end < start <= 1.0:
        raise UserError(f"sampler.start must lie in ({end}, 1], got {start} with end = {end}")
    times = GRIDS[grid](process, steps, start, end)
    if not np.all(np.diff(times) < 0):
        raise UserError(
            f"sampler.end = {end} must come before the grid's last time {times[-2]:.6g}"
        )
    return times


def where_data_is_left(process: GaussianProcess, start: float) -> float:
    """start, or `processes.start_time` if α(start) = 0: for what divides by α."""
    return start if float(process.alpha(start)) > 0.0 else start_time(process)


def make_times(
    process: GaussianProcess,
    grid: str,
    steps: int,
    end: float,
    denoise: bool,
    start: float = 1.0,
    *,
    divides: bool = False,
) -> Times:
    """The times of a sampler with `steps` steps from start to end.

    denoise: end with x ← E[x_0 | x], one network evaluation more. A step to a time without
    noise (σ = 0) *is* that, so it is the last of the `steps` then, whatever denoise says.
    divides: the sampler divides by α, and begins at `processes.start_time` if there is none.
    Raises UserError as `make_grid`.
    """
    start = where_data_is_left(process, start) if divides else start
    times = make_grid(process, grid, steps, start, end)
    if on_host(process.sigma, times[-1:])[0] == 0.0:
        times, denoise = times[:-1], True
    return Times(times[:-1], times[1:], float(times[0]), make_finish(times[-1], denoise))


def make_finish(
    t: float, denoise: bool
) -> Callable[[PredictFn, Float[Array, "*shape"]], Float[Array, "*shape"]]:
    """(predict, x) -> E[x_0 | x_t = x] if denoise, else x."""
    if denoise:
        return lambda predict, x: predict(x, t).x0
    return lambda predict, x: x
