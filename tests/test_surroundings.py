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
