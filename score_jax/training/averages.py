"""Snapshots of power-function averages, and averages of any length made of them.

    keep(workdir, step, (0.05, 0.1), averages)      # workdir/averages/<step>.safetensors
    params, made = average(workdir, step, 0.08, like=params)

A tensor's name is <sigma_rel>/<path of the parameter>. See `power_ema` for the mathematics.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from score_jax.errors import CannotWrite, UserError
from score_jax.files import whole
from score_jax.models.base import Params
from score_jax.power_ema import Profile, coefficients, exponent
from score_jax.tensors import read

FOLDER = "averages"
WELL = 0.05  # of a profile's norm: what may be left of it without a word


def keep(workdir: Path, step: int, lengths: Sequence[float], averages: Sequence[Params]) -> None:
    """Writes the averages of a step, whole or not at all. Raises CannotWrite."""
    from safetensors.numpy import save_file

    tensors = {
        f"{length!r}/{name}": np.ascontiguousarray(jax.device_get(leaf))
        for length, average in zip(lengths, averages)
        for name, leaf in flatten_dict(average, sep="/").items()
    }
    try:
        with whole(workdir / FOLDER / f"{step:09d}.safetensors") as partial:
            save_file(tensors, partial)
    except OSError as error:
        raise CannotWrite(
            f"could not keep the averages of step {step} in {workdir / FOLDER} "
            f"({error.strerror or error}). The checkpoints are whole; make room or give "
            "permission, and the same command goes on"
        ) from error


def cut(workdir: Path, step: int) -> None:
    """Deletes the snapshots beyond a step, which training makes again or, changed, does not."""
    for file in (workdir / FOLDER).glob("[0-9]*.safetensors"):
        if int(file.stem) > step:
            file.unlink()


def average(
    workdir: Path, step: int, sigma_rel: float, *, like: Params
) -> tuple[Params, dict[str, Any]]:
    """(the parameters' average of this length at the newest snapshot up to `step`, how made).

    like: gives the names and shapes. Reads one snapshot at a time. Raises UserError where there
    are none, or one is damaged or of another network, and for a length that no average has.
    """
    exponent(sigma_rel)
    files = sorted((workdir / FOLDER).glob("[0-9]*.safetensors"))
    files = [file for file in files if int(file.stem) <= step]
    if not files:
        raise UserError(
            f"config.evaluation.ema = {sigma_rel} is made of snapshots, and there are none in "
            f"{workdir / FOLDER}; train with training.power_ema = (0.05, 0.1), or leave "
            "evaluation.ema at None for the average that training.ema gave"
        )
    there = [_lengths(file) for file in files]
    profiles = [Profile(int(file.stem), s) for file, lengths in zip(files, there) for s in lengths]
    newest = int(files[-1].stem)
    weights, error = coefficients(profiles, Profile(newest, sigma_rel))
    if error > WELL:
        print(
            f"an average of length {sigma_rel} cannot be made well of {len(files)} snapshots: "
            f"{error:.0%} of its profile is left; another length or more snapshots would do better",
            flush=True,
        )
    shapes = {name: np.shape(leaf) for name, leaf in flatten_dict(like, sep="/").items()}
    total = {name: np.zeros(shape) for name, shape in shapes.items()}
    weight_of = iter(weights)
    for file, lengths in zip(files, there):
        tensors = read(file)
        for length in lengths:
            weight = next(weight_of)
            for name, shape in shapes.items():
                leaf = tensors.get(f"{length!r}/{name}")
                if leaf is None or leaf.shape != shape:
                    raise UserError(f"{file}: not of this network: {name} {shape} is not there")
                total[name] += weight * leaf
    params = unflatten_dict({name: x.astype(np.float32) for name, x in total.items()}, sep="/")
    made = {
        "sigma_rel": sigma_rel,
        "step": newest,
        "snapshots": len(files),
        "left_of_profile": error,
    }
    return params, made


def _lengths(file: Path) -> list[float]:
    """The lengths of the averages in a snapshot."""
    return sorted({float(name.split("/", 1)[0]) for name in read(file)})
