"""--mode=likelihood --config.likelihood.by=bound: the variational bound of the test data, and what
each noise level has in it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.data.order import evenly
from score_jax.errors import UserError
from score_jax.evaluation.examples import examples, over_repeats, which
from score_jax.evaluation.spread import standard_errors
from score_jax.experiment import Experiment
from score_jax.hosts import leads
from score_jax.keys import stream
from score_jax.losses.decoders import Decoder, gaussian
from score_jax.losses.variational import DECODERS, bound, require_ladder
from score_jax.models.base import Params
from score_jax.pieces import drop, in_pieces
from score_jax.times import on_host
from score_jax.workdir import write_json


def check(experiment: Experiment) -> None:
    """Raises UserError for an experiment that has no bound, before anything is read."""
    require_ladder(experiment.process)
    learned = experiment.config["parameterization"]["learned_variance"]
    if experiment.likelihood.variance == "learned" and not learned:
        raise UserError(
            "config.likelihood.variance = 'learned' needs a network that was trained with "
            "config.parameterization.learned_variance = True; use small or large"
        )


def evaluate(
    experiment: Experiment,
    params: Params,
    made: dict[str, Any],
    workdir: Path,
    progress: Callable[[float], Any] = lambda fraction: None,
) -> dict[str, Any]:
    """Measures likelihood.examples of the test data, evenly spread, or all; writes bound.json.

    bits_per_dim (images: a code length, the decoder giving probabilities to the 256 gray levels;
    Ho et al. 2020, equations 5 and 13) or nats_per_dim (points, a density): the bound's total, and
    in the same unit its parts: prior (L_T), transitions [N - 1] from the cleanest step up and
    reconstruction (L_0), with the standard errors over examples, the bound's own noise included.
    Raises UserError where an example's is not finite.
    """
    options, process = experiment.likelihood, experiment.process
    data, n = experiment.on_test().data, examples(experiment)
    variance = _variance(experiment)
    made = made | {
        "seed": options.seed,
        "repeats": options.repeats,
        "variance": variance,
        "decoder": "discretized" if data.is_images else "gaussian",
        "examples": n,
        **which(data),
    }
    measure, chosen = make_bound(experiment), evenly(n, len(data.examples))

    def make(indices, tell):
        terms = measure(params, chosen[indices], tell)
        return None if terms is None else {"terms": terms}

    terms = in_pieces(workdir, "bound", made, n, options.batch_size, make, progress)["terms"]
    dimensions = math.prod(data.shape)
    unit = "bits_per_dim" if data.is_images else "nats_per_dim"
    terms = terms / (dimensions * (math.log(2.0) if data.is_images else 1.0))  # [n, R, N + 1]
    if not np.isfinite(terms).all():
        bad = int((~np.isfinite(terms)).any((1, 2)).sum())
        raise UserError(f"the bound of {bad} of {n} examples is not finite; no mean is told")
    total, _ = standard_errors(terms.sum(2), None)
    means = terms.mean((0, 1))
    errors = terms.mean(1).std(0, ddof=1) / math.sqrt(n) if n > 1 else np.zeros_like(means)
    steps = require_ladder(process)
    levels = np.arange(1, steps + 1) / steps
    found = {
        unit: float(means.sum()),
        "standard_error": total,
        "prior": float(means[0]),
        "reconstruction": float(means[1]),
        "transitions": means[2:].tolist(),
        "transitions_standard_error": errors[2:].tolist(),
        "logsnr": on_host(process.logsnr, levels).tolist(),
        "examples": n,
        "data": data.name,
        "dimensions": dimensions,
        "network_evaluations_per_example": float(steps * options.repeats),
        "made": made,
    }
    if leads():
        write_json(workdir / "bound.json", found)
    drop(workdir, "bound", made)
    return found


def report(result: dict[str, Any]) -> str:
    """The result in a few lines for the terminal."""
    made, unit = result["made"], next(u for u in ("bits_per_dim", "nats_per_dim") if u in result)
    error = result["standard_error"]
    spread = "" if error is None else f" ± {error:.3f}"
    rate = sum(result["transitions"])
    return "\n".join(
        [
            f"variational bound of {result['examples']:,} examples of {result['data']}",
            f"  {result[unit]:.3f}{spread} {unit.replace('_', ' ')}: prior {result['prior']:.4f}, "
            f"transitions {rate:.3f}, reconstruction {result['reconstruction']:.3f}",
            f"  {len(result['logsnr'])} levels, variances {made['variance']}, {made['decoder']} "
            "decoder",
        ]
    )


def make_bound(experiment: Experiment) -> Callable[..., np.ndarray]:
    """measure(params, indices, progress) -> [n, repeats, 1 + N] in nats: the prior, then the terms
    of the levels from the cleanest (the reconstruction) up.

    See `examples.over_repeats`. Example i depends on likelihood.seed and on i alone.
    """
    process, seed = experiment.process, experiment.likelihood.seed
    encoding = experiment.encoding._replace(flip=False, dequantize=False)
    variance, decoder = _variance(experiment), _decoder(experiment)

    def one(params, repeat, index, label, x):
        key = jax.random.fold_in(stream(seed, "bound"), index)
        key = jax.random.fold_in(key, repeat)
        predict = experiment.predict(experiment.net(params, label=label))
        x_0 = encoding.encode(key, x)
        found = bound(key, process, predict, x_0, variance=variance, decoder=decoder)
        return jnp.concatenate([jnp.stack([found.prior, found.reconstruction]), found.transitions])

    return over_repeats(experiment, one)


def _variance(experiment: Experiment) -> str:
    learned = experiment.config["parameterization"]["learned_variance"]
    return experiment.likelihood.variance or ("learned" if learned else "small")


def _decoder(experiment: Experiment) -> Decoder:
    if not experiment.data.is_images:
        return gaussian
    return DECODERS["discretized"](experiment.encoding.centered)
