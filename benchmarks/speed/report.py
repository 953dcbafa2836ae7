"""The records as tables."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.command import Record, machine, table
from benchmarks.speed.child import STAGES
from benchmarks.speed.processes import KINDS as OF_PROCESSES

PACKAGES = ("score_jax", "jax", "jaxlib", "flax", "numpy", "torch", "diffusers")
HOW = """\
`ours` and `theirs`: units a second of the wall's clock, medians of the rounds. `ratio`: the time of
ours over theirs, of CPU-seconds (all threads) and by the wall, the median over rounds in which one
follows the other; below 1 ours takes less. `of the limit`: floating-point operations a CPU-second
over those of a product of two 1024x1024 float32 matrices in the same rounds, by JAX or PyTorch,
whichever is faster; an update counts three forward passes."""


def environment(load: float) -> Record:
    """Where the numbers come from. load: of the machine, before anything was run."""
    versions = {name: found for name in PACKAGES if (found := _version(name))}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return dict(
        what="machine",
        machine=machine(),
        cpu=processor(),
        cores=cores,
        load=load,
        versions=versions,
    )


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """The CPU's model."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def report(records: list[Record], command: str) -> str:
    """All that was measured, in Markdown."""
    at = records[0]
    versions = ", ".join(f"{name} {v}" for name, v in at["versions"].items())
    parts = [
        f"Measured by `{command}` on {at['cpu']}, {at['cores']} cores, {versions}; the load "
        f"before was {at['load']:.1f}."
    ]
    side = [r for r in records[1:] if r["what"] not in OF_PROCESSES]
    if side:
        rows = [_row(r) for r in side]
        columns = [c for c in rows[0] if any(row.get(c) is not None for row in rows)]
        parts += [HOW, table(rows, columns)]
    for kind, make in (("startup", _startup), ("memory", _memory), ("scaling", _scaling)):
        rows = make([r for r in records if r["what"] == kind])
        if rows:
            parts += [TITLES[kind], table(rows, list(rows[0]))]
    return "\n\n".join(parts)


TITLES = {
    "startup": "Seconds from nothing to the first updates, in processes of their own; CPU-seconds "
    "in brackets:",
    "memory": "The most memory that the same processes held, in MB:",
    "scaling": "One batch over several devices of one CPU, which share its cores:",
}


def _row(r: Record) -> Record:
    speed = lambda who: r["amount"] / r[f"{who}_seconds"] if f"{who}_seconds" in r else None
    return {
        "what": r["what"],
        "work": r["work"],
        "unit": r["unit"],
        "ours": speed("ours"),
        "theirs": speed("theirs"),
        "ratio, CPU": r.get("ratio_cpu"),
        "ratio, wall": r.get("ratio"),
        "ours of the limit": r.get("ours_of_limit"),
        "theirs of the limit": r.get("theirs_of_limit"),
    }


def _startup(records):
    rows = []
    for work, who in dict.fromkeys((r["work"], r["of"]) for r in records):
        mine = {r["stage"]: r for r in records if (r["work"], r["of"]) == (work, who)}
        total = {key: sum(r[key] for r in mine.values()) for key in ("seconds", "cpu")}
        said = lambda r: f"{r['seconds']:.1f} ({r['cpu']:.1f})"
        row = dict(work=work, of=who) | {s: said(mine[s]) if s in mine else "" for s in STAGES}
        rows.append(row | {"all": said(total)})
    return rows


def _memory(records):
    mb = lambda n: round(n / 1e6)
    return [
        dict(work=r["work"], of=r["of"], after_the_import=mb(r["import_bytes"]))
        | dict(at_most=mb(r["peak_bytes"]))
        for r in records
    ]


def _scaling(records):
    first = {r["work"]: r for r in records if r["devices"] == 1}
    return [
        {
            "work": r["work"],
            "devices": r["devices"],
            "updates a second": r["amount"] / r["ours_seconds"],
            "CPU-seconds over one device's": r["ours_cpu"] / first[r["work"]]["ours_cpu"],
        }
        for r in records
    ]
