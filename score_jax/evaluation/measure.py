"""All figures of a set of samples beside real data, in one kind of features.

    found = compare(samples, real, moments, kind="inception")
    found.metrics["fid"], found.left_out

samples are `Features`, real features [M, D].
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from score_jax.evaluation.features import Features
from score_jax.metrics.frechet import Moments, frechet_distance_of_moments, moments
from score_jax.metrics.kernel import kernel_distance, maximum_mean_discrepancy, median_distance
from score_jax.metrics.neighbors import density_coverage, precision_recall
from score_jax.metrics.score import inception_score
from score_jax.metrics.wasserstein import sliced_wasserstein

PAIRED = 10_000  # rows of each set, at most, where all pairs are compared
# Names that are the literature's for Inception's features, and ours for any others.
NAMES = {
    True: ("fid", "kid", "inception_score"),
    False: ("frechet_distance", "kernel_distance", "classifier_score"),
}


class Compared(NamedTuple):
    """metrics: {name: number, or {"value", "standard_error" or "standard_deviation", ...}}.

    left_out: {name: why} of those that cannot be had; none is NaN instead. used: how many samples,
    and as many real examples, each kind of figure that needs the latter one by one takes.
    """

    metrics: dict[str, Any]
    left_out: dict[str, str]
    used: dict[str, int]


def compare(
    samples: Features,
    real: np.ndarray | None,
    reference: Moments,
    *,
    kind: str,
    bandwidth: float | None = None,
) -> Compared:
    """The figures of samples, features [N, D], against the real data's moments and features [M, D].

    real: in random order, or None where only the moments are known. What compares all pairs
    takes at most PAIRED rows of each, equally many, and the kernel distance min(N, M). bandwidth:
    of the maximum mean discrepancy; None for the median distance of real examples: one that
    depended on the samples would compare with no other.
    """
    frechet, kernel, score = NAMES[kind == "inception"]
    a = samples.values
    b = a[:0] if real is None else real  # nothing asks for it then
    logits = a[:0] if samples.logits is None else samples.logits
    n = min(len(a), len(b), PAIRED)
    pair = functools.cache(lambda metric: metric(a[:n], b[:n]))  # two figures of each
    unknown = "the reference holds mean and covariance only" if real is None else None
    no_logits = "these features come without logits" if samples.logits is None else None
    of_rng = lambda: np.random.default_rng(0)

    def discrepancy():
        h = median_distance(b, b) if bandwidth is None else bandwidth
        return maximum_mean_discrepancy(a[:n], b[:n], bandwidth=h)._asdict() | {"bandwidth": h}

    rows: dict[str, tuple[str | None, Callable[[], Any]]] = {
        frechet: (None, lambda: frechet_distance_of_moments(moments(a), reference)),
        kernel: (unknown, lambda: kernel_distance(a, b, rng=of_rng())),
        score: (no_logits, lambda: inception_score(logits, rng=of_rng())),
        "precision": (unknown, lambda: pair(precision_recall).precision),
        "recall": (unknown, lambda: pair(precision_recall).recall),
        "density": (unknown, lambda: pair(density_coverage).density),
        "coverage": (unknown, lambda: pair(density_coverage).coverage),
        "sliced_wasserstein": (
            unknown,
            lambda: sliced_wasserstein(a[:n], b[:n], projections=200, rng=of_rng()),
        ),
        "maximum_mean_discrepancy": (unknown, discrepancy),
    }
    metrics, left_out = {}, {}
    for name, (why, make) in rows.items():
        if why is None:
            try:
                metrics[name] = _plain(make())
                continue
            except ValueError as error:  # too few rows, for one; its message says so
                why = str(error)
        left_out[name] = why
    used = {} if real is None else {"kernel": min(len(a), len(real)), "pairs": n}
    return Compared(metrics, left_out, used)


def _plain(found: Any) -> Any:
    if isinstance(found, dict):
        return found
    return found._asdict() if hasattr(found, "_asdict") else float(found)
