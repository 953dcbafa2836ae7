"""Configs and data gone wrong, and whether the program says so like a good tool.

    rows = battery(configs=500, data=200)      # each case in a worker process, which may die

A case is a good config with one to three mutations, or a data file or folder gone wrong, handed
to `score_jax.main.main` as a user would. It is clean if it runs, or is refused with status 2 and
one message; see `attempt.wrong`. Which cases there are follows from their number alone.
"""

import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from benchmarks.command import Record
from benchmarks.mutations.attempt import REFUSED_WITHIN, Outcome, attempt, wrong
from benchmarks.mutations.configs import mutated_configs
from benchmarks.mutations.data import ODD, config_of, lay, mutated_data

STOPPED_AFTER = 45.0  # seconds that a case may compile and compute before its worker is ended
MEMORY = 12 * 2**30  # bytes of address space that a worker has


def battery(
    configs: int, data: int, progress: Callable[[list[Record]], Any] = lambda rows: None
) -> list[Record]:
    """So many mutated configs and data: a record each, told to progress as they come.

    The data are all of ODD first, then sound ones that were damaged.
    mutated: what was done. verdict: "ran", "refused", or what is `wrong`. seconds: until it was
    refused or the work began. message: the first line of what was said. details: all of it, where
    something is wrong.
    """
    rows = []

    def note(row):
        rows.append(row)
        progress(rows)

    with _Workers() as workers:
        for case in examples(mutated_configs(), configs):
            note(_record("config", case[0], False, workers.attempt("config", case)))
        for case in [*ODD, *examples(mutated_data(), max(data - len(ODD), 0))][:data]:
            note(_record("data", case.what, case.refused, workers.attempt("data", case)))
    return rows


def examples(strategy: st.SearchStrategy, number: int) -> list[Any]:
    """So many examples of a strategy that differ in what was done, always the same."""
    found: dict[Any, Any] = {}

    def some(start: int) -> None:  # few at a time: the first is the simplest, the last are alike
        these = []

        @seed(start)
        @settings(
            max_examples=10,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def collect(example):
            these.append(example)

        collect()
        found.update((example[0], example) for example in these[1:] if example[0] not in found)

    for start in range(number):
        if len(found) >= number:
            break
        some(start)
    return list(found.values())[:number]


def _record(kind: str, what: str, refused: bool, outcome: Outcome) -> Record:
    bad = wrong(outcome, refused)
    known: dict[int | None, str] = {0: "ran", 130: "ran", 2: "refused"}
    ran = known.get(outcome.status, "")
    lines = outcome.message.strip().splitlines()
    last = lines[-1:] if outcome.status is None else lines[:1]
    return dict(
        kind=kind,
        mutated=what.encode("ascii", "backslashreplace").decode(),
        verdict=bad or ran,
        clean=not bad,
        seconds=round(outcome.seconds, 2),
        message="".join(last)[:300],
        details=outcome.message[-6000:] if bad else "",
    )


class _Workers:
    """A process that makes attempts; when one hangs or dies, the next."""

    def __init__(self):
        self.context = multiprocessing.get_context("spawn")
        self.process: Any = None
        self.pipe: Any = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.end()

    def end(self) -> None:
        if self.process is not None:
            self.pipe.close()
            self.process.join(1.0)
            self.process.kill()
            self.process.join()
            self.process = None

    def start(self) -> None:
        self.pipe, theirs = self.context.Pipe()
        self.process = self.context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()  # it is ready: what it imports is no case's time

    def attempt(self, kind: str, case: Any) -> Outcome:
        if self.process is None:
            self.start()
        began, phase, left = time.monotonic(), "starting", REFUSED_WITHIN
        try:
            self.pipe.send((kind, case))
            while self.pipe.poll(began + left - time.monotonic()):
                answer = self.pipe.recv()
                if isinstance(answer, Outcome):
                    return answer
                phase, left, at = answer, STOPPED_AFTER, time.monotonic() - began
        except (EOFError, OSError):
            self.process.join()
            code, seconds = self.process.exitcode, time.monotonic() - began
            self.end()
            return Outcome(None, f"the process died while {phase}, code {code}", seconds, phase)
        self.end()
        if phase == "starting":
            return Outcome(None, "it hung before the work began", left, phase)
        return Outcome(130, f"ended after {left:.0f} s of work", at, phase)


def _serve(pipe) -> None:
    """A worker: (kind, case) in, phases and an Outcome out."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    jax.config.update("jax_disable_most_optimizations", True)
    jax.devices()
    pipe.send("ready")
    while True:
        try:
            kind, case = pipe.recv()
        except EOFError:  # no more to do
            return
        with tempfile.TemporaryDirectory() as folder:
            config = case[1] if kind == "config" else config_of(case)
            if kind == "data":
                lay(case, Path(folder))
            pipe.send(attempt(config, Path(folder, "run"), tell=pipe.send))
