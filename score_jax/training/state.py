"""The state of a run and one update of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from score_jax.build import Experiment
from score_jax.keys import stream
from score_jax.models.base import Params, as_net, init_params
from score_jax.parallel import mean_gradient, owned
from score_jax.sections import Training
from score_jax.times import DRAWS
from score_jax.types import Array


class TrainState(NamedTuple):
    """All that a run carries from step to step.

    step: int32, the number of updates made. ema: the moving average of params. There is
    no random key: a draw's key is folded from the seed, the step and the example's index.
    """

    step: Array
    params: Params
    ema: Params
    opt_state: Any


class Metrics(NamedTuple):
    """Of one update, before it: the batch's mean loss and the global norm of its gradient."""

    loss: Array
    grad_norm: Array


def learning_rate(options: Training, step: Array) -> Array:
    """The rate of update number `step` (from 0): linear over the warm-up, then constant."""
    return options.learning_rate * jnp.minimum(1.0, (step + 1.0) / max(options.warmup, 1))


def make_optimizer(options: Training) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015), after clipping by the global norm where asked for.

    The learning rate is not part of its state: it comes from the config at every step.
    """
    clip = optax.identity() if options.clip is None else optax.clip_by_global_norm(options.clip)
    adam = optax.scale_by_adam(options.beta1, options.beta2, options.adam_eps)
    return optax.chain(clip, adam)


def create(experiment: Experiment) -> TrainState:
    """The state before the first update, on the device and nobody else's."""
    key = stream(experiment.training.seed, "parameters")
    params = init_params(experiment.module, key, experiment.data.shape)
    opt_state = make_optimizer(experiment.training).init(params)
    return owned(TrainState(jnp.zeros((), jnp.int32), params, params, opt_state))


def make_update(experiment: Experiment) -> Callable[..., tuple[TrainState, Metrics]]:
    """update(state, (examples, positions)) -> (state, metrics), on one device's share.

    examples [B, ...]; positions [B], the examples' places in the whole batch, so that
    their random draws do not depend on the number of devices.
    """
    options, encoding = experiment.training, experiment.encoding
    optimizer = make_optimizer(options)

    draw = DRAWS[experiment.draws]

    def loss(params, step_key, position, x):
        u = draw(jax.random.fold_in(step_key, options.batch_size), position, options.batch_size)
        key = jax.random.fold_in(step_key, position)
        encode_key, loss_key, dropout_key = jax.random.split(key, 3)
        predict = experiment.predict(as_net(experiment.module, params, dropout_key=dropout_key))
        return experiment.loss(loss_key, predict, encoding.encode(encode_key, x), u)

    def update(state, batch):
        examples, positions = batch
        key = jax.random.fold_in(stream(options.seed, "steps"), state.step)
        gradient = mean_gradient(lambda params, *example: loss(params, key, *example))
        value, grads = gradient(state.params, positions, examples)

        direction, opt_state = optimizer.update(grads, state.opt_state, state.params)
        rate = learning_rate(options, state.step)
        params = jax.tree.map(lambda p, d: p - rate * d, state.params, direction)

        n = state.step.astype(jnp.float32)
        decay = jnp.minimum(options.ema, (1.0 + n) / (10.0 + n))
        ema = jax.tree.map(lambda e, p: decay * e + (1.0 - decay) * p, state.ema, params)

        metrics = Metrics(value, optax.tree.norm(grads))
        return TrainState(state.step + 1, params, ema, opt_state), metrics

    return update
