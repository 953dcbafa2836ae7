"""What is measured in one process: ours, and beside it the peer's where it was asked for."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks.speed import ours
from benchmarks.speed.child import told
from benchmarks.speed.clock import Cost, timed
from benchmarks.speed.pairs import Task
from benchmarks.speed.works import WORKS, Work, config_of
from score_jax.densities import three_modes
from score_jax.experiment import Experiment
from score_jax.models.base import Params
from score_jax.times import on_host

PASSES = 3  # of an update: forward, back to what came in, back to the weights
CHAINS = (16, 128, 1000)
READ = 64  # images in a batch that is read
WORKERS = (0, 2)  # of the peer's loader


class Subject(NamedTuple):
    """A work made ready, and the peer's network with the same parameters, None where it has none.

    quick: less of everything.
    """

    name: str
    work: Work
    experiment: Experiment
    params: Params
    module: Any
    net: Any
    quick: bool


def subject(name: str, peer: str | None, quick: bool) -> Subject:
    """The work of this name. Torch alone has no U-Net."""
    experiment = ours.experiment_of(name)
    params = ours.parameters(experiment)
    module: Any = None
    net: Any = None
    if peer == "diffusers" or (peer == "torch" and not experiment.data.is_images):
        from benchmarks.speed import same

        module, net = same.given(name, experiment, params)
    return Subject(name, WORKS[name], experiment, params, module, net, quick)


def step(of: Subject) -> Task:
    """An update of the parameters, with its batch."""
    run, updates = ours.training(of.experiment)
    calls = max(1, of.work.repeats // (PASSES * updates))
    updates, other = calls * updates, None
    if of.net is not None:
        from benchmarks.speed import theirs

        data = of.experiment.data.examples
        other = theirs.training(of.module, of.net, config_of(of.name), data)
    flops = PASSES * ours.flops(of.experiment, of.params, of.work.batch) * updates
    both = repeated(run, calls), repeated(other, updates)
    return Task("step", of.work.title, "updates", updates, *both, flops)


def forward(of: Subject) -> Task:
    """What the network says of a batch."""
    x, c = ours.inputs(of.experiment, of.work.batch)
    run, other = partial(ours.network(of.experiment, of.params), x, c), None
    if of.net is not None:
        from benchmarks.speed import theirs

        other = theirs.forward(of.module, of.net, x, c)
    times, n = of.work.repeats, of.work.batch
    flops = ours.flops(of.experiment, of.params, n) * times
    both = repeated(run, times), repeated(other, times)
    return Task("forward", of.work.title, "examples", n * times, *both, flops)


def ancestral(of: Subject) -> Task:
    """Samples by the reverse chain, from noise to bytes."""
    sampler, process, n = of.experiment.sampler, of.experiment.process, of.work.drawn
    other = None
    if of.net is not None:
        from benchmarks.speed import theirs

        t, s, *coefficients = sampler.schedule
        asked = np.append(t, s[-1])
        told = lambda t: (t * process.levels - 1, process.alpha(t), process.sigma(t))
        curves = on_host(told, asked)
        shape = (n, *of.experiment.data.shape)
        tables = np.stack(coefficients, 1), np.stack(curves, 1)
        other = theirs.ancestral(of.module, of.net, shape, *tables)
    run = ours.drawing(of.experiment, of.params)
    evaluations = sampler.steps + 1
    title = f"{of.work.titled(n)}, {evaluations} evaluations"
    flops = ours.flops(of.experiment, of.params, n) * evaluations
    return Task("ancestral", title, "samples", n, repeated(run), repeated(other), flops)


def likelihood(of: Subject) -> Task:
    """The divergence along the probability flow, of a network that says 0. No peer has it."""
    run = ours.likelihood(of.experiment)
    title = f"{of.work.title}, {of.experiment.likelihood.trace} trace"
    evaluations = int(run().evaluations.sum())
    return Task("likelihood", title, "evaluations", evaluations, repeated(run))


def annealed(chains: int, peer: str | None, quick: bool) -> Task:
    """Annealed Langevin dynamics with the exact score of three modes, as in configs/ncsn_toy.py."""
    levels, steps = (10, 20) if quick else (30, 100)
    process, sampler = ours.annealed(levels, steps)
    other = None
    if peer:
        from benchmarks.speed import theirs

        t, _, step_sizes, _ = (column[::steps] for column in sampler.schedule)
        sigma = on_host(process.sigma, t)
        p = three_modes()
        mixture = np.asarray(p.weights), np.asarray(p.means), np.asarray(p.stds)
        rows = np.stack([sigma, step_sizes, np.full(levels, steps)], 1)
        other = theirs.annealed(mixture, rows, chains)
    run = ours.annealing(process, sampler, chains)
    title = f"exact score, {chains} chains, {levels * steps + 1} evaluations"
    return Task("annealed", title, "samples", chains, repeated(run), repeated(other))


def data(workers: int, peer: str | None, quick: bool) -> Task:
    """Batches of 32x32x3 bytes in random order, mirrored at random and scaled."""
    experiment, batches = ours.experiment_of("cifar"), 32 if quick else 256
    experiment = experiment._replace(training=replace(experiment.training, batch_size=READ))
    other, title = None, f"32x32x3, batch {READ}"
    if peer:
        title += f", their loader's workers: {workers}"
        read = partial(told, "read", batch=READ, batches=batches, workers=workers)
        other = lambda: Cost(*read()["cost"])
    run = ours.reading(experiment, batches)
    return Task("data", title, "images", batches * READ, repeated(run), other)


def repeated(run: Callable[[], Any] | None, times: int = 1) -> Any:
    """What so many calls cost, when it is asked; None where there is nothing to be called."""
    return None if run is None else partial(timed, lambda: [run() for _ in range(times)])


OF_NETWORKS = {f.__name__: f for f in (step, forward, ancestral, likelihood)}
KINDS = (*OF_NETWORKS, "annealed", "data")


def tasks(kinds: list[str], works: list[str], peer: str | None, quick: bool) -> Iterator[Task]:
    """All that is asked for and there is, one after the other: only one is in memory."""
    for name in works:
        wanted = [kind for kind in OF_NETWORKS if kind in kinds and kind in WORKS[name].kinds]
        ready = subject(name, peer, quick) if wanted else None
        for kind in wanted:
            assert ready is not None
            yield OF_NETWORKS[kind](ready)
    for chains in CHAINS if "annealed" in kinds else ():
        yield annealed(chains, peer, quick)
    for workers in (WORKERS if peer else (0,)) if "data" in kinds else ():
        yield data(workers, peer, quick)
