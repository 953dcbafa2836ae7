"""Errors that a person can act on.

A UserError says what was expected, what came and what to do. `launch.py` prints its
message alone (no traceback) and exits with status 2; every other exception is a bug of
ours and keeps its traceback. It is a ValueError, so library users catch what they expect.
"""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user gave: a config, a flag, a file."""


def unknown(what: str, given: object, known: Iterable[str]) -> UserError:
    """The error for a name that is not among the known ones; suggests the nearest.

    >>> print(unknown("sampler", "ancestrl", ["langevin", "ancestral"]))
    unknown sampler 'ancestrl'; known: ancestral, langevin. Did you mean 'ancestral'?
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(given), known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UserError(f"unknown {what} '{given}'; known: {', '.join(known) or 'none'}.{hint}")
