"""What is too much: numbers that can only be mistakes, and more memory than there is."""

import contextlib
import os
import resource
from pathlib import Path

from score_jax.errors import UserError, shown


def check_at_most(name: str, value: int, most: int) -> None:
    """Raises UserError for a number so large that it can only be a mistake."""
    if value > most:
        raise UserError(f"{name} must be at most {most:,}, got {shown(value)}")


def memory() -> int:
    """The bytes of memory that this process can have: the machine's, or less where limited."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [machine] if limit == resource.RLIM_INFINITY else [machine, limit]
    with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))  # a container's
    return min(limits)


def check_memory(what: str, needed: int, instead: str) -> None:
    """Raises UserError where `what` needs more bytes than there are. instead: what to do."""
    if needed > memory():
        raise UserError(
            f"{what} need {_size(needed)} of memory, and this machine has {_size(memory())}; "
            f"{instead}"
        )


def _size(number: int) -> str:
    """Bytes in words: 4.5 GB."""
    unit, size = ("GB", 10**9) if number < 10**12 else ("TB", 10**12)
    return f"{number * 10 // size / 10:,.1f} {unit}" if number < 10**24 else "far too much"
