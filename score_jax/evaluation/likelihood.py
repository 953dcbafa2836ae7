"""--mode=likelihood: how many bits a gray level of the data costs under the model (nats for
points), by the probability flow."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from score_jax.build import Experiment
from score_jax.errors import UserError
from score_jax.hosts import leads
from score_jax.keys import stream
from score_jax.likelihood import Likelihood, bits_per_dim, log_likelihood
from score_jax.models.base import Params
from score_jax.parallel import join, over_examples, rounded_up, split
from score_jax.pieces import drop, in_pieces
from score_jax.probability_flow import flow_times
from score_jax.workdir import write_json

END = 1e-3  # of a process without a ladder: σ = 0.0105 for VP with its defaults


def check(experiment: Experiment) -> None:
    """Raises UserError for an experiment that has no likelihood, before anything is read."""
    if hasattr(experiment.module, "levels"):
        raise UserError(
            f"config.model.name = {experiment.config['model']['name']!r} has parameters for each "
            "noise level and knows nothing between them, where the probability flow needs it"
        )
    flow_times(experiment.process, _end(experiment), 1.0)


def evaluate(
    experiment: Experiment,
    params: Params,
    made: dict[str, Any],
    workdir: Path,
    progress: Callable[[float], Any] = lambda fraction: None,
) -> dict[str, Any]:
    """Measures the first likelihood.examples of the data, or all; writes workdir/likelihood.json.

    A batch at a time, each kept until all are done, on every host (see `pieces`).

    bits_per_dim (images) or nats_per_dim (points): -log p at the time likelihood.end, a
    dimension, and its standard error over the examples, the estimator's included. Images are
    made continuous by one draw of uniform noise each, (p + u)/256, whatever the training saw.
    Raises UserError if the solver gives up on an example, since a mean of the rest would
    flatter the model.
    """
    n = min(experiment.likelihood.examples, len(experiment.data.examples))
    made = made | experiment.config["likelihood"] | {"end": _end(experiment)}
    identity = {name: value for name, value in made.items() if name != "examples"}
    likelihood = make_likelihood(experiment)
    make = lambda indices, tell: likelihood(params, indices, tell)._asdict()
    size = experiment.likelihood.batch_size
    pieces = in_pieces(workdir, "likelihood", identity, n, size, make, progress)
    result = Likelihood(**pieces)
    unsolved = int((~np.isfinite(result.log_prob)).sum())
    if unsolved:
        raise UserError(
            f"the probability flow could not be followed for {unsolved} of {n} examples; "
            "use larger config.likelihood.rtol and atol, or a later config.likelihood.end"
        )
    dimensions = math.prod(experiment.data.shape)
    if experiment.data.is_images:
        unit = "bits_per_dim"
        width = (1.0 - experiment.encoding.low) / 256.0
        values = bits_per_dim(result.log_prob, dimensions, width)
    else:
        unit, values = "nats_per_dim", -result.log_prob / dimensions
    found = {
        unit: float(values.mean()),
        "standard_error": float(values.std(ddof=1) / math.sqrt(n)) if n > 1 else None,
        "examples": n,
        "dimensions": dimensions,
        "network_evaluations_per_example": float(result.evaluations.mean()),
        "made": made,
    }
    if leads():
        write_json(workdir / "likelihood.json", found)
    drop(workdir, "likelihood", identity)
    return found


def report(result: dict[str, Any]) -> str:
    """The result in three lines for the terminal."""
    made = result["made"]
    unit = "bits_per_dim" if "bits_per_dim" in result else "nats_per_dim"
    error = result["standard_error"]
    spread = "" if error is None else f" ± {error:.3f}"
    trace = f"{made['trace']} trace" + (
        "" if made["trace"] == "exact" else f", {made['probes']} probe{'s' * (made['probes'] > 1)}"
    )
    return "\n".join(
        [
            f"negative log-likelihood of {result['examples']:,} examples of the data",
            f"  {result[unit]:.3f}{spread} {unit.replace('_', ' ')}, {result['dimensions']} "
            f"dimensions, at t = {made['end']:.6g}",
            f"  {result['network_evaluations_per_example']:.1f} network evaluations each, {trace}, "
            f"rtol = {made['rtol']:g}, atol = {made['atol']:g}",
        ]
    )


def make_likelihood(experiment: Experiment) -> Callable[..., Likelihood]:
    """likelihood(params, indices, progress) -> Likelihood of the examples with these indices.

    float64 [N] on the host. Example i depends on likelihood.seed and on i alone. progress is
    told the share of the work done.
    """
    options, process, data = experiment.likelihood, experiment.process, experiment.data
    encoding = experiment.encoding._replace(flip=False, dequantize=True)
    end = _end(experiment)

    def one(params, index, label, x):
        key = jax.random.fold_in(stream(options.seed, "likelihood"), index)
        noise_key, probe_key = jax.random.split(key)
        return log_likelihood(
            probe_key,
            process,
            experiment.predict(experiment.net(params, label=label)),
            encoding.encode(noise_key, x),
            end=end,
            rtol=options.rtol,
            atol=options.atol,
            trace=options.trace,
            probes=options.probes,
        )

    together = over_examples(one)
    batch_size = rounded_up(min(options.batch_size, len(data.examples)))

    def likelihood(params, indices, progress=lambda fraction: None):
        indices = np.asarray(list(indices), np.int32)
        found = []
        for begin in range(0, len(indices), batch_size):
            index = np.resize(indices[begin : begin + batch_size], batch_size)
            batch = index, experiment.labels_of(index), data.examples[index]
            result = together(params, *map(split, batch))
            found.append(jax.tree.map(join, result))
            progress(min(1.0, (begin + batch_size) / len(indices)))
        return jax.tree.map(
            lambda *parts: np.concatenate(parts).astype(np.float64)[: len(indices)], *found
        )

    return likelihood


def _end(experiment: Experiment) -> float:
    """likelihood.end, or where it is not given the ladder's first level, else END."""
    if experiment.likelihood.end is not None:
        return experiment.likelihood.end
    levels = experiment.process.levels
    return END if levels is None else 1.0 / levels
