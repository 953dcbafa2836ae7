"""Errors that a person can act on.

A UserError says what was expected, what came and what to do. `launch.py` prints its
message alone (no traceback) and exits with status 2. So it does where the memory is too small, and,
with status 1, for a disk that is full or may not be written to; every other exception is a bug of
ours and keeps its traceback.
UserError is a ValueError, so library users catch what they expect.
"""

import difflib
from collections.abc import Iterable

MOST_SHOWN = 100  # characters of a value, and
MOST_NAMES = 1000  # of a list of names, in a message


class UserError(ValueError):
    """A mistake in what the user gave: a config, a flag, a file."""


class CannotWrite(OSError):
    """A disk is full, or may not be written to; what was saved before is untouched."""


def unknown(what: str, given: object, known: Iterable[str]) -> UserError:
    """The error for a name that is not among the known ones; suggests the nearest.

    >>> print(unknown("sampler", "ancestrl", ["langevin", "ancestral"]))
    unknown sampler 'ancestrl'; known: ancestral, langevin. Did you mean 'ancestral'?
    """
    known, text = sorted(known), str(given)
    near = difflib.get_close_matches(text, known, n=1)
    text = shortened(text if text.isprintable() else repr(text)[1:-1])
    hint = f" Did you mean '{near[0]}'?" if near else ""
    names = shortened(", ".join(known), MOST_NAMES)
    return UserError(f"unknown {what} '{text}'; known: {names or 'none'}.{hint}")


def shortened(text: str, most: int = MOST_SHOWN) -> str:
    """The text, its middle left out where it has more than `most` characters."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 4 :]}"


def shown(value: object) -> str:
    """repr(value), as long as a message can hold."""
    return shortened(repr(value))
