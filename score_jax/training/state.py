"""The state of a run and one update of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.experiment import Experiment
from score_jax.keys import stream
from score_jax.models.base import Params, init_params
from score_jax.parallel import mean_gradient, replicated
from score_jax.power_ema import decay as power_decay
from score_jax.power_ema import exponent
from score_jax.sections import Training
from score_jax.times import DRAWS
from score_jax.training.optimizer import descent, first_moments, global_norm
from score_jax.types import Array, Integer, Key, Scalar


class TrainState(NamedTuple):
    """All that a run carries from step to step.

    step: int32, the number of updates made. ema: the moving average of params. averages: their
    power-function averages, one for each of training.power_ema. There is no random key: a draw's
    key is folded from the seed, the step and the example's index.
    """

    step: Array | np.integer
    params: Params
    ema: Params
    opt_state: Any
    averages: tuple[Params, ...] = ()


class Metrics(NamedTuple):
    """Of one update, before it: the batch's mean loss and the global norm of its gradient."""

    loss: Array
    grad_norm: Array


def learning_rate(options: Training, step: Scalar) -> Array:
    """learning_rate min(1, (step + 1)/warmup), the rate of update number `step`, from 0."""
    return options.learning_rate * jnp.minimum(1.0, (step + 1.0) / max(options.warmup, 1))


def create(experiment: Experiment) -> TrainState:
    """The state before the first update, on all devices of this host."""
    key = stream(experiment.training.seed, "parameters")
    params = init_params(experiment.module, key, experiment.input_shape)
    opt_state = _zeros(first_moments, params)
    averages = (params,) * len(experiment.training.power_ema or ())
    return replicated(TrainState(np.int32(0), params, params, opt_state, averages))


def _zeros(init, params):
    """init(params), where that is zeros, as Adam's state is, in no memory of their own."""
    zeros = lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
    return jax.tree.map(zeros, jax.eval_shape(init, params))


def step_key(options: Training, step: Integer) -> Key:
    """The key of all draws of the update that follows `step` others."""
    return jax.random.fold_in(stream(options.seed, "steps"), step)


def make_example_loss(experiment: Experiment) -> Callable[..., tuple[Array, Array]]:
    """(params, key, position, x, label) -> (loss, u) of one example of the batch.

    key: `step_key`. position: the example's place in the whole batch, so that its draws do not
    depend on the number of devices. x: as the data set has it. label: its class,
    -1 for none. u: its place in the law of times.
    """
    size, draw = experiment.training.batch_size, DRAWS[experiment.draws]

    def loss(params, key, position, x, label):
        u = draw(jax.random.fold_in(key, size), position, size)
        keys = jax.random.split(jax.random.fold_in(key, position), 3)
        encode_key, loss_key, dropout_key = keys
        net = experiment.net(params, label=label, dropout_key=dropout_key)
        predict = experiment.predict(net)
        return experiment.loss(loss_key, predict, experiment.encoding.encode(encode_key, x), u), u

    return loss


def make_gradient(experiment: Experiment) -> Callable[..., tuple[Array, Any]]:
    """(state, (examples, labels, positions)) -> (loss, gradient) of the whole batch, given a
    device's share of it: examples [B, ...], labels [B], positions [B]."""
    options, example_loss = experiment.training, make_example_loss(experiment)

    def gradient(state, batch):
        examples, labels, positions = batch
        key = step_key(options, state.step)
        loss = lambda params, *example: example_loss(params, key, *example)[0]
        mean = mean_gradient(loss, options.microbatches)
        return mean(state.params, positions, examples, labels)

    return gradient


def averaged(average: Params, params: Params, decay: Scalar) -> Params:
    """decay average + (1 - decay) params."""
    return jax.tree.map(lambda a, p: _between(decay, a, p), average, params)


@jax.jit
def _between(decay, a, p):
    return decay * a + (1.0 - decay) * p


def make_update(experiment: Experiment) -> Callable[..., tuple[TrainState, Metrics]]:
    """update(state, (examples, labels, positions)) -> (state, metrics), on a device's share.

    params becomes params - learning_rate Adam(min(1, clip/|gradient|) gradient), brought to
    magnitude 1 where the network asks for it (`EDM2.normalized`). ema becomes `averaged` with it at
    the decay min(training.ema, (1 + n)/(10 + n)) after n updates, and so do the averages, each at a
    decay of its own.

    Where training.non_finite is "skip" an update whose loss or gradient is infinite or not a
    number leaves everything but the step as it was.
    """
    options, gradient = experiment.training, make_gradient(experiment)
    gammas = [exponent(sigma_rel) for sigma_rel in options.power_ema or ()]
    settle = getattr(experiment.module, "normalized", lambda params: params)  # EDM2's

    def update(state, batch):
        value, grads = gradient(state, batch)
        metrics = Metrics(value, global_norm(grads))

        direction, opt_state = descent(options, grads, metrics.grad_norm, state.opt_state)
        rate = learning_rate(options, state.step)
        params = settle(jax.tree.map(lambda p, d: p - rate * d, state.params, direction))

        n = state.step.astype(jnp.float32)
        decay = jnp.minimum(options.ema, (1.0 + n) / (10.0 + n))
        ema = averaged(state.ema, params, decay)
        betas = [power_decay(gamma, state.step + 1) for gamma in gammas]
        averages = [averaged(old, params, beta) for old, beta in zip(state.averages, betas)]

        new = TrainState(state.step + 1, params, ema, opt_state, tuple(averages))
        if options.non_finite == "skip":
            good = jnp.isfinite(metrics.loss) & jnp.isfinite(metrics.grad_norm)
            kept = state._replace(step=new.step)
            new = jax.tree.map(lambda new, old: jnp.where(good, new, old), new, kept)
        return new, metrics

    return update
