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
    found: dict[str, Contestant] = {"ours": partial(timed, ours.product(SIZE))}
    if peer is not None:
        from benchmarks.speed import theirs

        found["theirs"] = partial(timed, theirs.product(SIZE))
    return found


def measure(task: Task, limits: dict[str, Contestant], pairs: int) -> Record:
    """The medians of `pairs` rounds, after one that is not counted, in which ours compiles.

    ratio, ratio_cpu: the median of ours/theirs. limit_flops: of the faster matrix product, a
    CPU-second, and *_of_limit the part of it that is reached.
    """
    contestants = {"limit": limits["ours"], "ours": task.ours}
    if task.theirs is not None:
        contestants |= {"their limit": limits["theirs"], "theirs": task.theirs}
    alternate(contestants, 1)
    costs = alternate(contestants, pairs)
    record: Record = dict(what=task.what, work=task.work, unit=task.unit, amount=task.amount)
    record |= dict(pairs=pairs, flops=task.flops)
    products = [median(costs[name]).cpu for name in ("limit", "their limit") if name in costs]
    record["limit_flops"] = LIMIT_FLOPS / min(products)
    for who in ("ours", "theirs"):
        if who in costs:
            cost = median(costs[who])
            record |= {f"{who}_seconds": cost.wall, f"{who}_cpu": cost.cpu}
            if task.flops is not None:
                record[f"{who}_of_limit"] = task.flops / cost.cpu / record["limit_flops"]
    if "theirs" in costs:
        both = ratio(costs["ours"], costs["theirs"])
        record |= dict(ratio=both.wall, ratio_cpu=both.cpu)
    return record
