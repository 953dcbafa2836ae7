"""Costs, and how two are compared on a machine that does other things besides.

costs = alternate({"ours": ours, "theirs": theirs}, pairs=5)    # ours, theirs, ours, theirs ...
median(costs["ours"]), ratio(costs["ours"], costs["theirs"])
"""

import resource
import time
from collections.abc import Callable, Mapping
from statistics import median as middle
from typing import NamedTuple

PAUSE = 0.05  # seconds in which the threads of one come to rest before the other begins


class Cost(NamedTuple):
    """Seconds by the wall's clock, and of all threads and of the processes waited for."""

    wall: float
    cpu: float


def now() -> Cost:
    """Both clocks."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime)


def timed(work: Callable[[], object], clock: Callable[[], Cost] = now) -> Cost:
    """What work() costs; it comes back when all is done."""
    begin = clock()
    work()
    end = clock()
    return Cost(end.wall - begin.wall, end.cpu - begin.cpu)


def alternate(
    contestants: Mapping[str, Callable[[], Cost]], pairs: int, pause: float = PAUSE
) -> dict[str, list[Cost]]:
    """What each cost in each round: so one is measured in the same minute as the other."""
    found: dict[str, list[Cost]] = {name: [] for name in contestants}
    for _ in range(pairs):
        for name, run in contestants.items():
            time.sleep(pause)
            found[name].append(run())
    return found


def median(costs: list[Cost]) -> Cost:
    """Of each clock."""
    return Cost(middle(c.wall for c in costs), middle(c.cpu for c in costs))


def ratio(ours: list[Cost], theirs: list[Cost]) -> Cost:
    """The median over the rounds of ours/theirs, of each clock: below 1, ours takes less."""
    pairs = list(zip(ours, theirs, strict=True))
    return Cost(middle(a.wall / b.wall for a, b in pairs), middle(a.cpu / b.cpu for a, b in pairs))
