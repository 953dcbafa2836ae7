"""The samples of a run: by which parameters, how they are made, and where they are kept.

params, made = newest(experiment, workdir)
experiment, guide, made = with_guide(experiment, workdir, made)     # guides.py
samples, made = draw(experiment, workdir, params, guide, made, anew=True)
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from score_jax import plotting
from score_jax.bars import bar
from score_jax.errors import UserError
from score_jax.experiment import Experiment
from score_jax.files import arrays, whole
from score_jax.guides import digest
from score_jax.hosts import from_leader, leads
from score_jax.models.base import Params
from score_jax.pieces import drop, in_pieces
from score_jax.sampling import make_draw
from score_jax.training.averages import average
from score_jax.training.checkpoints import Checkpoints
from score_jax.training.state import create
from score_jax.workdir import fingerprint, read_json, write_json


def newest(experiment: Experiment, workdir: Path) -> tuple[Params, dict[str, Any]]:
    """The newest checkpoint's parameters, as they are sampled and measured, and which they are.

    Those of training.ema's average, or of evaluation.ema's. Raises UserError where there are none.
    """
    with Checkpoints(workdir, experiment.training, read_only=True) as checkpoints:
        checkpoints.check_none_is_lost()
        if checkpoints.newest() is None:
            raise UserError(
                f"no checkpoint in {workdir / 'checkpoints'}: train first (--mode=train), "
                "or give the --workdir of a run that was"
            )
        state = checkpoints.restore(like=create(experiment))[0]
    params, step = state.ema, int(state.step)
    ema: float | dict[str, Any] = experiment.training.ema
    if experiment.evaluation.ema is not None:
        like = jax.device_get(state.params)
        params, how_made = average(workdir, step, experiment.evaluation.ema, like=like)
        ema, step = how_made, how_made["step"]
    made = {
        "step": step,
        "parameters": "ema",
        "ema": ema,
        "parameters_sha256": digest(params),
        "dtype": experiment.computing.dtype,
    }
    return params, made


def how(experiment: Experiment, made: dict[str, Any]) -> dict[str, Any]:
    """`made` and how samples are made of these parameters, in JSON, as in samples.json."""
    options = experiment.evaluation
    calibrated = experiment.sampler.calibrate is not None
    guidance = {name: v for name, v in experiment.config["guidance"].items() if v is not None}
    is_guided = experiment.guidance.weight > 0 or guidance["name"] != "none"
    found = made | {
        "sampler": experiment.config["sampler"],
        "samples": options.samples,
        "seed": options.seed,
        "label": options.label,
        "guidance": guidance if is_guided else None,
        "given": experiment.given.sha256,
        "told": _told(experiment),
        "calibrated_on": fingerprint(experiment.data)["sha256"] if calibrated else None,
    }
    return json.loads(json.dumps(found))  # as it is read back


def _told(experiment):
    """Tells the conditions that samples are told from others."""
    if not experiment.computing.concat_condition:
        return None
    conditions = np.ascontiguousarray(experiment.on_test().data.conditions)
    return hashlib.sha256(conditions.data).hexdigest()[:16]


def draw(
    experiment: Experiment,
    workdir: Path,
    params: Params,
    guide: Params,
    made: dict[str, Any],
    *,
    anew: bool,
) -> tuple[np.ndarray, dict[str, Any]]:
    """(samples, how they were made), drawn and kept; or, unless anew, found to be there so made.

    What was drawn before a stop is not drawn again. Raises UserError where a sample is not finite.
    """
    options, made = experiment.evaluation, how(experiment, made)
    if not anew and from_leader(_are_there(workdir, made)):
        with np.load(workdir / "samples.npz", allow_pickle=False) as file:
            return file["arr_0"], read_json(workdir / "samples.json")

    size = min(options.batch_size, options.samples)
    of_all = experiment.given.sampler_of is not None  # whose samples depend on their number
    identity = {name: value for name, value in made.items() if of_all or name != "samples"}
    identity |= {"size": size}
    draw = make_draw(experiment, size, guide)

    def make(indices, tell):
        drawn = draw(params, indices, tell)
        if drawn is None:
            return None
        bad = len(drawn.finite) - np.sum(drawn.finite)
        if bad:
            raise UserError(
                f"{bad} of {len(indices)} samples hold NaN or infinity, and were not written: an "
                "adaptive sampler may need more sampler.max_evaluations or larger tolerances, any "
                "other more steps or a network that was trained longer"
            )
        return {"samples": drawn.samples, "evaluations": drawn.evaluations}

    with bar("sampling", options.samples, " samples") as shown:
        found = in_pieces(
            workdir,
            "samples",
            identity,
            options.samples,
            size,
            make,
            lambda fraction: shown.update(int(fraction * options.samples) - shown.n),
        )
    made["network_evaluations_per_sample"] = float(found["evaluations"].mean())
    if leads():
        (workdir / "samples.json").unlink(missing_ok=True)  # never beside another's samples
        with whole(workdir / "samples.npz") as partial:
            np.savez(partial, arr_0=found["samples"], **_labels(experiment))
        write_json(workdir / "samples.json", made)
    drop(workdir, "samples", identity)
    return found["samples"], made


def write_png(experiment: Experiment, samples: np.ndarray, workdir: Path) -> None:
    """The samples as PNG files, if asked for: samples/png."""
    if experiment.evaluation.png and experiment.data.is_images:
        plotting.save_all(samples, workdir / "samples" / "png")


def _labels(experiment):
    """What the samples were asked to be, for samples.npz, where they were asked anything."""
    if not experiment.asked_for:
        return {}
    indices = np.arange(experiment.evaluation.samples, dtype=np.int32)
    if experiment.computing.concat_condition:  # which test example's
        label = experiment.evaluation.label
        return {"arr_1": indices % experiment.asked_for if label is None else 0 * indices + label}
    return {"arr_1": experiment.labels(indices)}


def _are_there(workdir, made) -> bool:
    """Whether samples.npz holds samples so made."""
    found = read_json(workdir / "samples.json")
    if not isinstance(found, dict) or made != {key: found.get(key) for key in made}:
        return False
    there = arrays(workdir / "samples.npz") or {}
    return len(there.get("arr_0", ())) == made["samples"]
