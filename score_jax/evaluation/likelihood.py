"""--mode=likelihood by the probability flow: how many bits a gray level of the test data costs
under the model (nats for points)."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from score_jax.data.order import evenly
from score_jax.errors import UserError
from score_jax.evaluation.examples import examples, over_repeats, which
from score_jax.evaluation.spread import standard_errors
from score_jax.experiment import Experiment
from score_jax.hosts import leads
from score_jax.keys import stream
from score_jax.likelihood import Likelihood, bits_per_dim, log_likelihood
from score_jax.models.base import Params
from score_jax.pieces import drop, in_pieces
from score_jax.probability_flow import flow_times
from score_jax.workdir import write_json

END = 1e-3  # of a process without a ladder: σ = 0.0105 for VP with its defaults


def check(experiment: Experiment) -> None:
    """Raises UserError for an experiment that has no likelihood, before anything is read."""
    if hasattr(experiment.module, "levels"):
        raise UserError(
            f"config.model.name = {experiment.config['model']['name']!r} has parameters for each "
            "noise level and knows nothing between them, where the probability flow needs it; "
            "--config.likelihood.by=bound asks at the levels only"
        )
    flow_times(experiment.process, _end(experiment), 1.0)


def evaluate(
    experiment: Experiment,
    params: Params,
    made: dict[str, Any],
    workdir: Path,
    progress: Callable[[float], Any] = lambda fraction: None,
) -> dict[str, Any]:
    """Measures likelihood.examples of the test data, evenly spread, or all: likelihood.json.

    A batch at a time, each kept until all are done, on every host (see `pieces`).

    bits_per_dim (images) or nats_per_dim (points): -log p at the time likelihood.end, a
    dimension, and its standard error over the examples, the estimator's included; which part of
    that is whose, as far as likelihood.repeats and probes tell, in standard_error_of. Images are
    made continuous by uniform noise, (p + u)/256, drawn anew at each repeat, whatever the
    training saw. Raises UserError if the solver gives up on an example, since a mean of the rest
    would flatter the model.
    """
    n, options = examples(experiment), experiment.likelihood
    data = experiment.on_test().data
    made = made | experiment.config["likelihood"] | {"end": _end(experiment)} | which(data)
    identity = {name: value for name, value in made.items() if name != "variance"} | {"examples": n}
    likelihood = make_likelihood(experiment)
    chosen = evenly(n, len(data.examples))

    def make(indices, tell):
        found = likelihood(params, chosen[indices], tell)
        return found and found._asdict()

    size = options.batch_size
    pieces = in_pieces(workdir, "likelihood", identity, n, size, make, progress)
    result = Likelihood(**pieces)  # [n, repeats] each
    unsolved = int((~np.isfinite(result.log_prob)).any(1).sum())
    if unsolved:
        raise UserError(
            f"the probability flow could not be followed for {unsolved} of {n} examples; "
            "use larger config.likelihood.rtol and atol, or a later config.likelihood.end"
        )
    dimensions = math.prod(data.shape)
    if data.is_images:
        unit, per_nat = "bits_per_dim", 1.0 / (dimensions * math.log(2.0))
        width = (1.0 - experiment.encoding.low) / 256.0
        values = np.asarray(bits_per_dim(result.log_prob, dimensions, width))
    else:
        unit, per_nat = "nats_per_dim", 1.0 / dimensions
        values = np.asarray(-result.log_prob * per_nat)
    # One probe cannot tell its own error; the exact trace has none.
    known = options.trace == "exact" or options.probes > 1
    probes = np.asarray(result.standard_error * per_nat) if known else None
    total, parts = standard_errors(values, probes)
    found = {
        unit: float(values.mean()),
        "standard_error": total,
        "standard_error_of": parts if data.is_images else parts | {"dequantization": 0.0},
        "examples": n,
        "data": data.name,
        "dimensions": dimensions,
        "network_evaluations_per_example": float(result.evaluations.sum(1).mean()),
        "made": made,
    }
    if leads():
        write_json(workdir / "likelihood.json", found)
    drop(workdir, "likelihood", identity)
    return found


def report(result: dict[str, Any]) -> str:
    """The result in a few lines for the terminal."""
    made = result["made"]
    unit = "bits_per_dim" if "bits_per_dim" in result else "nats_per_dim"
    error = result["standard_error"]
    spread = "" if error is None else f" ± {error:.3f}"
    trace = f"{made['trace']} trace" + (
        "" if made["trace"] == "exact" else f", {made['probes']} probe{'s' * (made['probes'] > 1)}"
    )
    whose = ", ".join(f"{e:.2g} {of}" for of, e in result["standard_error_of"].items() if e)
    whose = f"; of that error: {whose}" if whose else ""
    return "\n".join(
        [
            f"negative log-likelihood of {result['examples']:,} examples of {result['data']}",
            f"  {result[unit]:.3f}{spread} {unit.replace('_', ' ')}, {result['dimensions']} "
            f"dimensions, at t = {made['end']:.6g}{whose}",
            f"  {result['network_evaluations_per_example']:.1f} network evaluations each, {trace}, "
            f"rtol = {made['rtol']:g}, atol = {made['atol']:g}",
        ]
    )


def make_likelihood(experiment: Experiment) -> Callable[..., Likelihood]:
    """likelihood(params, indices, progress) -> Likelihood of the test examples with these indices.

    See `examples.over_repeats`. Example i depends on likelihood.seed and on i alone.
    """
    options, process = experiment.likelihood, experiment.process
    encoding = experiment.encoding._replace(flip=False, dequantize=True)
    end = _end(experiment)

    def one(params, repeat, index, label, x):
        key = jax.random.fold_in(stream(options.seed, "likelihood"), index)
        noise_key, probe_key = jax.random.split(jax.random.fold_in(key, repeat))
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

    return over_repeats(experiment, one)


def _end(experiment: Experiment) -> float:
    """likelihood.end, or where it is not given the ladder's first level, else END."""
    if experiment.likelihood.end is not None:
        return experiment.likelihood.end
    levels = experiment.process.levels
    return END if levels is None else 1.0 / levels
