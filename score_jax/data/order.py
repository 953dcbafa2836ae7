"""Which examples make which batch: a function of the seed and the step alone.

    order = Order(n=50_000, seed=0)
    order.batch(step=7, size=128)      # [128] indices, the same however one got there

The stream is one random permutation of the data after another, cut into batches; nothing
is dropped at an epoch's end and nothing has to be remembered to resume.
"""

import functools

import numpy as np


class Order:
    """The order of n examples under a seed."""

    def __init__(self, n: int, seed: int):
        self.n = n
        self.permutation = functools.lru_cache(maxsize=2)(
            lambda epoch: np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n)
        )

    def batch(self, step: int, size: int) -> np.ndarray:
        """The indices [size], int64, of batch number `step`, counted from 0."""
        epoch, offset = np.divmod(np.arange(step * size, (step + 1) * size), self.n)
        indices = np.empty(size, np.int64)
        for e in np.unique(epoch):
            here = epoch == e
            indices[here] = self.permutation(int(e))[offset[here]]
        return indices


def evenly(n: int, total: int) -> np.ndarray:
    """[n] indices spread evenly over 0 .. total - 1, n <= total: of every class where they are
    sorted by class."""
    return np.arange(n) * total // n
