"""A progress bar for long work."""

import sys

from tqdm import tqdm

from score_jax.hosts import leads


def bar(what: str, total: int, unit: str) -> tqdm:
    """A progress bar, on a terminal; elsewhere one that shows nothing, whose `disable` is True."""
    return tqdm(
        desc=what,
        total=total,
        unit=unit,
        disable=not (sys.stderr.isatty() and leads()),
        dynamic_ncols=True,
    )
