"""The pictures that a run leaves in workdir/samples, and what they show, as JSON beside them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from score_jax import plotting
from score_jax.bars import bar
from score_jax.data.order import evenly
from score_jax.errors import UserError
from score_jax.experiment import Experiment
from score_jax.hosts import from_leader, leads
from score_jax.models.base import Params
from score_jax.probability_flow import norm
from score_jax.trajectories import trajectory
from score_jax.workdir import read_json, write_json

GRID = 64  # samples in a picture
COLUMNS = 20  # at most, one for each class
UNDER_WAY = 4  # samples that are seen under way, two rows each
# What a trajectory depends on, of how samples were made.
TRAJECTORY: tuple[str, ...] = (
    "step",
    "ema",
    "parameters_sha256",
    "dtype",
    "sampler",
    "seed",
    "label",
)
TRAJECTORY += ("calibrated_on", "guidance", "given", "guide", "told")


def grid(experiment: Experiment, samples: np.ndarray, workdir: Path) -> Path:
    """samples/final.png: the first samples, or all points beside the data; its path. And `real`.

    Where samples are given an image, it and what is known of it come first; where they are asked
    to be of few classes in turn, there is a column for each; where they are told conditions that
    are images, each is beside its own.
    """
    path = workdir / "samples" / "final.png"
    plotting.save(picture(experiment, samples), path)
    real(experiment, workdir)
    return path


def real(experiment: Experiment, workdir: Path) -> None:
    """samples/data.png: as many training images as `grid` shows samples, to be held beside them.

    They are spread evenly over all, and where the samples have a column for each class, in each
    column of that class. Of points there is none: they stand beside the samples.
    """
    data = experiment.data
    n = min(GRID, experiment.evaluation.samples, len(data.examples))
    if not data.is_images or n == 0:
        return
    chosen, columns = evenly(n, len(data.examples)), _columns(experiment)
    if columns is not None and data.labels is not None:
        of = [np.flatnonzero(data.labels == label) for label in range(columns)]
        rows = -(-n // columns)
        if min(map(len, of)) >= rows:
            chosen = np.stack([each[evenly(rows, len(each))] for each in of], axis=1).ravel()[:n]
    shown = plotting.grid(data.examples[chosen], columns=columns)
    plotting.save(shown, workdir / "samples" / "data.png")


def picture(experiment: Experiment, samples: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8: what `grid` saves."""
    if not experiment.data.is_images:
        return plotting.scatter(samples, experiment.data.examples)
    samples, given = samples[:GRID], experiment.given.shown
    if given is not None:
        return plotting.grid(np.concatenate([given, samples]))
    conditions = experiment.data.conditions if experiment.computing.concat_condition else None
    if conditions is not None and conditions.ndim == 4:
        low = experiment.encoding.low
        told = experiment.labels(np.arange(len(samples)))
        few = told.shape[-1] < samples.shape[-1]
        told = told[..., : 1 if few else samples.shape[-1]]
        told = experiment.encoding.decode(low + (np.nan_to_num(told) + 1.0) * (1.0 - low) / 2.0)
        told = np.broadcast_to(told, samples.shape)
        pairs = np.stack([told, samples], axis=1).reshape(-1, *samples.shape[1:])
        return plotting.grid(pairs, columns=2 * max(1, math.isqrt(len(samples)) // 2 * 2))
    return plotting.grid(samples, columns=_columns(experiment))


def _columns(experiment: Experiment) -> int | None:
    """As many as there are classes, where samples are asked to be of few in turn."""
    if experiment.computing.concat_condition or experiment.evaluation.label is not None:
        return None
    return experiment.asked_for if 1 < experiment.asked_for <= COLUMNS else None


def under_way(
    experiment: Experiment,
    params: Params,
    made: dict[str, Any],
    workdir: Path,
    guide: Params = None,
) -> None:
    """samples/trajectory.png: the first samples under way, unless it is there; none of points.

    Two rows a sample, x_t over E[x_0 | x_t], columns of falling noise. x_t is divided by
    √(α² + σ²), so that its noise stays within what a picture shows. guide: see `make_draw`.
    It takes as long as the samples themselves, so it is said.
    """
    if not experiment.data.is_images:
        return
    made = {name: value for name, value in made.items() if name in TRAJECTORY}
    file = workdir / "samples" / "trajectory.json"
    if from_leader(_is_there(file, made)):
        return
    try:
        with bar("drawing how samples come about", 100, "%") as shown:

            def tell(fraction):
                if fraction == 0.0 and shown.disable:
                    print(f"drawing how samples come about: {file.with_suffix('.png')}", flush=True)
                shown.update(int(100 * fraction) - shown.n)

            path = trajectory(experiment, params, guide=guide, samples=UNDER_WAY, progress=tell)
    except UserError as error:
        print(f"no picture of samples under way: {error}", flush=True)
        return
    if leads():
        n, columns = path.x.shape[:2]
        decode = experiment.encoding.decode
        x = path.x / norm(experiment.process, path.times)[:, None, None, None]
        rows = np.stack([decode(np.concatenate(list(part))) for part in (x, path.x0)])
        file.unlink(missing_ok=True)  # never beside another's picture
        rows = rows.reshape(2, n, columns, *experiment.data.shape).swapaxes(0, 1)
        plotting.save(
            plotting.grid(rows.reshape(-1, *experiment.data.shape), columns=columns),
            workdir / "samples" / "trajectory.png",
        )
        found = {"samples": n, "times": path.times.tolist(), "logsnr": path.logsnr.tolist()}
        write_json(file, found | {"made": made})


def _is_there(file: Path, made: dict[str, Any]) -> bool:
    found = read_json(file)
    of = {"samples": UNDER_WAY, "made": json.loads(json.dumps(made))}
    same = isinstance(found, dict) and of == {name: found.get(name) for name in of}
    return same and file.with_suffix(".png").is_file()


def neighbors(
    experiment: Experiment, samples: np.ndarray, found: dict[str, Any], workdir: Path
) -> None:
    """samples/neighbors.png: the samples nearest to training examples, each beside the nearest.

    found: `memorization` of evaluation.json.
    """
    examples = experiment.data.examples
    rows = [
        image
        for sample, indices in zip(found["shown"], found["neighbors"])
        for image in (samples[sample], *(examples[i] for i in indices))
    ]
    columns = 1 + len(found["neighbors"][0])
    picture = plotting.grid(np.stack(rows), columns=columns)
    plotting.save(picture, workdir / "samples" / "neighbors.png")
    about = {
        "samples": len(found["shown"]),
        "of": found["samples"],
        "neighbors": columns - 1,
        "features": "the pixels themselves, root mean square difference in gray levels",
        "distances": found["distances"],
    }
    write_json(workdir / "samples" / "neighbors.json", about)
