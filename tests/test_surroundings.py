"""What is set before JAX is imported has its effect on the process."""

import platform
import subprocess
import sys

import pytest

TWICE = """
import resource
from score_jax.surroundings import before_jax
if {kept}:
    before_jax()
import numpy as np
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones({size}, np.uint8)
before = faults()
np.ones({size}, np.uint8)
print(faults() - before)
"""
SIZE, PAGE = 100 * 2**20, 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that keeps memory")
def test_memory_that_was_freed_is_there_when_as_much_is_wanted_again():
    def faults(kept):
        words = [sys.executable, "-c", TWICE.format(kept=kept, size=SIZE)]
        return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    assert faults(kept=True) < SIZE / PAGE / 100
