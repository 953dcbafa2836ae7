"""What can happen to the files of a checkpoint, and whether it is noticed."""

import contextlib
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from benchmarks.command import Record
from score_jax.experiment import Experiment
from score_jax.training.checkpoints import Checkpoints
from score_jax.training.state import create

Generator = np.random.Generator


def delete(file: Path, rng: Generator) -> None:
    file.unlink()


def truncate(file: Path, rng: Generator) -> None:
    """To a random smaller size."""
    os.truncate(file, int(rng.integers(0, max(file.stat().st_size, 1))))


def flip(file: Path, rng: Generator) -> None:
    """One random bit."""
    content = bytearray(file.read_bytes())
    if content:
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    file.write_bytes(content)


DAMAGES = {"deleted": delete, "truncated": truncate, "a bit flipped": flip}


def each_file_damaged(
    experiment: Experiment, workdir: Path, damage: Callable, look: Callable[[Path], None]
) -> int:
    """look(file) with each file of the newest checkpoint damaged in turn; how many there were.

    An empty file that has nothing to lose is left out. The checkpoint is whole again afterwards.
    """
    with Checkpoints(workdir, experiment.training, read_only=True) as checkpoints:
        newest = checkpoints.folder / str(checkpoints.newest())
    good, rng, damaged = newest.with_name(".good"), np.random.default_rng(0), 0
    shutil.copytree(newest, good)
    for file in sorted(f for f in newest.rglob("*") if f.is_file()):
        before = file.read_bytes()
        damage(file, rng)
        if not file.exists() or file.read_bytes() != before:
            damaged += 1
            look(file)
        shutil.rmtree(newest)
        shutil.copytree(good, newest)
    shutil.rmtree(good)
    return damaged


def battery(experiment: Experiment, workdir: Path) -> list[Record]:
    """Each kind of damage to each file of the newest of at least two checkpoints."""
    with Checkpoints(workdir, experiment.training, read_only=True) as checkpoints:
        newest, older, *_ = checkpoints.steps()
        expected, _ = checkpoints.restore(like=create(experiment), at_most=older)
    records = []
    for name, damage in DAMAGES.items():
        recovered = []

        def look(file):
            said = io.StringIO()
            with (
                contextlib.redirect_stdout(said),
                Checkpoints(workdir, experiment.training, read_only=True) as checkpoints,
            ):
                state, _ = checkpoints.restore(like=create(experiment))
            named = f"passed over: step {newest}" in said.getvalue()
            equal = map(np.array_equal, *map(jax.tree.leaves, (state, expected)))
            recovered.append(named and all(equal))  # noqa: B023

        tried = each_file_damaged(experiment, workdir, damage, look)
        records.append(
            {"fault": f"a file of the newest checkpoint is {name}", "tried": tried,
             "as promised": sum(recovered),
             "promise": "noticed and named, the checkpoint before it used"}
        )  # fmt: skip
    return records
