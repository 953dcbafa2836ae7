"""The numbers and pictures of a run: metrics.jsonl and TensorBoard's event files."""

import json
from pathlib import Path

import numpy as np

from score_jax.files import whole


class Log:
    """Appends to workdir/metrics.jsonl and workdir/tensorboard; lines beyond `step` are dropped.

    A run that goes on from an older checkpoint makes those lines again, so that the log has
    no gap and nothing twice. silent: another host writes it.
    """

    def __init__(self, workdir: Path, step: int, *, silent: bool = False):
        self.silent = silent
        if silent:
            return
        from tensorboardX import SummaryWriter  # imported when needed: half a second

        self.path = workdir / "metrics.jsonl"
        if self.path.exists():
            with whole(self.path) as partial:
                partial.write_text("".join(_lines_until(self.path, step)))
        self.file = open(self.path, "a", buffering=1)
        self.events = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if not self.silent:
            self.file.close()
            self.events.close()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        if self.silent:
            return
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self.events.add_scalar(name, value, step)

    def picture(self, step: int, picture: np.ndarray) -> None:
        self.events.add_image("samples", picture, step, dataformats="HWC")


def _lines_until(path: Path, step: int):
    for line in path.read_text().splitlines(keepends=True):
        try:
            if json.loads(line)["step"] <= step:
                yield line
        except ValueError:
            return  # the half line of a run that was killed while it wrote
