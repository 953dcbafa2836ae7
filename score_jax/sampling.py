"""Drawing many samples from a trained network, on all devices, with progress.

    draw = make_draw(experiment)
    x = draw(params, range(64))        # uint8 [64, H, W, C], or float32 [64, D]

Sample i depends on the evaluation's seed and on i alone.
"""

from collections.abc import Callable, Iterable

import jax
import numpy as np

from score_jax.build import Experiment
from score_jax.models.base import Params, as_net
from score_jax.parallel import join, over_examples, rounded_up, split
from score_jax.samplers import base

PIECES = 50  # a batch's loop is cut into so many calls, for progress and to hear Ctrl-C


def make_draw(
    experiment: Experiment, batch_size: int
) -> Callable[[Params, Iterable[int]], np.ndarray]:
    """draw(params, indices, progress) -> the samples with these indices, as the data's numbers.

    batch_size: samples at a time; a shorter last batch is padded to it, so that one
    program serves all. progress(fraction) is told the share of the work done.
    """
    sampler, process = experiment.sampler, experiment.process
    batch_size = rounded_up(batch_size)

    def key_of(index):
        return jax.random.fold_in(jax.random.key(experiment.evaluation.seed), index)

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
                progress((b + (p + 1) / (len(pieces) - 1)) / batches)
            samples.append(join(finish(params, state)))
        return experiment.encoding.decode(np.concatenate(samples)[: len(indices)])

    return draw
