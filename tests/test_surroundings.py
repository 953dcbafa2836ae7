"""What is set before JAX is imported has its effect on the process."""

import platform
import subprocess
import sys

import pytest

TWICE = """
import resource
from score_jax.surroundings import before_jax
before_jax()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
size = {size}  # known when it runs, not before
b"x" * size
before = faults()
b"x" * size
print(faults() - before)
"""
SIZE, PAGE = 100 * 2**20, 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that keeps memory")
def test_memory_that_was_freed_is_there_when_as_much_is_wanted_again():
    words = [sys.executable, "-c", TWICE.format(size=SIZE)]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert int(told) < SIZE / PAGE / 100


GIVEN = """
from pathlib import Path
from score_jax.surroundings import before_jax, give_back
before_jax()
held = lambda: int(Path("/proc/self/statm").read_text().split()[1])
large, small = bytearray({size}), bytearray(10)
large[::4096] = b"x" * len(large[::4096])
del large
before = held()
give_back()
print(before - held())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that keeps memory")
def test_memory_that_was_kept_can_be_given_back():
    words = [sys.executable, "-c", GIVEN.format(size=SIZE)]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert int(told) > 0.9 * SIZE / PAGE


SEARCHES = """
import gc
from score_jax.surroundings import before_jax
before_jax()
searches = lambda: sum(generation["collections"] for generation in gc.get_stats())
before, kept = searches(), [[] for _ in range({number})]
print(searches() - before)
"""


@pytest.mark.parametrize("number, least, most", [(40_000, 0, 1), (400_000, 2, 12)])
def test_garbage_is_looked_for_seldom_and_not_never(number, least, most):
    """Python would look 57 times in making 40,000 objects, as many as a small jaxpr has."""
    words = [sys.executable, "-c", SEARCHES.format(number=number)]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert least <= int(told) <= most
