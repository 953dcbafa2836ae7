"""Ours and theirs side by side in one process, in turns, with what the machine can do beside both.

record = measure(task, limits(peer=None), pairs=5)
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from benchmarks.command import Record
from benchmarks.speed import ours
from benchmarks.speed.clock import Cost, alternate, median, ratio, timed

SIZE = 1024  # of the matrices whose product is the limit
LIMIT_FLOPS = 2 * SIZE**3
Contestant = Callable[[], Cost]


class Task(NamedTuple):
    """The same work of ours and, where there is one, of a peer.

    amount: the units that one call does. flops: of one call, where they are known.
    """

    what: str
    work: str
    unit: str
    amount: float
    ours: Contestant
    theirs: Contestant | None = None
    flops: float | None = None


def limits(peer: str | None) -> dict[str, Contestant]:
    """A product of two float32 matrices by JAX and by the peer: the most that can be expected."""
    found = {"ours": partial(timed, ours.product(SIZE))}
    if peer is not None:
        from benchmarks.speed import theirs

        found["theirs"] = partial(timed, theirs.product(SIZE))
    return found


def measure(task: Task, limits: dict[str, Contestant], pairs: int) -> Record:
    """The medians of `pairs` rounds, after one that is not counted, in which ours compiles.

    ratio, ratio_cpu: the median of ours/theirs. *_flops: a CPU-second's. *_of_limit: the part of
    the matrix product's that is.
    """
    contestants = {"limit": limits["ours"], "ours": task.ours}
    if task.theirs is not None:
        contestants |= {"their limit": limits["theirs"], "theirs": task.theirs}
    alternate(contestants, 1)
    costs = alternate(contestants, pairs)
    record: Record = dict(what=task.what, work=task.work, unit=task.unit, amount=task.amount)
    record |= dict(pairs=pairs, flops=task.flops)
    for who, limit in (("ours", "limit"), ("theirs", "their limit")):
        if who not in costs:
            continue
        cost = median(costs[who])
        record |= {f"{who}_seconds": cost.wall, f"{who}_cpu": cost.cpu}
        record[f"{who}_limit_flops"] = LIMIT_FLOPS / median(costs[limit]).cpu
        if task.flops is not None:
            record[f"{who}_flops"] = task.flops / cost.cpu
            share = ratio(costs[limit], costs[who]).cpu * task.flops / LIMIT_FLOPS
            record[f"{who}_of_limit"] = share
    if "theirs" in costs:
        both = ratio(costs["ours"], costs["theirs"])
        record |= dict(ratio=both.wall, ratio_cpu=both.cpu)
    return record
