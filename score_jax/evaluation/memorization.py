"""Whether samples are training examples: the nearest ones, looked for in all of them."""

from typing import Any, NamedTuple

import numpy as np

from score_jax.data.base import Dataset
from score_jax.data.order import evenly

ASKED = 1_000  # samples, and test examples, whose nearest training example is looked for
SHOWN = 8  # those nearest to a training example go into the picture
NEIGHBORS = 3  # beside so many training examples
BLOCK = 2**26  # numbers of training examples at a time
MIDDLE = 127.5  # of the gray levels, taken away before squares are made


class Neighbors(NamedTuple):
    """indices, distances: [N, k], the nearest first.

    distances: the root mean square over an image's numbers of the difference in gray levels,
    0 .. 255.
    """

    indices: np.ndarray
    distances: np.ndarray


def neighbors(queries: np.ndarray, images: np.ndarray, *, k: int = 1) -> Neighbors:
    """The k images nearest to each query, both uint8 [.., H, W, C]; a block of images at a time.

    `metrics.neighbors.nearest` is exact and wants all in memory, in float64; these may be many
    gigabytes of a file. Found by |q|² - 2 q·x + |x|² in float32, whose error is less than a tenth
    of a gray level; the distances of those that are found are exact.
    """
    k, size = min(k, len(images)), queries[0].size
    flat = lambda x: x.reshape(len(x), size).astype(np.float32) - np.float32(MIDDLE)
    asked, block = flat(queries), max(k, BLOCK // size)
    asked2 = (asked**2).sum(1)[:, None]
    indices = np.zeros((len(queries), 0), int)
    squares = np.zeros((len(queries), 0), np.float32)
    for begin in range(0, len(images), block):
        some = flat(images[begin : begin + block])
        apart = asked2 - 2.0 * (asked @ some.T) + (some**2).sum(1)
        near = np.argpartition(apart, min(k, len(some)) - 1, axis=1)[:, :k]
        indices = np.concatenate([indices, begin + near], axis=1)
        squares = np.concatenate([squares, np.take_along_axis(apart, near, 1)], axis=1)
        best = np.argsort(squares, axis=1, kind="stable")[:, :k]
        indices, squares = (np.take_along_axis(x, best, 1) for x in (indices, squares))
    exact = np.empty(indices.shape)
    for i, query in enumerate(queries):
        gap = images[indices[i]].astype(np.float64) - query
        exact[i] = np.sqrt((gap**2).mean((1, 2, 3)))
    order = np.argsort(exact, axis=1, kind="stable")
    return Neighbors(*(np.take_along_axis(x, order, 1) for x in (indices, exact)))


def as_trained(queries: np.ndarray, images: np.ndarray, flip: bool, *, k: int = 1) -> Neighbors:
    """The same where training has seen images mirrored, too: of each query as it is or mirrored,
    whichever is nearer to an image."""
    found = neighbors(queries, images, k=k)
    if not flip:
        return found
    mirrored = neighbors(queries[:, :, ::-1], images, k=k)
    nearer = (mirrored.distances[:, 0] < found.distances[:, 0])[:, None]
    return Neighbors(*(np.where(nearer, b, a) for a, b in zip(found, mirrored)))


def compare(
    samples: np.ndarray, data: Dataset, test: Dataset | None, *, flip: bool = False
) -> tuple[dict[str, Any], tuple[np.ndarray, Neighbors]]:
    """(figures, (the samples that are nearest to training examples [S], their `Neighbors`)).

    figures: the median and the smallest distance, in gray levels, of the first ASKED samples to
    the nearest training example and, beside them, of ASKED test examples, which cannot have been
    memorized: much smaller distances than theirs speak of copies. copies: samples at distance 0.
    flip: training has seen the data mirrored, too.
    """
    asked = samples[:ASKED]
    found = as_trained(asked, data.examples, flip, k=NEIGHBORS)
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
        some = test.examples[evenly(min(ASKED, len(test.examples)), len(test.examples))]
        apart = as_trained(some, data.examples, flip).distances[:, 0]
        figures["median_distance_of_test"] = float(np.median(apart))
        figures["smallest_distance_of_test"] = float(apart.min())
    return figures, (closest, Neighbors(found.indices[closest], found.distances[closest]))
