"""Kernel distances against expectations in closed form; the Inception score's limits."""

import math

import numpy as np
import pytest

from score_jax.metrics import base
from score_jax.metrics.frechet import frechet_distance, moments
from score_jax.metrics.kernel import (
    kernel_distance,
    kernel_distance_of_subsets,
    maximum_mean_discrepancy,
    median_distance,
    squared_mmd,
)
from score_jax.metrics.neighbors import density_coverage, nearest, precision_recall
from score_jax.metrics.score import inception_score
from score_jax.metrics.wasserstein import sliced_wasserstein

close = np.testing.assert_allclose


def polynomial(x, y):
    return (x @ y.T / x.shape[1] + 1.0) ** 3


# Two distributions on a few points each: their MMD² is a finite sum.
RNG = np.random.default_rng(0)
P = RNG.standard_normal((6, 3))
Q = P[:5] + 0.3 * RNG.standard_normal((5, 3))
TRUTH = float(polynomial(P, P).mean() + polynomial(Q, Q).mean() - 2.0 * polynomial(P, Q).mean())


def draws(points, n, rng):
    return points[rng.integers(0, len(points), n)]


def within(values, truth, errors=4.0):
    """How many standard errors of their mean lie between the mean of values and the truth."""
    return abs(np.mean(values) - truth) < errors * np.std(values, ddof=1) / math.sqrt(len(values))


def test_the_kernel_distance_is_unbiased_and_the_biased_one_would_be_found_out():
    rng = np.random.default_rng(1)
    blocks, subsets, biased = [], [], []
    for _ in range(400):
        a, b = draws(P, 40, rng), draws(Q, 40, rng)
        blocks.append(kernel_distance(a, b).value)
        subsets.append(kernel_distance_of_subsets(a, b, subsets=3, size=20, rng=rng).value)
        kernels = polynomial(a, a), polynomial(b, b), polynomial(a, b)
        biased.append(kernels[0].mean() + kernels[1].mean() - 2.0 * kernels[2].mean())
    assert within(blocks, TRUTH) and within(subsets, TRUTH)
    assert not within(biased, TRUTH)


def test_squared_mmd_is_the_mean_over_pairs_of_different_rows():
    a, b = RNG.standard_normal((4, 3)), RNG.standard_normal((6, 3))
    k = lambda x, y: (x @ y / 3 + 1.0) ** 3
    pairs = lambda x: [k(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]
    expected = (
        np.mean(pairs(a)) + np.mean(pairs(b)) - 2.0 * np.mean([k(x, y) for x in a for y in b])
    )
    close(squared_mmd(polynomial(a, a), polynomial(b, b), polynomial(a, b)), expected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"got \(4, 4\), \(6, 6\) and \(6, 4\)"):
        squared_mmd(polynomial(a, a), polynomial(b, b), polynomial(b, a))


@pytest.mark.parametrize("other", [Q, P], ids=["different", "equal"])
def test_the_kernel_distance_s_standard_error_is_that_of_replications(other):
    rng = np.random.default_rng(2)
    found = [kernel_distance(draws(P, 200, rng), draws(other, 230, rng)) for _ in range(400)]
    values, errors = np.array(found).T
    close(values.std(ddof=1), np.sqrt((errors**2).mean()), rtol=0.12)


def test_the_deviation_over_subsets_is_no_standard_error():
    """With more subsets of the same rows, deviation/√subsets claims ever more, and is wrong."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(100):
        a, b = draws(P, 60, rng), draws(Q, 60, rng)
        found.append(kernel_distance_of_subsets(a, b, subsets=100, size=50, rng=rng))
    values, deviations = np.array(found).T
    assert values.std() > 1.5 * deviations.mean()  # not the deviation itself,
    assert values.std() > 15.0 * deviations.mean() / math.sqrt(100)  # and still less this


def test_the_kernel_distance_takes_disjoint_blocks_in_order():
    a, b = RNG.standard_normal((47, 3)), RNG.standard_normal((44, 3))
    blocks = [slice(4 * i, 4 * i + 4) for i in range(11)]
    k = polynomial
    parts = [squared_mmd(k(a[s], a[s]), k(b[s], b[s]), k(a[s], b[s])) for s in blocks]
    found = kernel_distance(a, b)  # size 1000 is too large: ten blocks of 4, and one more fits
    close(found, (np.mean(parts), np.std(parts, ddof=1) / math.sqrt(11)), rtol=1e-10)
    close(kernel_distance(a, b, size=4), found)
    shuffled = kernel_distance(a, b, rng=np.random.default_rng(0))
    again = np.random.default_rng(0)
    close(kernel_distance(a[again.permutation(47)], b[again.permutation(44)]), shuffled)
    assert shuffled.value != found.value


# The Gaussian kernel

D, H, SHIFT, SCALE = 3, 1.5, 0.7, 1.3


def gaussian_kernel_mean(gap, variance):
    """E exp(-|x - y|²/2h²) for x - y ~ N(gap in each of D dimensions, variance I)."""
    total = H**2 + variance
    return (H**2 / total) ** (D / 2) * math.exp(-D * gap**2 / (2.0 * total))


def gaussian_draws(n, m, rng, equal=False):
    a, b = rng.standard_normal((n, D)), rng.standard_normal((m, D))
    return a, b if equal else SCALE * b + SHIFT


def replications(equal, times=400):
    rng = np.random.default_rng(4)
    pairs = (gaussian_draws(60, 60 if equal else 45, rng, equal) for _ in range(times))
    return np.array([maximum_mean_discrepancy(a, b, bandwidth=H) for a, b in pairs]).T


def test_the_discrepancy_of_gaussians_is_the_closed_form_on_average():
    values, errors = replications(equal=False)
    truth = gaussian_kernel_mean(0.0, 2.0) + gaussian_kernel_mean(0.0, 2.0 * SCALE**2)
    truth -= 2.0 * gaussian_kernel_mean(SHIFT, 1.0 + SCALE**2)
    assert within(values, truth)
    assert not within(values + 1.0 / 60, truth)  # a tenth of what a biased estimate adds
    close(values.std(ddof=1), np.sqrt((errors**2).mean()), rtol=0.15)


def test_for_equal_distributions_the_discrepancy_is_zero_on_average_and_its_error_is_wide():
    """By √2, as documented: the first order vanishes and what is left is counted twice."""
    values, errors = replications(equal=True)
    assert within(values, 0.0) and (values < 0).mean() > 0.3
    close(np.sqrt((errors**2).mean()) / values.std(ddof=1), math.sqrt(2.0), rtol=0.15)


def test_the_discrepancy_is_squared_mmd_of_the_gaussian_kernel(monkeypatch):
    a, b = gaussian_draws(30, 23, np.random.default_rng(5))
    a, b = a + 100.0, b + 100.0
    k = lambda x, y: np.exp(-((x[:, None] - y) ** 2).sum(-1) / (2.0 * H**2))
    expected = squared_mmd(k(a, a), k(b, b), k(a, b))
    whole = maximum_mean_discrepancy(a, b, bandwidth=H)
    close(whole.value, expected, rtol=1e-10)
    monkeypatch.setattr(base, "BLOCK", 100)  # rows by four
    close(maximum_mean_discrepancy(a, b, bandwidth=H), whole, rtol=1e-12)


def test_the_default_bandwidth_is_the_median_distance(monkeypatch):
    a, b = gaussian_draws(30, 20, np.random.default_rng(6))
    pooled = np.concatenate([a, b])
    pairs = np.triu_indices(50, 1)  # an odd number, so that the median is one of them
    expected = np.median(np.sqrt(((pooled[:, None] - pooled) ** 2).sum(-1))[pairs])
    close(median_distance(a, b), expected, rtol=1e-12)
    h = median_distance(a, b)
    close(maximum_mean_discrepancy(a, b), maximum_mean_discrepancy(a, b, bandwidth=h))
    monkeypatch.setattr("score_jax.metrics.kernel.MEDIAN_ROWS", 10)
    assert median_distance(a, b) == median_distance(a[::3], b[::2]) != h


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, math.nan, math.inf])
def test_a_bandwidth_that_is_none_is_refused(bandwidth):
    with pytest.raises(ValueError, match="positive, finite bandwidth, got"):
        maximum_mean_discrepancy(P, Q, bandwidth=bandwidth)


def test_a_median_of_zero_is_refused():
    with pytest.raises(ValueError, match="half of all distances are zero, so give one"):
        maximum_mean_discrepancy(np.zeros((9, 2)), np.zeros((5, 2)))


# The Inception score


def test_a_classifier_that_knows_nothing_gives_one_and_one_that_knows_all_gives_k():
    close(inception_score(np.full((60, 7), 3.0)), (1.0, 0.0), atol=1e-12)
    one_hot = 1e4 * np.eye(6)[np.arange(120) % 6]
    close(inception_score(one_hot), (6.0, 0.0), atol=1e-9)
    # All of one class, the others impossible even for float64: nothing to tell apart.
    close(inception_score(1e20 * np.eye(6)[np.zeros(40, int)]), (1.0, 0.0), atol=1e-12)


def test_the_score_is_the_exponential_of_entropies_and_blind_to_constants():
    """E KL(p(y|x) ‖ p(y)) = H(mean p) - mean H(p)."""
    logits = np.random.default_rng(0).standard_normal((50, 4)) * 2.0
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    entropy = lambda p: -(p * np.log(p)).sum(-1)
    expected = np.exp(entropy(p.mean(0)) - entropy(p).mean())
    close(inception_score(logits, splits=1), (expected, 0.0), rtol=1e-12)
    close(inception_score(logits + 1e6, splits=1)[0], expected, rtol=1e-8)


def test_a_generator_permutes_the_rows_and_splits_have_a_deviation():
    logits = np.repeat(8.0 * np.eye(5), 20, axis=0)  # sorted by class
    assert inception_score(logits, splits=5).value < 1.01
    assert inception_score(logits, splits=5, rng=np.random.default_rng(0)).value > 3.5
    halves = [inception_score(logits[i : i + 50], splits=1).value for i in (0, 50)]
    close(inception_score(logits, splits=2), (np.mean(halves), np.std(halves)), atol=1e-12)


# What all of them refuse

METRICS = {
    "frechet_distance": frechet_distance,
    "kernel_distance": kernel_distance,
    "kernel_distance_of_subsets": lambda a, b: kernel_distance_of_subsets(
        a, b, size=2, rng=np.random.default_rng(0)
    ),
    "maximum_mean_discrepancy": maximum_mean_discrepancy,
    "sliced_wasserstein": lambda a, b: sliced_wasserstein(a, b, rng=np.random.default_rng(0)),
    "precision_recall": precision_recall,
    "density_coverage": density_coverage,
    "nearest": nearest,
    "moments": lambda a, b: (moments(a), moments(b)),
    "inception_score": lambda a, b: (inception_score(a), inception_score(b)),
}
GOOD = np.random.default_rng(0).standard_normal((30, 3))


def with_entry(value):
    bad = GOOD.copy()
    bad[7, 1] = value
    return bad


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e200])
def test_every_metric_refuses_numbers_that_are_not_finite(name, value):
    for pair in ((with_entry(value), GOOD), (GOOD, with_entry(value))):
        with pytest.raises(ValueError, match="1 of 30 rows, first in row 7"):
            METRICS[name](*pair)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("bad", [GOOD[0], GOOD[:0], GOOD[:, :0], GOOD[None]])
def test_every_metric_refuses_other_shapes(name, bad):
    for pair in ((bad, GOOD), (GOOD, bad)):
        with pytest.raises(ValueError, match=r"expected .* got"):
            METRICS[name](*pair)


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"moments", "inception_score"}))
def test_every_metric_of_two_sets_refuses_unequal_features(name):
    with pytest.raises(ValueError, match=r"got \(30, 3\) and \(30, 2\)"):
        METRICS[name](GOOD, GOOD[:, :2])


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"nearest"}))
def test_every_metric_refuses_a_single_row(name):
    for pair in ((GOOD[:1], GOOD), (GOOD, GOOD[:1])):
        with pytest.raises(ValueError, match=r"got \(|got 1 rows"):
            METRICS[name](*pair)


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"moments"}))
def test_every_metric_is_finite_for_the_largest_and_the_smallest_numbers(name):
    for size in (base.LARGEST / np.abs(GOOD).max() * (1 - 1e-9), 1e-30, 1e-100):
        found = METRICS[name](size * GOOD, -size * GOOD)
        assert np.isfinite(np.concatenate([np.ravel(part) for part in np.atleast_1d(found)])).all()


@pytest.mark.parametrize("rows, size", [(19, 1000), (40, 1)])
def test_too_few_rows_for_blocks_are_refused(rows, size):
    with pytest.raises(ValueError, match=f"got size = {size} of {rows} and 40 rows"):
        kernel_distance(np.ones((rows, 2)), np.ones((40, 2)), size=size)


@pytest.mark.parametrize("subsets, size", [(0, 5), (3, 1), (3, 31)])
def test_subsets_that_cannot_be_are_refused(subsets, size):
    with pytest.raises(ValueError, match=f"got subsets = {subsets} and size = {size}"):
        rng = np.random.default_rng(0)
        kernel_distance_of_subsets(GOOD, GOOD, subsets=subsets, size=size, rng=rng)


def test_splits_of_fewer_than_two_rows_are_refused():
    with pytest.raises(ValueError, match="got 30 rows and splits = 16: take fewer splits"):
        inception_score(GOOD, splits=16)
