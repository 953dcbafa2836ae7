"""A run's folder, read: what is missing is empty, what is damaged is passed over and named."""

import base64
import json
import re
import shlex
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from score_jax.errors import UserError
from score_jax.report.values import mapping, number
from score_jax.workdir import read_json

OBJECTS = ("data", "samples", "evaluation", "likelihood", "bound")
MOST_GRIDS = 12
MOST_BYTES = 3_000_000  # of the grids over time, together


class Picture(NamedTuple):
    """A PNG as it lies in the folder. pixels: uint8 [H, W, 3]."""

    png: bytes
    pixels: np.ndarray

    @property
    def uri(self) -> str:
        """The PNG as a data: URI, so that the page needs no other file."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


class Run(NamedTuple):
    """All of a run that the report shows.

    json: what the files of one object hold, by name without suffix, {} where there is none.
    metrics, held_out: lines in order of their steps, the last one of each step; starts: lines.
    grids: (step, picture) over training, chosen of `grids_made`. damaged: what was passed over.
    hints: the options that a mode wants, None for a mode that this run cannot have.
    """

    workdir: Path
    name: str
    config: dict[str, dict[str, Any]]
    json: dict[str, dict[str, Any]]
    starts: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    grids: list[tuple[int, Picture]]
    grids_made: int
    pictures: dict[str, Picture]
    damaged: list[str]
    hints: Mapping[str, Mapping[str, Any] | None]

    def command(self, mode: str) -> str | None:
        """The command line that runs a mode on this folder, for a shell; None where none does."""
        options = self.hints.get(mode, {})
        if options is None:
            return None
        config, workdir = self.workdir / "config.json", self.workdir
        words = [f"--config={config}", f"--workdir={workdir}", f"--mode={mode}"]
        guidance = self.config.get("guidance", {}).get("name", "none")
        if guidance != "none":  # whose samples are of one image
            words.append("--config.guidance.name=none")
        words += [f"--config.{name}={value}" for name, value in options.items()]
        return shlex.join(["python", "launch.py", *words])


def read_run(workdir: Path, hints: Mapping[str, Mapping[str, Any] | None]) -> Run:
    """The run in a folder. Raises UserError for a folder without a config."""
    config = read_json(workdir / "config.json")
    if not isinstance(config, dict) or not all(isinstance(s, dict) for s in config.values()):
        raise UserError(
            f"{workdir} is not a workdir: expected the folder of a run, with its config.json; "
            "give the --workdir of a run that was trained or imported"
        )
    damaged: list[str] = []
    objects = {name: _object(workdir / f"{name}.json", damaged) for name in OBJECTS}
    pictures = {}
    for name in ("final", "data", "trajectory", "neighbors"):
        pictures[name] = _picture(workdir / "samples" / f"{name}.png", damaged)
        objects[f"samples/{name}"] = _object(workdir / "samples" / f"{name}.json", damaged)
    paths = _grids(workdir / "samples")
    grids = [(step, _picture(path, damaged)) for step, path in _some(paths)]
    return Run(
        workdir=workdir,
        name=workdir.resolve().name,
        config=config,
        json=objects,
        starts=_lines(workdir / "starts.jsonl", damaged),
        metrics=_by_step(_lines(workdir / "metrics.jsonl", damaged)),
        held_out=_by_step(_lines(workdir / "held_out.jsonl", damaged)),
        grids=[(step, picture) for step, picture in grids if picture],
        grids_made=len(paths),
        pictures={name: picture for name, picture in pictures.items() if picture},
        damaged=damaged,
        hints=hints,
    )


def evenly(n: int, most: int) -> list[int]:
    """At most `most` (>= 2) of the indices 0 ... n - 1, evenly spread, both ends among them."""
    return sorted({round(i) for i in np.linspace(0, n - 1, min(n, most))})


def _object(path, damaged):
    value = read_json(path)
    if not isinstance(value, dict) and path.exists():
        damaged.append(path.name)
    return mapping(value)


def _lines(path, damaged):
    """The objects in a file of one a line."""
    if not path.is_file():
        return []
    found, bad = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if isinstance(value, dict):
            found.append(value)
        else:
            bad += 1
    if bad:
        damaged.append(f"{bad} line{'s' * (bad > 1)} of {path.name}")
    return found


def _by_step(lines):
    steps = {int(line["step"]): line for line in lines if number(line.get("step")) is not None}
    return [{**steps[step], "step": step} for step in sorted(steps)]


def _grids(folder) -> list[tuple[int, Path]]:
    """(step, path) of the grids drawn in training, in order."""
    found = ((re.fullmatch(r"step_(\d+)", path.stem), path) for path in folder.glob("step_*.png"))
    return sorted((int(match[1]), path) for match, path in found if match)


def _some(paths):
    """Of all grids those to show: MOST_GRIDS, or as many as fit MOST_BYTES, but two at least."""
    for most in range(MOST_GRIDS, 1, -1):
        chosen = [paths[i] for i in evenly(len(paths), most)] if paths else []
        if sum(path.stat().st_size for _, path in chosen) <= MOST_BYTES:
            break
    return chosen


def _picture(path, damaged) -> Picture | None:
    if not path.is_file():
        return None
    png = path.read_bytes()
    try:
        with Image.open(BytesIO(png), formats=["PNG"]) as image:
            return Picture(png, np.asarray(image.convert("RGB")))
    except Exception:  # Pillow raises a dozen kinds
        damaged.append(f"samples/{path.name}")
        return None
