"""All figures of a set of samples beside real data, in one kind of features.

found = compare(samples, reference_features, moments, kind="inception")
found.metrics["fid"], found.left_out
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from score_jax.evaluation.features import Features
from score_jax.metrics.frechet import Moments, frechet_distance_of_moments, moments
from score_jax.metrics.kernel import kernel_distance, maximum_mean_discrepancy
from score_jax.metrics.neighbors import density_coverage, precision_recall
from score_jax.metrics.score import inception_score
from score_jax.metrics.wasserstein import sliced_wasserstein

PAIRED = 10_000  # rows of each set, at most, where all pairs are compared
WIDEST = 8_192  # features of which a covariance is made
# Names that are the literature's for Inception's features, and ours for any others.
NAMES = {
    True: ("fid", "kid", "inception_score"),
    False: ("frechet_distance", "kernel_distance", "classifier_score"),
}


class Compared(NamedTuple):
    """metrics: {name: number, or {"value", "standard_error" or "standard_deviation"}}.

    left_out: {name: why} of those that cannot be had. None is ever NaN.
    """

    metrics: dict[str, Any]
    left_out: dict[str, str]


def compare(
    samples: Features, real: np.ndarray | None, reference: Moments, *, kind: str
) -> Compared:
    """The figures of samples, features [N, D], against the real data's moments and features [M, D].

    real: in random order, or None where only the moments are known. What compares all pairs
    takes at most PAIRED rows of each, equally many. samples and real are taken in their order.
    """
    frechet, kernel, score = NAMES[kind == "inception"]
    a = samples.values
    n = 0 if real is None else min(len(a), len(real), PAIRED)
    pair = lambda metric: metric(a[:n], real[:n])
    unknown = "the reference holds mean and covariance only" if real is None else None
    too_wide = (
        f"{a.shape[1]:,} features: more than the {WIDEST:,} that a covariance is made of"
        if a.shape[1] > WIDEST
        else None
    )
    no_logits = "these features come without logits" if samples.logits is None else None
    of_rng = lambda: np.random.default_rng(0)
    rows: dict[str, tuple[str | None, Callable[[], Any]]] = {
        frechet: (too_wide, lambda: frechet_distance_of_moments(moments(a), reference)),
        kernel: (unknown, lambda: kernel_distance(a, real, rng=of_rng())),
        score: (no_logits, lambda: inception_score(samples.logits, rng=of_rng())),
        "precision": (unknown, lambda: pair(precision_recall).precision),
        "recall": (unknown, lambda: pair(precision_recall).recall),
        "density": (unknown, lambda: pair(density_coverage).density),
        "coverage": (unknown, lambda: pair(density_coverage).coverage),
        "sliced_wasserstein": (
            unknown,
            lambda: sliced_wasserstein(a[:n], real[:n], projections=200, rng=of_rng()),
        ),
        "maximum_mean_discrepancy": (unknown, lambda: pair(maximum_mean_discrepancy)),
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
    return Compared(metrics, left_out)


def _plain(found: Any) -> Any:
    return found._asdict() if hasattr(found, "_asdict") else float(found)
