"""Drawing many samples from a trained network, on all devices, with progress.

    draw = make_draw(experiment, batch_size=64)
    x = draw(params, range(64))        # uint8 [64, H, W, C], or float32 [64, D]

Sample i depends on the evaluation's seed and on i alone.
"""

from collections.abc import Callable

import jax
import numpy as np

from score_jax.build import Experiment
from score_jax.keys import stream
from score_jax.models.base import as_net
from score_jax.parallel import join, over_examples, rounded_up, split
from score_jax.samplers import base

PIECES = 50  # a batch's loop is cut into at most so many calls, for progress and for stopping


def make_draw(experiment: Experiment, batch_size: int) -> Callable[..., np.ndarray | None]:
    """draw(params, indices, progress) -> the samples with these indices, as the data's numbers.

    batch_size: samples at a time; a shorter last batch is padded to it, so that one
    program serves all. progress(fraction) is told the share of the work done, and may
    answer False to have the rest left: draw then returns None.
    """
    sampler, process = experiment.sampler, experiment.process
    batch_size = rounded_up(batch_size)

    def key_of(index):
        return jax.random.fold_in(stream(experiment.evaluation.seed, "samples"), index)

    def predict(params):
        return experiment.sampling_predict(as_net(experiment.module, params))

    def start(shared, index):
        return base.start(key_of(index), process, sampler, experiment.data.shape)

    def advance(shared, index, state):
        params, begin, end = shared
        return base.advance(key_of(index), sampler, predict(params), state, begin, end)

    def finish(params, state):
        return sampler.finish(predict(params), state)

    start, advance, finish = map(over_examples, (start, advance, finish))
    pieces = np.linspace(0, sampler.steps, min(PIECES, sampler.steps) + 1).astype(np.int32)

    def draw(params, indices, progress=lambda fraction: None):
        indices = np.asarray(list(indices), np.int32)
        batches = -(-len(indices) // batch_size)
        samples = []
        for b in range(batches):
            index = split(np.resize(indices[b * batch_size : (b + 1) * batch_size], batch_size))
            state = start(None, index)
            for p, (begin, end) in enumerate(zip(pieces[:-1], pieces[1:])):
                state = advance((params, begin, end), index, state)
                jax.block_until_ready(state)
                if progress((b + (p + 1) / (len(pieces) - 1)) / batches) is False:
                    return None
            samples.append(join(finish(params, state)))
        return experiment.encoding.decode(np.concatenate(samples)[: len(indices)])

    return draw
