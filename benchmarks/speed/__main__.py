"""The program: tables on stdout, all of it in benchmarks/results/speed.json and speed.md.

--what step forward ancestral annealed likelihood data    # these unless others are named
--what startup memory scaling     # minutes each: in processes of their own
--work cifar small toy chain      # the networks, all unless some are named
--peer torch, --peer diffusers    # the same work in PyTorch; U-Nets are diffusers' only
--threads 1                       # one core, for ours and theirs
--pairs 7                         # rounds in which theirs follows ours
--quick, --json FILE              # as all benchmarks
"""

import argparse
import importlib
import os
import sys
from typing import Any

import jax

from benchmarks import peers
from benchmarks.command import arguments, write_records
from benchmarks.speed import processes
from benchmarks.speed.pairs import limits, measure
from benchmarks.speed.report import environment, report
from benchmarks.speed.tasks import KINDS, tasks
from benchmarks.speed.works import ROOT, WORKS
from score_jax.errors import UserError
from score_jax.main import status_of
from score_jax.surroundings import before_jax

RESULTS = ROOT / "benchmarks" / "results" / "speed.json"
PAIRS = {True: 2, False: 7}  # by whether it is to be quick
OPTIONS: dict[str, dict[str, Any]] = dict(
    what=dict(nargs="+", choices=[*KINDS, *processes.KINDS], default=list(KINDS), metavar="WHAT"),
    work=dict(nargs="+", choices=list(WORKS), default=list(WORKS), metavar="WORK"),
    peer=dict(choices=["torch", "diffusers"], help="the same work there, in turns with ours"),
    threads=dict(type=int, metavar="N", help="so many cores, for ours and theirs"),
    pairs=dict(type=int, metavar="N", help="rounds, of which medians are taken"),
)


def pinned(threads: int | None) -> None:
    """Leaves this process, and those it starts, so many cores.

    Raises UserError where there are not so many, and where the system cannot.
    """
    if threads is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise UserError("--threads is for Linux; leave it out here")
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(cores):
        raise UserError(f"--threads must lie in 1 .. {len(cores)}, the cores here; got {threads}")
    os.sched_setaffinity(0, cores[:threads])  # JAX and torch count them when they first compute


def installed(peer: str | None) -> None:
    """Raises UserError, with what to do, unless the peer can be run here."""
    if peer is None:
        return
    if jax.default_backend() != "cpu":
        raise UserError(
            f"--peer {peer} compares on a CPU, and JAX is on {jax.default_backend()}; set "
            "JAX_PLATFORMS=cpu, or leave --peer out"
        )
    if peer == "diffusers":
        peers.installed()
        return
    try:
        importlib.import_module(peer)
    except ImportError as error:
        raise UserError(
            f"--peer {peer} needs {peer}, which is not installed; pip install -e '.[peers]', or "
            "leave --peer out"
        ) from error


def tell(what: str) -> None:
    """A line of progress, on a terminal."""
    if sys.stderr.isatty():
        print(what, file=sys.stderr)


def records_of(options: argparse.Namespace) -> list[dict]:
    """Measures what the command line asks for: first where, then a record each."""
    load = os.getloadavg()[0]
    before_jax()  # as the launcher; JAX has no threads yet
    pinned(options.threads)
    installed(options.peer)
    pairs = options.pairs or PAIRS[options.quick]
    records = [environment(load)]
    most = limits(options.peer) if set(options.what) & set(KINDS) else {}
    for task in tasks(options.what, options.work, options.peer, options.quick):
        tell(f"{task.what}: {task.work}")
        records.append(measure(task, most, pairs))
    for name in options.work if set(options.what) & set(processes.KINDS) else ():
        tell(f"processes: {WORKS[name].title}")
        if {"startup", "memory"} & set(options.what):
            found = processes.starts(name, options.peer, pairs)
            records += processes.startup(found) if "startup" in options.what else []
            records += processes.memory(found) if "memory" in options.what else []
        if "scaling" in options.what:
            records += processes.scaling(name, pairs)
    return records


def run(options: argparse.Namespace) -> None:
    """The program, of what the command line asks for."""
    records = records_of(options)
    text = report(records, " ".join(["python -m benchmarks.speed", *sys.argv[1:]]))
    print(text)
    path = options.json or (None if options.quick else RESULTS)
    write_records(records, path, text)


if __name__ == "__main__":
    options = arguments(__doc__.splitlines()[0], **OPTIONS)
    sys.exit(status_of(lambda: run(options)))
