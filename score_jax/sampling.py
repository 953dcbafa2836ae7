"""Drawing many samples from a trained network, on all devices, with progress.

    draw = make_draw(experiment, batch_size=64)
    x, evaluations = draw(params, range(64))     # uint8 [64, H, W, C], or float32 [64, D]

Sample i depends on the evaluation's seed and on i alone.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from score_jax.errors import UserError
from score_jax.experiment import Experiment
from score_jax.keys import stream
from score_jax.models.base import Params
from score_jax.parallel import in_batches, join, over_examples, rounded_up, split, waited
from score_jax.predictions import PredictFn
from score_jax.samplers import base
from score_jax.types import Array, Key
from score_jax.variances import eps_errors

PIECE = 0.1  # seconds that a call takes, in which a batch's loop advances: for progress and stops
CALIBRATION = 1_000  # training examples that a sampler which is to be calibrated is shown


class Drawn(NamedTuple):
    """samples: as the data's numbers, uint8 [N, H, W, C] or float32 [N, D]. evaluations: [N], how
    often each asked the network.

    finite: [N], whether each was without NaN and infinity before it became the data's numbers.
    """

    samples: np.ndarray
    evaluations: np.ndarray
    finite: np.ndarray


def sample_key(experiment: Experiment, index: Array) -> Key:
    """The key of all draws of the sample with this index."""
    return jax.random.fold_in(stream(experiment.evaluation.seed, "samples"), index)


def predict_of(experiment: Experiment, params: tuple[Params, Params], label: Array) -> PredictFn:
    """What the networks say of a sample that is told `label`.

    params: of the network, and of the guide's (`Experiment.guide`), None where there is none.
    """
    own, guide = params
    return experiment.sampling_predict(own, label, guide)


def sampler_of(experiment: Experiment, index: Array) -> base.Sampler:
    """What draws the sample with this index."""
    each = experiment.given.sampler_of
    return experiment.sampler if each is None else each(index)


def make_steps(experiment: Experiment) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(start, advance) of samples that are spread over the devices, see `parallel.over_examples`.

    start(None, index) -> run, before the first step. advance((params, schedule, begin, end), index,
    label, run) -> run, after the steps begin .. end - 1 of the schedule. params: see `predict_of`.
    """
    process, shape = experiment.process, experiment.data.shape

    def start(shared, index):
        sampler = sampler_of(experiment, index)
        return base.start(sample_key(experiment, index), process, sampler, shape)

    def advance(shared, index, label, run):
        params, schedule, begin, end = shared
        ready = sampler_of(experiment, index)._replace(schedule=schedule, calibrate=None)
        predict = predict_of(experiment, params, label)
        return base.advance(sample_key(experiment, index), ready, predict, run, begin, end)

    return over_examples(start), over_examples(advance)


def make_draw(
    experiment: Experiment, batch_size: int, guide: Params = None
) -> Callable[..., Drawn | None]:
    """draw(params, indices, progress) -> the samples with these indices.

    guide: the parameters of the guide's network, where the experiment has a guide.
    batch_size: samples at a time; a shorter last batch is padded to it, so that one
    program serves all. progress(fraction) is told the share of the work done, and may
    answer False to have the rest left: draw then returns None.

    A sampler that is to be calibrated is, whenever it meets new parameters: on at most 1,000
    training examples, which costs what drawing as many samples does. Raises UserError where there
    are none.
    """
    sampler, batch_size = experiment.sampler, rounded_up(batch_size)
    predict = partial(predict_of, experiment)

    def finish(params, label, run):
        return base.finish(sampler, predict(params, label), run)

    start, advance = make_steps(experiment)
    finish = over_examples(finish)
    calibrate = make_calibrate(experiment, batch_size)
    calibrated: tuple[Any, Any] = None, None  # the last parameters, and the schedule for them
    steps = 1  # of the next call

    def draw(params, indices, progress=lambda fraction: None):
        nonlocal calibrated, steps
        if calibrated[0] is not params:
            schedule = calibrate((params, guide), progress)
            if schedule is None:
                return None
            calibrated = params, schedule
            if sampler.calibrate and progress(0.0) is False:
                return None
        params, schedule = (params, guide), calibrated[1]
        indices = np.asarray(list(indices), np.int32)
        batches = -(-len(indices) // batch_size)
        samples, evaluations = [], []
        for b in range(batches):
            index = np.resize(indices[b * batch_size : (b + 1) * batch_size], batch_size)
            index, label = split(index), split(experiment.labels(index))
            run = start(None, index)
            share = lambda step, b=b: (b + step / sampler.steps) / batches
            end = 0
            while end < sampler.steps:
                begin, end, began = end, min(end + steps, sampler.steps), time.perf_counter()
                piece = np.int32(begin), np.int32(end)
                run = advance((params, schedule, *piece), index, label, run)
                if not waited(run, partial(progress, share(begin))):
                    return None
                if progress(share(end)) is False:
                    return None
                took = time.perf_counter() - began
                steps = max(1, int(PIECE * (end - begin) / took))
            x, asked = finish(params, label, run)
            samples.append(join(x))
            evaluations.append(join(asked))
        x, asked = (np.concatenate(a)[: len(indices)] for a in (samples, evaluations))
        finite = np.isfinite(x.reshape(len(x), -1)).all(1)
        return Drawn(experiment.encoding.decode(np.nan_to_num(x)), asked, finite)

    return draw


def make_calibrate(experiment: Experiment, batch_size: int) -> Callable[..., Any]:
    """calibrate(params, progress) -> the sampler's schedule for these parameters, in float32.

    params: see `predict_of`. That of any, of a sampler that needs no calibration. None where
    progress answers False. Raises UserError where there are no data to calibrate on.
    """
    sampler, process, data = experiment.sampler, experiment.process, experiment.data
    rounded = lambda schedule: tuple(np.asarray(c, np.float32) for c in schedule)
    to_calibrate = sampler.calibrate
    if to_calibrate is None or sampler.steps == 0:
        return lambda params, progress: rounded(sampler.schedule)
    if not len(data.examples):
        raise UserError(
            f"this sampler is calibrated on the data, and config.data.name = {data.name!r} holds "
            "none; give the data, or another sampler.variance"
        )

    def errors(params, index, label, x):
        key = jax.random.fold_in(stream(experiment.evaluation.seed, "calibration"), index)
        encode_key, noise_key = jax.random.split(key)
        x_0 = experiment.encoding.encode(encode_key, x)
        predict = predict_of(experiment, params, label)
        return eps_errors(noise_key, process, predict, x_0, sampler.schedule[0])

    together = in_batches(errors, batch_size)

    def calibrate(params, progress):
        rng, n = np.random.default_rng(experiment.evaluation.seed), len(data.examples)
        chosen = np.sort(rng.permutation(n)[:CALIBRATION])
        batch, go_on = experiment.examples_at(chosen), lambda fraction: progress(0.0)
        found = together(params, *batch, progress=go_on)
        if found is None:
            return None
        return rounded(to_calibrate(found.mean(0, dtype=np.float64)).schedule)

    return calibrate
