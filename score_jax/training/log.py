"""The numbers and pictures of a run: metrics.jsonl, held_out.jsonl, TensorBoard's event files."""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from score_jax.errors import CannotWrite
from score_jax.files import whole


class CannotLog(CannotWrite):
    """The log could not be written; the checkpoints are untouched."""


class Log:
    """Appends to metrics.jsonl, held_out.jsonl and tensorboard/; lines beyond `step` are dropped.

    A run that goes on from an older checkpoint makes those lines again, so that the log has
    no gap and nothing twice; the first of these says so: {"resumed": step}. silent: another host
    writes it. Raises CannotLog, at once, where a disk is full or read-only.
    """

    def __init__(self, workdir: Path, step: int, *, silent: bool = False):
        self.workdir, self.silent = workdir, silent
        self.resumed = {"resumed": step} if step else {}
        if silent:
            return
        # Imported when needed; written by ourselves, since their SummaryWriter does it in a
        # thread, where an error is lost.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        with self._said():
            for name in ("metrics.jsonl", "held_out.jsonl"):
                _cut(workdir / name, step)
            self.file = open(workdir / "metrics.jsonl", "a", buffering=1)
            (workdir / "tensorboard").mkdir(exist_ok=True)
            prefix, suffix = str(workdir / "tensorboard" / "events"), f".{os.getpid()}"
            self.events, self.event = EventsWriter(prefix, suffix), Event
            purge = SessionLog(status=SessionLog.START)  # of what comes after `step`
            self.events.write_event(Event(step=step + 1, session_log=purge))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if not self.silent:
            with contextlib.suppress(OSError):  # nothing is left to be written
                self.file.close()
                self.events.close()

    def to_disk(self) -> None:
        """Returns when the lines would survive a power cut."""
        if not self.silent:
            with self._said():
                os.fsync(self.file.fileno())

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Numbers of a step: a line of metrics.jsonl, and TensorBoard's."""
        from tensorboardX import summary

        if not self.silent:
            with self._said():
                self.file.write(json.dumps({"step": step, **values, **self.resumed}) + "\n")
        self.resumed = {}
        self._events(step, *(summary.scalar(name, x) for name, x in values.items()))

    def held_out(self, step: int, found: dict[str, Any]) -> None:
        """A line of `held_out.summary`: to held_out.jsonl and on disk; its loss to TensorBoard."""
        from tensorboardX import summary

        if not self.silent:
            with self._said(), open(self.workdir / "held_out.jsonl", "a") as file:
                file.write(json.dumps({"step": step, **found}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        self._events(step, summary.scalar("held_out_loss", found["loss"]))

    def picture(self, step: int, picture: np.ndarray) -> None:
        """A picture [H, W, 3] uint8 of a step, to TensorBoard."""
        from tensorboardX import summary

        self._events(step, summary.image("samples", picture, dataformats="HWC"))

    def _events(self, step, *summaries):
        if self.silent:
            return
        with self._said():
            for one in summaries:
                event = self.event(step=step, wall_time=time.time(), summary=one)
                self.events.write_event(event)
            self.events.flush()

    @contextlib.contextmanager
    def _said(self):
        try:
            yield
        except OSError as error:
            raise CannotLog(
                f"could not write the log in {self.workdir} ({error.strerror or error}). The "
                "checkpoints are whole; make room or give permission, and the same command goes on"
            ) from error


def _cut(path: Path, step: int) -> None:
    """Drops the lines beyond a step, and damaged ones."""
    if path.exists():
        lines = list(_lines_until(path, step))
        with whole(path) as partial:
            partial.write_text("".join(lines))


def _lines_until(path: Path, step: int):
    """The lines up to a step; one that is damaged is left out, and said."""
    for line in path.read_text(errors="replace").splitlines(keepends=True):
        try:
            if json.loads(line)["step"] <= step:
                yield line
        except (ValueError, KeyError, TypeError):
            if line.endswith("\n"):  # else the half line of a run that was killed while it wrote
                print(f"{path}: a damaged line is left out: {line.strip()[:60]}", flush=True)
