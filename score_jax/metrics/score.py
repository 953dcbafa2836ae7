"""The Inception score: whether a classifier is sure of each sample and unsure of them all."""

import numpy as np
from jaxtyping import Real

from score_jax.metrics.base import Spread, finite


def inception_score(
    logits: Real[np.ndarray, "N K"],
    *,
    splits: int = 10,
    rng: np.random.Generator | np.random.RandomState | None = None,
) -> Spread:
    """exp E_x KL(p(y|x) ‖ p(y)) of a classifier's logits [N, K]: from 1 to K, higher is better.

    Salimans et al. 2016 (arXiv 1606.03498), section 4, with Inception's 1008 or 1000 classes:
    for another classifier it is another figure. p(y) is the mean over a split of the rows,
    ⌊iN/splits⌋ to ⌊(i+1)N/splits⌋; the value is the mean over the splits and standard_deviation
    that over them. It depends on the rows in a split: with few, the score is too low.

    rng: rows are permuted by rng.permutation(N) first; with np.random.RandomState(2020) the
    figures are those of torch-fidelity 0.4. Without, rows are taken as they come, and
    must not be sorted by class.
    Raises ValueError for other shapes, numbers that are not finite, splits < 1 and fewer than
    two rows a split.
    """
    logits = np.asarray(logits, np.float64)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"expected logits [N, K] of K >= 2 classes, got {logits.shape}")
    if splits < 1 or len(logits) < 2 * splits:
        raise ValueError(
            f"expected at least two rows a split, got {len(logits)} rows and splits = {splits}: "
            "take fewer splits or more samples"
        )
    finite(logits, "the logits")
    if rng is not None:
        logits = logits[rng.permutation(len(logits))]
    edges = np.arange(splits + 1) * len(logits) // splits
    values = [_score(logits[i:j]) for i, j in zip(edges[:-1], edges[1:])]
    return Spread(float(np.mean(values)), float(np.std(values)))


def _score(logits: np.ndarray) -> float:
    log_p = logits - _log_sum_exp(logits, 1)
    # In logarithms to the end: a class that no row has a chance of would be 0 log(0/0).
    log_mean = _log_sum_exp(log_p, 0) - np.log(len(log_p))
    return float(np.exp((np.exp(log_p) * (log_p - log_mean)).sum(1).mean()))


def _log_sum_exp(x: np.ndarray, axis: int) -> np.ndarray:
    most = x.max(axis, keepdims=True)
    return most + np.log(np.exp(x - most).sum(axis, keepdims=True))
