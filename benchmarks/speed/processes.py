"""What is measured in processes of their own: start-up and memory beside a peer's, and devices."""

import tempfile
from statistics import median
from typing import Any

from benchmarks.command import Record
from benchmarks.speed.child import told
from benchmarks.speed.clock import Cost
from benchmarks.speed.clock import median as middle
from benchmarks.speed.works import WORKS, config_of

CALLS = 4  # of the compiled update, the first one included
DEVICES = (1, 2, 4, 8)
KINDS = ("startup", "memory", "scaling")


def starts(name: str, peer: str | None, rounds: int) -> list[Record]:
    """From nothing to a few updates: what each stage takes, and the most memory held after it.

    Ours with an empty compilation cache, then with what it left there; then theirs.
    """
    updates = CALLS * config_of(name)["training"].get("steps_per_call", 1)
    whose: list[tuple[str, str]] = [("ours, no cache", "ours"), ("ours", "ours")]
    if peer == "diffusers" or (peer and len(WORKS[name].shape) == 1):
        whose.append(("theirs", "theirs"))
    found: dict[str, list[dict[str, Any]]] = {who: [] for who, _ in whose}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for who, of in whose:
                cache = {"XDG_CACHE_HOME": folder}
                found[who].append(told("start", cache, of=of, name=name, updates=updates))
    return [
        dict(
            work=WORKS[name].title,
            of=who,
            stage=stage,
            rounds=rounds,
            **{key: median(run[stage][key] for run in runs) for key in runs[0][stage]},
        )
        for who, runs in found.items()
        for stage in runs[0]
    ]


def startup(found: list[Record]) -> list[Record]:
    """What `starts` found, of time."""
    return [dict(what="startup") | {k: v for k, v in r.items() if k != "peak_bytes"} for r in found]


def memory(found: list[Record]) -> list[Record]:
    """What `starts` found, of memory: held after the import, and at most in the whole."""
    records = []
    for work, who in dict.fromkeys((r["work"], r["of"]) for r in found):
        stages = [r for r in found if (r["work"], r["of"]) == (work, who)]
        sizes = dict(import_bytes=stages[0]["peak_bytes"], peak_bytes=stages[-1]["peak_bytes"])
        records.append(dict(what="memory", work=work, of=who, rounds=stages[0]["rounds"], **sizes))
    return records


def scaling(name: str, rounds: int) -> list[Record]:
    """Updates of the same batch on 1, 2, 4 and 8 devices of one CPU, whose cores they share."""
    calls = config_of(name)["training"].get("steps_per_call", 1)
    costs: dict[int, list[Cost]] = {n: [] for n in DEVICES}
    for _ in range(rounds):
        for n in DEVICES:
            flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={n}"}
            said = told(
                "devices", flags | {"JAX_PLATFORMS": "cpu"}, name=name, updates=calls * CALLS
            )
            assert said["devices"] == n
            costs[n].append(Cost(*said["cost"]))
    shared = dict(what="scaling", work=WORKS[name].title, unit="updates", amount=calls * CALLS)
    return [
        dict(shared, devices=n, rounds=rounds, ours_seconds=cost.wall, ours_cpu=cost.cpu)
        for n, cost in ((n, middle(costs[n])) for n in DEVICES)
    ]
