"""What of ours is timed: each a function without arguments, done when it comes back."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.speed.works import config_of, saved
from score_jax.build import build
from score_jax.densities import three_modes
from score_jax.evaluation.likelihood import make_likelihood
from score_jax.experiment import Experiment
from score_jax.likelihood import Likelihood
from score_jax.models.base import Params, init_params
from score_jax.parallel import over_examples, update_step
from score_jax.predictions import exact
from score_jax.processes import PROCESSES
from score_jax.samplers import SAMPLERS
from score_jax.samplers.base import Sampler, sample
from score_jax.sampling import make_draw
from score_jax.training.loop import Batches
from score_jax.training.state import create, make_update, step_key

Run = Callable[[], Any]


def experiment_of(name: str) -> Experiment:
    """The work's Experiment, on random examples."""
    with saved(name) as path:
        return build(config_of(name, path))


def parameters(experiment: Experiment) -> Params:
    """Parameters none of which is 0, so that every layer counts in what the network says."""
    params = init_params(experiment.module, jax.random.key(0), experiment.input_shape)
    rng = np.random.default_rng(1)
    noise = lambda w: rng.normal(scale=0.02, size=w.shape).astype(np.float32)
    return jax.tree.map(lambda w: jnp.asarray(w + noise(w)), params)


def training(experiment: Experiment) -> tuple[Run, int]:
    """(a call of the compiled update as the training loop makes it, the updates in a call)."""
    update, batches = update_step(make_update(experiment)), Batches(experiment)
    calls, state, step = experiment.training.steps_per_call, create(experiment), 0

    def run():
        nonlocal state, step
        state, metrics = update(state, batches(step, calls))
        step += calls
        jax.block_until_ready((state, metrics))

    return run, calls


def network(experiment: Experiment, params: Params) -> Callable[[np.ndarray, np.ndarray], Any]:
    """(x [N, ...], c [N]) -> y [N, ...], compiled."""
    net = jax.jit(lambda params, x, c: jax.vmap(experiment.net(params))(x, c))
    return lambda x, c: jax.block_until_ready(net(params, x, c))


def inputs(experiment: Experiment, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(x [n, ...], c [n]) for a network."""
    x = np.random.default_rng(2).normal(size=(n, *experiment.data.shape))
    return x.astype(np.float32), np.linspace(1.0, 998.0, n, dtype=np.float32)


def flops(experiment: Experiment, params: Params, batch: int) -> float:
    """Of a forward pass, counted by XLA before it changes anything: multiplications and sums."""
    net = jax.jit(lambda params, x, c: jax.vmap(experiment.net(params))(x, c))
    cost: Any = net.lower(params, *inputs(experiment, batch)).cost_analysis()
    return float(cost["flops"])


def drawing(experiment: Experiment, params: Params) -> Run:
    """Draws evaluation.samples."""
    n = experiment.evaluation.samples
    draw = make_draw(experiment, n)
    return lambda: draw(params, range(n))


def annealed(levels: int, steps_per_level: int) -> tuple[Any, Sampler]:
    """(process, sampler) of annealed Langevin dynamics as in configs/ncsn_toy.py."""
    process = PROCESSES["ve"](sigma_min=0.01, sigma_max=10.0)
    options = dict(levels=levels, steps_per_level=steps_per_level, step_size=2e-5, grid="uniform")
    return process, SAMPLERS["annealed_langevin"](process, **options)


def annealing(process: Any, sampler: Sampler, n: int) -> Run:
    """n chains with the exact score of three modes, compiled."""
    predict = exact(process, three_modes())
    chains = jax.jit(jax.vmap(lambda key: sample(key, process, sampler, predict, (2,))))
    keys = jax.random.split(jax.random.key(0), n)
    return lambda: np.asarray(chains(keys))


def likelihood(experiment: Experiment) -> Callable[[], Likelihood]:
    """The log-likelihood of likelihood.examples, before training: in few evaluations."""
    measure, n = make_likelihood(experiment), experiment.likelihood.examples
    params = init_params(experiment.module, jax.random.key(0), experiment.input_shape)
    assert n is not None  # as the works say
    return lambda: measure(params, range(n))


def reading(experiment: Experiment, batches: int) -> Run:
    """So many batches cut from the data, taken to the device, mirrored and scaled there."""
    cut, options = Batches(experiment), experiment.training

    def example(step, x, place):
        key = jax.random.fold_in(step_key(options, step), place)
        return experiment.encoding.encode(key, x)

    encode = over_examples(example)

    def run():
        for step in range(batches):
            x, _, places = cut(step, 1)
            jax.block_until_ready(encode(np.int32(step), x[:, 0], places[:, 0]))

    return run


def product(size: int) -> Run:
    """A product of two float32 matrices."""
    a, b = jax.random.normal(jax.random.key(0), (2, size, size))
    multiply = jax.jit(jnp.dot)
    return lambda: jax.block_until_ready(multiply(a, b))
