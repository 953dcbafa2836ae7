"""A run's folder: which config made it, and who started it when.

    config.json     the config as resolved
    data.json       what tells its data from others
    starts.jsonl    one line a start: time, mode, versions, devices, what changed in the config
    metrics.jsonl   one line every training.log_every steps
    tensorboard/    the same, and the sample grids, for TensorBoard
    checkpoints/    see training/checkpoints.py
    averages/       snapshots of training.power_ema, see training/averages.py
    held_out.jsonl  the loss on the test data, a line every training.sample_every steps
    samples/        grids drawn during and after training; trajectories; nearest neighbors
    pieces/         what a stopped sample, evaluate or likelihood has done so far
    samples.npz     the samples, uint8 [N, H, W, C] under the key arr_0; samples.json: how made
    evaluation.json what --mode=evaluate measured; reference.npz, classifier.npz: what it
                    compared with, and by whose features
    classifier/     what --mode=classifier trained, a run of its own, and accuracy.json
    likelihood.json what --mode=likelihood measured; bound.json: by the variational bound
    report.html     all of this, to be looked at
    replay_step_<step>.json  what --replay_step found

This module writes the first three; the others know their own.
"""

import contextlib
import datetime
import fcntl
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from score_jax.data.base import Dataset
from score_jax.errors import UserError
from score_jax.files import whole
from score_jax.hosts import from_leader, on_leader
from score_jax.parallel import most

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ml-collections", "numpy")

PLACES = ("data.path", "data.data_dir", "data.cache_dir")  # where data lie, not what they are

# What may change when a run goes on: how long, how fast, how often, and how it is sampled.
# All else decides what the parameters are and what they have seen.
FREE = (
    "sampler",
    "evaluation",
    "likelihood",
    "test",
    "guidance",
    "classifier",
    "training",
    "model.dtype",
    "model.remat",
    *PLACES,
)
FIXED = ("training.seed", "training.batch_size", "training.steps_per_call", "training.power_ema")
SEEN = ("data.centered", "data.shape")  # what data the network takes, were there any

# Options that older runs know nothing of, and what they are without them.
SINCE = {
    "data.condition": "none",
    "test.condition": "none",
    "model.concat_condition": False,
    "model.condition_dropout": 0.0,
}

MAKING = ("train", "import")  # the modes that make a run


def read_json(path: Path) -> Any:
    """What the JSON file holds, or None where there is none or it is damaged."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def write_json(path: Path, value: Any) -> None:
    """Writes value as JSON, whole or not at all; NaN and infinity by their names."""
    with whole(path) as partial:
        partial.write_text(json.dumps(_strict(value), indent=2, allow_nan=False) + "\n")


def _strict(value: Any) -> Any:
    """The value as JSON has it, which knows no NaN and no infinity: by their names."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return value


@contextlib.contextmanager
def open_workdir(
    workdir: Path, config: Mapping[str, Any], mode: str, data: Dataset
) -> Iterator[None]:
    """Makes the folder this run's, or finds that it is; notes the start; keeps others out.

    In the block no other process can train in it (MAKING), or draw and measure (the other
    modes). Raises UserError, with nothing written, if the folder was made by another config or
    from other data, is not a folder of ours, (in modes that do not make one) holds no run, another
    process is at work in it, or the hosts' configs or data differ. Where the run or the config has
    no data (`data.blank`) any of the same shape will do, and train settles which they are.
    """
    with contextlib.ExitStack() as stack:

        def enter():
            _check(workdir, config, mode, data)
            with _writing(workdir):
                workdir.mkdir(parents=True, exist_ok=True)
                stack.enter_context(_lock(workdir, "training" if mode in MAKING else "results"))
            changed, new, lost = _check(workdir, config, mode, data)  # again: now it is ours
            for name in lost:
                print(f"{workdir / name} is missing or damaged; made anew", flush=True)
            if changed:
                print(f"going on with other options than before:\n{_table(changed)}", flush=True)
            with _writing(workdir):
                with open(workdir / "starts.jsonl", "a") as file:
                    file.write(json.dumps(_start(mode, changed)) + "\n")
                for name, value in new.items() if mode != "replay" else ():
                    if _read_sections(workdir / name) != value:
                        write_json(workdir / name, value)

        _check_hosts(config, data)
        on_leader(enter)
        yield


def _check_hosts(config: Mapping[str, Any], data: Dataset) -> None:
    """Raises UserError on all hosts unless all have the same config and the same data."""
    mine = json.loads(json.dumps([config, fingerprint(data)]))
    leader_s = from_leader(mine)
    options = _differences(leader_s[0], mine[0])
    options = {name: pair for name, pair in options.items() if name not in PLACES}
    differs = bool(options) or leader_s[1] != mine[1]
    if int(most(differs)):
        what = _table(options) if options else "  the data" if differs else "  see there"
        raise UserError(f"the processes of this run do not have the same config and data:\n{what}")


def check_run(workdir: Path, config: Mapping[str, Any], data: Dataset) -> None:
    """Raises UserError unless the folder holds a run of this config and these data."""
    _check(workdir, json.loads(json.dumps(config)), "sample", data)


@contextlib.contextmanager
def locked(workdir: Path, what: str) -> Iterator[None]:
    """Keeps other processes from the same work ("training" or "results") in the same folder.

    The operating system's lock, which ends with the process. Raises UserError on all hosts of a
    run, naming the holder, if another process has it; without locks a disk is used all the same.
    """
    with contextlib.ExitStack() as stack:
        on_leader(lambda: stack.enter_context(_lock(workdir, what)))
        yield


@contextlib.contextmanager
def _lock(workdir: Path, what: str) -> Iterator[None]:
    with open(workdir / f".{what}.lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            doing = {"training": "trains", "results": "draws or measures"}[what]
            raise UserError(
                f"another process {doing} in {workdir} ({holder}); wait for it, stop it, or give "
                "another --workdir"
            ) from error
        except OSError as error:
            print(f"{workdir} is on a disk without locks ({error.strerror})", flush=True)
        file.truncate(0)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        file.write(f"process {os.getpid()} on {platform.node()} since {now}")
        file.flush()
        yield


@contextlib.contextmanager
def _writing(workdir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to {workdir} ({error}); give another --workdir") from error


def _check(workdir, config, mode, data) -> tuple[dict, dict, list[str]]:
    """(options that changed, what config.json and data.json are to hold, which are damaged)."""
    config = json.loads(json.dumps(config))  # tuples become lists, as in a file
    new = {"config.json": config, "data.json": {"data": fingerprint(data)}}
    lost, changed, fixed = [], dict[str, Any](), dict[str, Any]()
    only_draws, imported = _has_none(config), _is_imported(workdir)
    if (workdir / "starts.jsonl").is_file():
        for name, value in new.items():
            old = _read_sections(workdir / name)
            if old is None:
                lost.append(name)
                continue
            differences = _differences(old, value)
            fixed |= {
                n: pair for n, pair in differences.items() if not _is_free(n, only_draws, imported)
            }
            # A section of which the run's program knew nothing has not changed.
            changed |= {n: pair for n, pair in differences.items() if n.split(".")[0] in old}
        if fixed:
            raise UserError(
                f"{workdir} holds another run:\n{_table(fixed)}\n"
                "Give another --workdir, or the values it was made with."
            )
        if (only_draws or imported) and mode not in MAKING:
            new, lost = {}, []  # what the data are is not ours to say, or still to be said
    elif mode not in MAKING:
        raise UserError(
            f"no run in {workdir}: train it first (--mode=train), or give its --workdir"
        )
    elif workdir.exists() and (not workdir.is_dir() or any(workdir.glob("[!.]*"))):
        raise UserError(f"{workdir} exists and is not a run of ours; give another --workdir")
    return changed, new, lost


def fingerprint(data: Dataset) -> dict[str, Any]:
    """What tells one data set from another: number, shape, and a digest of some examples."""
    every = max(1, len(data.examples) // 1000)
    digest = hashlib.sha256(np.ascontiguousarray(data.examples[::every]).data)
    if data.conditions is not None:
        digest.update(np.ascontiguousarray(data.conditions[::every]).data)
    return {
        "examples": len(data.examples),
        "shape": list(data.shape),
        "sha256": digest.hexdigest()[:16],
    }


def _read_sections(path: Path) -> dict[str, Any] | None:
    """The sections in a file of ours; None where it is missing or damaged."""
    value = read_json(path)
    return value if _is_config(value) else None


def _is_config(value) -> bool:
    return isinstance(value, dict) and all(isinstance(v, dict) for v in value.values())


def _start(mode, changed):
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "mode": mode,
        "argv": sys.argv[1:],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "devices": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
        "changed": {name: list(pair) for name, pair in changed.items()},
    }


def _differences(old, new) -> dict[str, tuple[Any, Any]]:
    """{"section.option": (old, new)} where two configs differ."""
    names = {(s, o) for config in (old, new) for s, options in config.items() for o in options}
    pairs = {f"{s}.{o}": (old.get(s, {}).get(o), new.get(s, {}).get(o)) for s, o in sorted(names)}
    pairs = {
        n: (SINCE.get(n), new) if old is None else (old, new) for n, (old, new) in pairs.items()
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _is_free(name: str, only_draws: bool, imported: bool) -> bool:
    section = name.split(".")[0]
    if section == "data" and (only_draws or imported):
        return name not in SEEN
    return (imported or name not in FIXED) and (name in FREE or section in FREE)


def _is_imported(workdir: Path) -> bool:
    """Whether the run's parameters come from elsewhere, and were never trained here."""
    config, data = (_read_sections(workdir / name) for name in ("config.json", "data.json"))
    return _has_none(config) and (data is None or data["data"].get("examples") == 0)


def _has_none(config: Mapping[str, Any] | None) -> bool:
    """Whether a run has no data: its parameters come from elsewhere, or it only draws samples."""
    return config is not None and config.get("data", {}).get("name") == "blank"


def _table(changed) -> str:
    lines = (f"  {name}: {old!r} there, {new!r} here" for name, (old, new) in changed.items())
    return "\n".join(lines)
