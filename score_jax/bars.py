"""A progress bar for long work."""

import sys

from tqdm import tqdm

from score_jax.hosts import leads


def bar(what: str, total: int, unit: str, begin: int = 0, leave: bool = True) -> tqdm:
    """A progress bar, on a terminal; elsewhere one that shows nothing, whose `disable` is True.

    begin: where it stands at first. leave: whether it stays to be seen when it is closed.
    """
    return tqdm(
        desc=what,
        total=total,
        unit=unit,
        initial=begin,
        leave=leave,
        disable=not (sys.stderr.isatty() and leads()),
        dynamic_ncols=True,
    )
