"""Samples under way: what they are and what the network makes of them, from noise to data.

path = trajectory(experiment, params, samples=8, columns=10)
path.x, path.x0          # [8, 10, ...]: the state, and E[x_0 | x_t] by the network
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.errors import UserError
from score_jax.experiment import Experiment
from score_jax.models.base import Params
from score_jax.parallel import join, over_examples, rounded_up, split, waited
from score_jax.sampling import make_calibrate, make_steps, predict_of
from score_jax.times import on_host


class Trajectory(NamedTuple):
    """times: [C], decreasing. logsnr: [C] at them. x, x0: [N, C, ...], in the network's units,
    x0 = E[x_0 | x] as the network says it.

    The samples are the first N that `sampling.make_draw` draws, seen before C of their steps.
    """

    times: np.ndarray
    logsnr: np.ndarray
    x: np.ndarray
    x0: np.ndarray


def trajectory(
    experiment: Experiment,
    params: Params,
    *,
    guide: Params = None,
    samples: int = 8,
    columns: int = 10,
    progress: Callable[[float], Any] = lambda fraction: None,
) -> Trajectory:
    """The first samples, each before `columns` of the sampler's steps, spread evenly over them.

    Fewer columns where there are fewer steps. guide: see `sampling.make_draw`. progress is told the
    share of the work done, 0 at the start.
    Raises UserError for a sampler that chooses its own steps or has many samples under way for
    one, and for one that makes no steps.
    """
    params = params, guide
    sampler = experiment.sampler
    if sampler.evaluations is not None or sampler.steps == 0:
        names = [experiment.config[section]["name"] for section in ("sampler", "guidance")]
        raise UserError(
            f"config.sampler.name = {names[0]!r} with config.guidance.name = {names[1]!r} has no "
            "steps of a single sample at which to look"
        )
    progress(0.0)
    schedule = make_calibrate(experiment, samples)(params, lambda fraction: None)
    times = np.asarray(sampler.schedule[0], np.float64)
    falling = np.flatnonzero(times <= np.minimum.accumulate(times))  # repaint goes up again
    shown = falling[np.unique(np.linspace(0, len(falling) - 1, columns).round().astype(np.int32))]
    shown = shown.astype(np.int32)

    def look(shared, index, label, run):
        params, schedule, at = shared
        x = jax.tree.leaves(run.state)[0]  # of every sampler's state
        return x, predict_of(experiment, params, label)(x, jnp.asarray(schedule[0])[at]).x0

    start, advance = make_steps(experiment)
    look = over_examples(look)
    index = np.arange(rounded_up(samples), dtype=np.int32)
    index, label = split(index), split(experiment.labels(index))
    run, found, done = start(None, index), [], np.int32(0)
    for at in shown:
        run = advance((params, schedule, done, at), index, label, run)
        seen = look((params, schedule, at), index, label, run)
        waited(seen, lambda: None)
        found.append([join(part) for part in seen])
        done = at
        progress(len(found) / len(shown))
    x, x0 = (np.stack(parts, axis=1)[:samples] for parts in zip(*found))
    times = times[shown]
    return Trajectory(times, on_host(experiment.process.logsnr, times), x, x0)
