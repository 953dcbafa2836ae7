"""--mode=evaluate: samples beside real data, by a protocol that is written down with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from score_jax import held_out
from score_jax.errors import UserError
from score_jax.evaluation import memorization
from score_jax.evaluation.features import (
    Extractor,
    Features,
    as_arrays,
    from_arrays,
    make_extractor,
    rows,
)
from score_jax.evaluation.measure import compare
from score_jax.evaluation.reference import Reference, make_reference, read_reference
from score_jax.experiment import Experiment
from score_jax.hosts import from_leader, leads
from score_jax.metrics.frechet import moments
from score_jax.metrics.kernel import median_distance
from score_jax.models.base import Params
from score_jax.pieces import drop, in_pieces
from score_jax.workdir import write_json

PIECE = 256  # images at a time


def prepare(experiment: Experiment, workdir: Path) -> Extractor:
    """The extractor; and what is asked for by name is found, before samples are drawn.

    Raises UserError where it is not, see `make_extractor` and `read_reference`.
    """
    extractor = make_extractor(experiment, workdir)
    if experiment.evaluation.reference is not None:
        read_reference(Path(experiment.evaluation.reference), extractor)
    return extractor


def evaluate(
    experiment: Experiment,
    extractor: Extractor,
    params: Params,
    samples: np.ndarray,
    made: dict[str, Any],
    workdir: Path,
    progress: Callable[[str, float], Any] = lambda what, fraction: None,
) -> dict[str, Any]:
    """Measures samples, writes workdir/evaluation.json and returns what it holds.

    metrics: all samples against the real data, or against config.evaluation.reference; what needs
    the real examples one by one takes as many as `used` says, of each.
    same_number: the figures of m samples, of m real examples and of m of noise (uniform bytes, or
    draws of the prior for points) against m other real examples, m half of those whose features
    the reference keeps or all samples: figures of finite sets depend on their number, so these
    compare with each other. held_out: the loss on the test data, all of them. Features are made
    in pieces that are kept until all is done, on every host; progress is told what is done.
    Raises UserError where the reference holds another number of features than the extractor gives.
    """
    reference = reference_of(experiment, extractor, workdir, part_of(progress, "real data"))
    seen = _features_of(samples, extractor, made, workdir, part_of(progress, "samples"))
    wide, given = seen.values.shape[1], len(reference.moments.mean)
    if wide != given:
        raise UserError(
            f"config.evaluation.reference = {experiment.evaluation.reference} holds {given:,} "
            f"features, and {extractor.name} gives {wide:,}"
        )
    progress("figures", 0.0)
    line = _held_out(experiment, params)
    result = None
    if leads():
        real = None if reference.some is None else reference.some.values
        width = None if real is None else median_distance(real, real)  # one for all columns
        found = compare(seen, real, reference.moments, kind=extractor.kind, bandwidth=width)
        result = {
            "features": {
                "kind": extractor.kind,
                "name": extractor.name,
                "dimensions": seen.values.shape[1],
                "sha256": extractor.identity.get("sha256"),
            },
            "reference": {
                "data": reference.settings["data"],
                "examples": reference.moments.count or None,
                "file": experiment.evaluation.reference,
                "sha256": reference.settings["sha256"],
            },
            "samples": len(samples),
            "metrics": found.metrics | _agreement(experiment, extractor, seen),
            "used": found.used,
            "same_number": _same_number(experiment, extractor, reference, seen, width),
            "left_out": found.left_out,
            "memorization": None,
            "held_out": line,
            "protocol": _protocol(experiment) | _numbers(found.used),
            "made": made,
        }
        if experiment.data.is_images and len(experiment.data.examples):
            flip = experiment.encoding.flip
            figures, shown = memorization.compare(
                samples, experiment.data, experiment.test, flip=flip
            )
            result["memorization"] = figures | {
                "shown": shown[0].tolist(),
                "neighbors": shown[1].indices.tolist(),
                "distances": shown[1].distances.tolist(),
            }
        write_json(workdir / "evaluation.json", result)
    result = from_leader(result)
    drop(workdir, "features", _identity(extractor, made))
    return result


def _agreement(experiment, extractor, seen):
    """How many samples the classifier takes for what they were asked to be, where it knows."""
    if extractor.kind != "classifier" or experiment.computing.concat_condition:
        return {}
    if not experiment.asked_for or experiment.evaluation.label == -1:
        return {}
    asked = experiment.labels(np.arange(len(seen.values)))
    share, n = float(np.mean(seen.logits.argmax(1) == asked)), len(asked)
    return {"class_agreement": {"value": share, "standard_error": (share * (1 - share) / n) ** 0.5}}


def report(result: dict[str, Any]) -> str:
    """The result as a table for the terminal."""
    same = result["same_number"]
    against = result["reference"]["examples"]
    lines = [
        f"{result['samples']:,} samples against "
        + (f"{against:,} of " if against else "")
        + f"{result['reference']['data']}, in {result['features']['name']}"
    ]
    head = ["", f"{result['samples']:,} samples"]
    columns = [result["metrics"]]
    if same is not None:
        n = f"{same['examples']:,}"
        head += [f"{n} samples", f"{n} real", f"{n} noise"]
        columns += [same[f"{who}_against_real"] for who in ("samples", "real", "noise")]
    table = [head] + [
        [name, *(_shown(column.get(name)) for column in columns)] for name in result["metrics"]
    ]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    for row in table:
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))
        lines.append("  " + "  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    if same is not None:
        lines.append(f"  (the columns of {same['examples']:,} compare with each other)")
    for name, why in result["left_out"].items():
        lines.append(f"  {name}: left out, {why}")
    memory = result["memorization"]
    if memory is not None:
        apart = memory["median_distance_of_test"]
        beside = "" if apart is None else f", of test examples {apart:.1f}"
        lines.append(
            f"  median distance to the nearest training example, in gray levels: "
            f"{memory['median_distance']:.1f}{beside}; exact copies: {memory['copies']}"
        )
    return "\n".join(lines)


def part_of(progress: Callable[[str, float], Any], what: str) -> Callable[[float], Any]:
    """progress for one part of the work."""
    return lambda fraction: progress(what, fraction)


def reference_of(
    experiment: Experiment,
    extractor: Extractor,
    workdir: Path,
    progress: Callable[[float], Any] = lambda fraction: None,
) -> Reference:
    """What samples are compared with: config.evaluation.reference, or the data's, made once."""
    path = experiment.evaluation.reference
    if path is not None:
        return read_reference(Path(path), extractor)
    return make_reference(experiment, extractor, workdir / "reference.npz", progress)


def _identity(extractor: Extractor, made: dict[str, Any]) -> dict[str, Any]:
    return {"made": made, "extractor": extractor.identity}


def _features_of(samples, extractor, made, workdir, progress) -> Features:
    def make(indices, tell):
        return as_arrays(extractor.extract(samples[indices.start : indices.stop]))

    identity = _identity(extractor, made)
    found = in_pieces(workdir, "features", identity, len(samples), PIECE, make, progress)
    return from_arrays(found)


def same_number(
    experiment: Experiment, extractor: Extractor, reference: Reference, n: int
) -> tuple[int, dict[str, Features]]:
    """(m, what to compare with the reference's first m features beside m <= n samples).

    m: half of those features at most. real_against_real: m other real ones. noise_against_real:
    m of noise. Nothing where m < 2.
    """
    real = reference.some
    m = 0 if real is None else min(n, len(real.values) // 2)
    if real is None or m < 2:
        return m, {}
    noise = extractor.extract(_noise(experiment, m))
    return m, {"real_against_real": rows(real, m, 2 * m), "noise_against_real": noise}


def _same_number(experiment, extractor, reference, seen, width) -> dict[str, Any] | None:
    m, others = same_number(experiment, extractor, reference, len(seen.values))
    if not others:
        return None
    others["samples_against_real"] = rows(seen, 0, m)
    first = reference.some.values[:m]
    real = moments(first)
    return {"examples": m} | {
        name: compare(features, first, real, kind=extractor.kind, bandwidth=width).metrics
        for name, features in others.items()
    }


def _noise(experiment: Experiment, n: int) -> np.ndarray:
    rng = np.random.default_rng(experiment.evaluation.seed)
    shape = (n, *experiment.data.shape)
    if experiment.data.is_images:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    noise = float(experiment.process.sigma(1.0)) * rng.standard_normal(shape)
    return noise.astype(np.float32)


def _held_out(experiment: Experiment, params: Params) -> dict[str, Any] | None:
    """The loss by noise level on all of the test data."""
    if experiment.test is None or not leads():
        return None
    measure = held_out.make_measure(experiment)
    return held_out.summary(experiment, measure(params, range(len(experiment.test.examples))))


def _protocol(experiment: Experiment) -> dict[str, Any]:
    images = experiment.data.is_images
    return {
        "samples": "all that were drawn, sample i from (seed, i), none left out",
        "gray_levels": "clipped, rounded to the nearest of 0 .. 255" if images else "none",
        "resize": "TensorFlow 1's bilinear to 299x299, without antialiasing"
        if experiment.evaluation.features == "inception"
        else "none",
        "fewer_than_50000_were_meant": experiment.evaluation.allow_fewer,
        "jax": jax.__version__,
        "devices": f"{jax.device_count()} {jax.devices()[0].device_kind}",
    }


def _numbers(used: dict[str, int]) -> dict[str, str]:
    """How many examples go into the figures that need them one by one, in words."""
    if not used:
        return {}
    return {
        "kernel_distance": f"{used['kernel']:,} samples and as many real examples, in blocks",
        "precision_to_mmd": f"{used['pairs']:,} samples and as many real examples",
    }


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        error = next(e for name, e in value.items() if name != "value")
        return f"{value['value']:.4g} ± {error:.2g}"
    return f"{value:.4g}"
