"""What has to be set before JAX is imported."""

import contextlib
import ctypes
import gc
import os

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MOST = 2**31 - 1

_OBJECTS = 50_000  # made between two searches for those that nothing refers to; Python's 700


def before_jax() -> None:
    """Sets what JAX reads from its surroundings when it is imported, and how memory is kept."""
    _keep_memory()
    gc.set_threshold(_OBJECTS)  # a tenth of the time that tracing a network takes is such searches
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms and "cpu" not in platforms.split(","):
        os.environ["JAX_PLATFORMS"] = f"{platforms},cpu"  # schedules are made on the host


def give_back() -> None:
    """Memory that was freed and kept goes back to the system, where libc is glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _keep_memory() -> None:
    """Memory that was freed is kept for what comes next, in one arena, where libc is glibc.

    A compiled step on a CPU takes its temporary memory anew each time, and to have it from the
    system, page by page, is a tenth of the step (docs/speed.md). XLA's threads would each fill an
    arena of their own. Has to come before the first thread.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for parameter, value in (
            (_M_ARENA_MAX, 1),
            (_M_MMAP_THRESHOLD, _MOST),
            (_M_TRIM_THRESHOLD, _MOST),
        ):
            mallopt(parameter, value)
