"""One attempt to start the program with a case, as a user would, and a verdict on it."""

import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from benchmarks.mutations.configs import Config
from score_jax import commands, samples
from score_jax.main import main as launch
from score_jax.training import loop

REFUSED_WITHIN = 20.0  # seconds until a mistake has to be said, or the work to have begun
PATIENCE = 4.0  # seconds of steps after which a run is sent Ctrl-C
LONGEST = 1500  # characters of a message


class Outcome(NamedTuple):
    """What came of an attempt.

    status: what the program would have exited with; None where an exception escaped it.
    message: what it wrote to standard error, or the traceback. seconds: until it was refused or
    the work began. phase: how far it came: "starting", "working" or "done". left: what is in the
    workdir: "nothing", "a run" or "half a run". strays: files that are neither the run's nor were
    there before.
    """

    status: int | None
    message: str
    seconds: float
    phase: str
    left: str = "nothing"
    strays: tuple[str, ...] = ()
    output: str = ""


def wrong(outcome: Outcome, refused: bool = False) -> str:
    """What is wrong with an outcome, in a few words; "" if it is clean.

    Clean is: it ran, to the end (0) or until it was stopped (130); or it was refused within
    REFUSED_WITHIN seconds with status 2 and one message that starts with "error: ", is shorter
    than LONGEST and holds no traceback. In either case the workdir can be used by the next
    start, and no other file appeared. refused: it must not have run.
    """
    status, message = outcome.status, outcome.message
    if status is None:
        return "an exception escaped"
    if status not in (0, 2, 130):
        return f"status {status}"
    if status == 2 and not (message.startswith("error: ") and message.count("error: ") == 1):
        return "not one message"
    if status == 2 and len(message) >= LONGEST:
        return "a long message"
    if "Traceback" in message:
        return "a traceback"
    if outcome.seconds > REFUSED_WITHIN:
        return "slow"
    if outcome.left == "half a run":
        return "half a run left"
    if outcome.strays:
        return f"stray files {', '.join(outcome.strays)[:60]}"
    return "not refused" if refused and status != 2 else ""


def is_clean(outcome: Outcome, refused: bool = False) -> bool:
    """Whether there is nothing `wrong` with it."""
    return not wrong(outcome, refused)


def attempt(
    config: Config,
    workdir: Path,
    *,
    begin_only: bool = False,
    tell: Callable[[str], Any] = lambda phase: None,
) -> Outcome:
    """Trains and samples by this config in this process, as `python launch.py` would.

    A run that has made steps for PATIENCE seconds is sent Ctrl-C; one with begin_only is stopped
    where the first thing would be compiled. tell is told the phase that begins. The config's paths
    are relative to the folder of workdir, which the config file is written to.
    """
    folder = workdir.parent
    before = _files(folder)
    file = folder / "config.py"
    file.write_text(_source(config), encoding="utf-8")
    out, err = _stream("strict"), _stream("backslashreplace")
    began = time.monotonic()
    watch = _Watch(began, tell, begin_only)
    words = ["launch.py", "--config=config.py", f"--workdir={workdir.name}"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(folder))
        stack.enter_context(mock.patch.dict(os.environ, XDG_CACHE_HOME=str(_cache())))
        stack.enter_context(mock.patch.object(sys, "dont_write_bytecode", True))
        stack.enter_context(watch.patched())
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        status, trace = _status(words)
    seconds = (watch.at or time.monotonic()) - began
    phase = "done" if status == 0 else "starting" if watch.at is None else "working"
    file.unlink()
    ours = f"{workdir.name}/"
    strays = [f for f in _files(folder) - before if f != workdir.name and not f.startswith(ours)]
    text = lambda stream: stream.buffer.getvalue().decode()
    message = text(err) + trace
    return Outcome(status, message, seconds, phase, _left(workdir), tuple(strays), text(out))


def _status(words: list[str]) -> tuple[int | None, str]:
    try:
        return launch(words), ""
    except BaseException:
        return None, traceback.format_exc()


def _source(config: Config) -> str:
    """A config file that returns this config."""
    return (
        "from ml_collections import ConfigDict\n\ninf, nan = float('inf'), float('nan')\n\n\n"
        f"def get_config():\n    return ConfigDict({ascii(config)})\n"
    )


def _stream(errors: str) -> io.TextIOWrapper:
    """A stream as strict about what it can write as a terminal's."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors, write_through=True)


def _cache() -> Path:
    """What is compiled is kept for the next attempts."""
    return Path(tempfile.gettempdir(), f"score_jax_mutations_{os.getuid()}")


def _files(folder: Path) -> set[str]:
    found = set()
    for here, folders, names in os.walk(folder):
        for name in (*folders, *names):
            found.add(os.path.relpath(os.path.join(here, name), folder))
    return found


def _left(workdir: Path) -> str:
    if not workdir.exists() or (workdir.is_dir() and not any(workdir.glob("[!.]*"))):
        return "nothing"
    try:
        sections = json.loads((workdir / "config.json").read_text())
        starts = (workdir / "starts.jsonl").read_text().splitlines()
        whole = bool(starts) and all(isinstance(s, dict) for s in sections.values())
    except (OSError, ValueError, AttributeError):
        whole = False
    return "a run" if whole else "half a run"


class _Watch:
    """Notes when the work begins; sends Ctrl-C when steps have been made for PATIENCE seconds."""

    def __init__(self, began: float, tell: Callable[[str], Any], begin_only: bool):
        self.began, self.tell, self.begin_only = began, tell, begin_only
        self.at: float | None = None  # when the work began
        self.stepped: float | None = None  # when the first step was made
        self.sent = False

    @contextlib.contextmanager
    def patched(self) -> Iterator[None]:
        train, update_step, make_draw = commands.train, loop.update_step, loop.make_draw

        def watched_train(*args):
            self.at = time.monotonic()
            self.tell("working")
            if self.begin_only:
                raise KeyboardInterrupt
            return train(*args)

        def watched_update_step(*args):
            return self.after(update_step(*args))

        def watched_make_draw(*args):
            draw = make_draw(*args)
            quiet = lambda fraction: None
            return lambda params, indices, progress=quiet: draw(
                params, indices, self.before(progress)
            )

        with (
            mock.patch.object(commands, "train", watched_train),
            mock.patch.object(samples, "make_draw", watched_make_draw),
            mock.patch.object(loop, "make_draw", watched_make_draw),
            mock.patch.object(loop, "update_step", watched_update_step),
        ):
            yield

    def after(self, fn):
        def call(*args):
            result = fn(*args)
            self.stop_if_long()
            return result

        return call

    def before(self, fn):
        def call(*args):
            self.stop_if_long()
            return fn(*args)

        return call

    def stop_if_long(self) -> None:
        now = time.monotonic()
        self.stepped = self.stepped or now
        if not self.sent and now - self.stepped > PATIENCE:
            self.sent = True
            os.kill(os.getpid(), signal.SIGINT)
