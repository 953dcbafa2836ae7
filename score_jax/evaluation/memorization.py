"""Whether samples are training examples: the nearest ones, looked for in all of them."""

from typing import Any, NamedTuple

import numpy as np

from score_jax.data.base import Dataset
from score_jax.metrics.neighbors import nearest

ASKED = 1_000  # samples, and test examples, whose nearest training example is looked for
SHOWN = 8  # those nearest to a training example go into the picture
NEIGHBORS = 3  # beside so many training examples
BLOCK = 2**26  # numbers of training examples at a time


class Neighbors(NamedTuple):
    """indices, distances: [N, k], the nearest first.

    distances: the root mean square over an image's numbers of the difference in gray levels
    (0 .. 255), or over a point's coordinates in its units.
    """

    indices: np.ndarray
    distances: np.ndarray


def neighbors(queries: np.ndarray, examples: np.ndarray, *, k: int = 1) -> Neighbors:
    """The k examples nearest to each query, of [M, ...] that need not fit into memory at once."""
    k, size = min(k, len(examples)), queries[0].size
    flat = lambda x: np.asarray(x, np.float64).reshape(len(x), size)
    block = max(k, BLOCK // size)
    indices, distances = np.zeros((len(queries), 0), int), np.zeros((len(queries), 0))
    for begin in range(0, len(examples), block):
        some = flat(examples[begin : begin + block])
        found, apart = nearest(flat(queries), some, k=min(k, len(some)))
        indices = np.concatenate([indices, begin + found], axis=1)
        distances = np.concatenate([distances, apart], axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        indices, distances = (np.take_along_axis(x, order, axis=1) for x in (indices, distances))
    return Neighbors(indices, distances / np.sqrt(size))


def compare(samples: np.ndarray, data: Dataset, test: Dataset | None) -> tuple[dict[str, Any], Any]:
    """(figures, (the samples that are nearest to training examples [S], their `Neighbors`)).

    figures: the median distance of the first ASKED samples to the nearest training example and,
    beside it, that of as many test examples, which cannot have been memorized: much smaller
    distances than theirs speak of copies. copies: samples at distance 0.
    """
    asked = samples[:ASKED]
    found = neighbors(asked, data.examples, k=NEIGHBORS)
    closest = np.argsort(found.distances[:, 0], kind="stable")[:SHOWN]
    figures = {
        "samples": len(asked),
        "median_distance": float(np.median(found.distances[:, 0])),
        "smallest_distance": float(found.distances[:, 0].min()),
        "copies": int((found.distances[:, 0] == 0).sum()),
        "median_distance_of_test": None,
        "smallest_distance_of_test": None,
    }
    if test is not None:
        apart = neighbors(test.examples[:ASKED], data.examples).distances[:, 0]
        figures["median_distance_of_test"] = float(np.median(apart))
        figures["smallest_distance_of_test"] = float(apart.min())
    return figures, (closest, Neighbors(found.indices[closest], found.distances[closest]))
