"""kill -9 at random moments of a training run, which is started again and compared, bit for bit,
with one that was never killed."""

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.command import Record
from score_jax import config as configs
from score_jax.build import build, known_options
from score_jax.experiment import Experiment
from score_jax.training.checkpoints import Checkpoints
from score_jax.training.state import create

ROOT = Path(__file__).parents[1]
LOG_EVERY, CHECKPOINT_EVERY = 4, 6  # no line falls on every checkpoint, nor the reverse
PATIENCE = 300.0  # seconds that a start may take

# Small networks, few samples, many checkpoints.
SHARED = {
    "training.log_every": LOG_EVERY,
    "training.checkpoint_every": CHECKPOINT_EVERY,
    "training.sample_every": 10**6,
    "training.batch_size": 16,
    "model.features": 8,
    "evaluation.samples": 4,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "ncsn_digits": SHARED,
    "ddpm_digits": SHARED
    | {"model.blocks": 1, "model.multipliers": (1,), "model.attention": (), "model.dropout": 0.1}
    | {"data.flip": True, "sampler.steps": 5},
}


def experiment_of(config: str) -> Experiment:
    loaded = configs.load(str(ROOT / "configs" / f"{config}.py"))
    for name, value in CONFIGS[config].items():
        configs.override(loaded, name, repr(value), known_options)
    return build(loaded)


def command(config: str, workdir: Path, steps: int, **training: Any) -> list[str]:
    """launch.py to so many steps."""
    options = CONFIGS[config] | {f"training.{name}": v for name, v in training.items()}
    options["training.steps"] = steps
    file = ROOT / "configs" / f"{config}.py"
    return [
        *(sys.executable, str(ROOT / "launch.py"), f"--config={file}", f"--workdir={workdir}"),
        *(f"--config.{name}={value}" for name, value in options.items()),
    ]


def run(words: list[str]) -> subprocess.Popen:
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def said(process: subprocess.Popen) -> str:
    """What it wrote to stderr."""
    assert process.stderr is not None  # see `run`
    return process.stderr.read()


class Reference:
    """An uninterrupted run, all of whose checkpoints are kept: what each of them must be."""

    def __init__(self, config: str, workdir: Path, steps: int):
        self.experiment = experiment_of(config)
        process = run(command(config, workdir, steps, keep=steps))
        if process.wait() != 0:
            raise RuntimeError(said(process))
        self.lines = lines(workdir)
        self.digests = {step: self.digest(workdir, step) for step in self.steps(workdir)}
        self.samples = np.load(workdir / "samples.npz")["arr_0"]

    def steps(self, workdir: Path) -> list[int]:
        with Checkpoints(workdir, self.experiment.training, read_only=True) as checkpoints:
            return checkpoints.steps()

    def digest(self, workdir: Path, step: int) -> str:
        """Of all that a checkpoint holds."""
        with Checkpoints(workdir, self.experiment.training, read_only=True) as checkpoints:
            state, pending = checkpoints.restore(like=create(self.experiment), at_most=step)
        digest = hashlib.sha256(json.dumps([int(state.step), pending]).encode())
        for leaf in jax.tree.leaves(jax.device_get(state)):
            digest.update(np.ascontiguousarray(leaf).data)
        return digest.hexdigest()

    def differs(self, workdir: Path) -> str | None:
        """What is not as it was here: the newest checkpoint, or the log; None if all is."""
        newest = self.steps(workdir)[0]
        if self.digest(workdir, newest) != self.digests[newest]:
            return f"the checkpoint of step {newest}"
        found = lines(workdir)
        if found != self.lines[: len(found)]:
            return f"the log, of {len(found)} lines"
        if len(found) < newest // LOG_EVERY:
            return f"the log, whose last lines before step {newest} are lost"
        return None


def lines(workdir: Path) -> list[dict]:
    """metrics.jsonl without the timings; a last line that was cut off by a kill left out."""
    file = workdir / "metrics.jsonl"
    whole = [t for t in file.read_text().splitlines(True) if t[-1] == "\n"] if file.exists() else []
    found = [json.loads(text) for text in whole]
    return [{k: v for k, v in line.items() if k != "steps_per_second"} for line in found]


def battery(
    config: str,
    folder: Path,
    kills: int,
    in_save: int,
    steps: int,
    tell: Callable[[], Any],
    seed: int = 0,
) -> list[Record]:
    """`kills` of them, at least `in_save` while a checkpoint is written; one record each.

    A run is killed at a random moment after the first checkpoint that it has written since it
    was started again; one in five, besides, while it starts. A run that has come to its end is
    compared as well, with its samples, and the next one begins.
    """
    rng = random.Random(seed)
    reference = Reference(config, folder / "reference", steps)
    records: list[Record] = []
    runs = 0
    while len(records) < kills:
        runs += 1
        workdir, done = folder / f"run_{runs}", False
        while not done and len(records) < kills:
            words = command(config, workdir, steps)
            if rng.random() < 0.2:
                kill_while_it_starts(words, rng)
            missing = in_save - sum(r["moment"] == "saving" for r in records)
            wait_for_save = rng.random() < missing / max(1, 0.6 * (kills - len(records)))
            done, moment = kill_once(words, workdir, reference, wait_for_save, rng)
            if not done:
                records.append(
                    {"config": config, "moment": moment, "step": reference.steps(workdir)[0],
                     "differs": reference.differs(workdir)}
                )  # fmt: skip
                tell()
        finish(command(config, workdir, steps), workdir, reference)
    return records


def kill_while_it_starts(words: list[str], rng: random.Random) -> None:
    process = run(words)
    time.sleep(rng.uniform(0.0, 6.0))
    process.kill()
    process.communicate()


def kill_once(words, workdir, reference, wait_for_save, rng) -> tuple[bool, str]:
    """(whether the run has ended before it was killed, what it was doing)."""
    before = set(names(workdir))
    process, deadline = run(words), time.time() + PATIENCE
    while process.poll() is None and set(names(workdir)) <= before:
        if time.time() > deadline:
            process.kill()
            raise RuntimeError(f"no new checkpoint in {workdir} within {PATIENCE} seconds")
        time.sleep(0.005)
    if wait_for_save:
        while process.poll() is None and not writing(workdir):
            time.sleep(0.0005)
        time.sleep(rng.uniform(0.0, 0.1))
    else:
        time.sleep(rng.uniform(0.0, 1.5))
    process.kill()
    error = process.communicate()[1]
    if process.returncode not in (0, -9):
        raise RuntimeError(error)
    return process.returncode == 0, "saving" if writing(workdir) else "between saves"


def finish(words, workdir, reference) -> None:
    """Runs to the end, which must be the reference's."""
    process = run(words)
    if process.wait() != 0:
        raise RuntimeError(said(process))
    wrong = reference.differs(workdir)
    if wrong or not np.array_equal(np.load(workdir / "samples.npz")["arr_0"], reference.samples):
        raise RuntimeError(f"{workdir} has not ended as it should: {wrong or 'the samples'}")


def names(workdir: Path) -> list[str]:
    folder = workdir / "checkpoints"
    return [name for name in os.listdir(folder) if name.isdigit()] if folder.is_dir() else []


def writing(workdir: Path) -> bool:
    """Whether a checkpoint is half written."""
    folder = workdir / "checkpoints"
    with_tmp = os.listdir(folder) if folder.is_dir() else []
    return any(name.startswith(".writing.") for name in with_tmp)
