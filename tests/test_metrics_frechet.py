"""The Fréchet distance and the sliced Wasserstein distance against closed forms."""

import numpy as np
import pytest

from score_jax.metrics import base
from score_jax.metrics.frechet import (
    Moments,
    frechet_distance,
    frechet_distance_of_moments,
    moments,
)
from score_jax.metrics.wasserstein import sliced_wasserstein

close = np.testing.assert_allclose


def correlated(n=400, d=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + rng.standard_normal(d)


def white(n, d, seed=0):
    """Rows with mean exactly 0 and covariance exactly 1."""
    x = np.random.default_rng(seed).standard_normal((n, d))
    x -= x.mean(0)
    return np.linalg.qr(x)[0] * np.sqrt(n - 1)


def rotation(d, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


def of_moments(a, b):
    return frechet_distance_of_moments(moments(a), moments(b))


both = pytest.mark.parametrize("distance", [frechet_distance, of_moments])


@both
def test_a_shift_has_its_squared_length_as_distance(distance):
    a, shift = correlated(), np.array([3.0, 0.0, -4.0, 0.0, 1.0])
    close(distance(a, a + shift), 26.0, rtol=1e-9)


@both
def test_a_scaling_about_the_mean_has_a_known_distance(distance):
    """Σ_b = k² Σ_a: tr(Σ_a + k² Σ_a - 2 k Σ_a) = (k - 1)² tr Σ_a."""
    a = correlated()
    b = a.mean(0) + 3.0 * (a - a.mean(0))
    close(distance(a, b), 4.0 * np.trace(np.cov(a.T)), rtol=1e-9)


@both
def test_commuting_gaussians_have_the_distance_of_their_standard_deviations(distance):
    """For covariances with the same axes: Σ_d (s_d - r_d)²; here the axes are a rotation's."""
    s, r = np.array([1.0, 2.0, 0.5, 3.0]), np.array([2.0, 0.1, 0.7, 1.0])
    a, b = white(500, 4) * s @ rotation(4), white(300, 4, seed=1) * r @ rotation(4)
    close(distance(a, b), ((s - r) ** 2).sum(), rtol=1e-9)


@both
def test_other_gaussians_have_that_of_the_eigenvalues_of_the_product(distance):
    """tr (Σ_a Σ_b)^½ is the sum of the roots of the eigenvalues of Σ_a Σ_b."""
    a, b = correlated(seed=1), correlated(n=300, seed=2)
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    assert np.abs(cov_a @ cov_b - cov_b @ cov_a).max() > 1.0
    cross = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real).sum()
    gap = ((a.mean(0) - b.mean(0)) ** 2).sum()
    close(distance(a, b), gap + np.trace(cov_a + cov_b) - 2.0 * cross, rtol=1e-9)


def test_covariances_without_a_common_direction_have_their_traces_as_distance():
    """Σ_a and Σ_b degenerate along different axes of a rotation: Σ_a Σ_b = 0."""
    axes = rotation(6)
    a, b = white(50, 2) * [3.0, 1.0] @ axes[:2], white(40, 3, seed=1) * [2.0, 1.0, 5.0] @ axes[3:]
    close(frechet_distance(a, b), 10.0 + 30.0, rtol=1e-13)
    close(of_moments(a, b), 10.0 + 30.0, rtol=1e-6)


def test_lines_that_meet_at_an_angle_have_a_known_distance():
    """Rank one both: Σ_a = s² u uᵀ, Σ_b = r² v vᵀ, tr (Σ_a Σ_b)^½ = s r |u·v|."""
    u, v = np.array([1.0, 0.0, 0.0]), np.array([0.6, 0.8, 0.0])
    a, b = 2.0 * white(20, 1) * u, 5.0 * white(30, 1, seed=1) * v
    expected = 4.0 + 25.0 - 2.0 * 2.0 * 5.0 * 0.6
    close(frechet_distance(a, b), expected, rtol=1e-13)
    close(of_moments(a, b), expected, rtol=1e-6)


def test_fewer_examples_than_features_are_no_trouble():
    """Of N < D rows the N x N products tell the same: tr (Σ_a Σ_b)^½ = |X_a X_bᵀ|_* / .."""
    a, b = correlated(n=7, d=30), correlated(n=9, d=30, seed=1)
    x, y = a - a.mean(0), b - b.mean(0)
    cross = np.linalg.norm(x @ y.T, "nuc") / np.sqrt(6 * 8)
    gap = ((a.mean(0) - b.mean(0)) ** 2).sum()
    expected = gap + (x**2).sum() / 6 + (y**2).sum() / 8 - 2.0 * cross
    close(frechet_distance(a, b), expected, rtol=1e-12)
    close(of_moments(a, b), expected, rtol=1e-6)
    close(frechet_distance(a, a + 1.0), 30.0, rtol=1e-12)


def test_the_distance_is_symmetric_and_zero_to_itself_and_blind_to_rotations():
    a, b, turn = correlated(seed=1), correlated(n=300, seed=2), rotation(5, seed=3)
    close(frechet_distance(a, b), frechet_distance(b, a), rtol=1e-12)
    close(frechet_distance(a @ turn, b @ turn), frechet_distance(a, b), rtol=1e-12)
    for x in (a, correlated(n=4, d=20)):
        scale = np.trace(np.cov(x.T))
        assert 0.0 <= frechet_distance(x, x) < 1e-13 * scale
        assert 0.0 <= of_moments(x, x) < 1e-13 * scale


def test_a_far_mean_costs_no_digits():
    a, b = correlated(seed=1), correlated(n=300, seed=2)
    close(frechet_distance(a + 1e6, b + 1e6), frechet_distance(a, b), rtol=1e-8)


def test_moments_are_numpy_s_and_blocks_of_rows_change_nothing(monkeypatch):
    a, b = correlated(seed=1), correlated(n=300, seed=2)
    whole = frechet_distance(a, b)
    monkeypatch.setattr(base, "BLOCK", 5 * 7)  # rows by seven
    found = moments(a)
    close(found.mean, a.mean(0), rtol=1e-12)
    close(found.covariance, np.cov(a.T), rtol=1e-12)
    assert found.count == 400
    close(frechet_distance(a, b), whole, rtol=1e-12)


@pytest.mark.parametrize(
    "other, message",
    [
        (Moments(np.zeros(3), np.eye(3)), r"got 2 and 3 of them"),
        (Moments(np.zeros(2), np.eye(3)), r"got \(2,\) and \(3, 3\)"),
        (Moments(np.eye(2), np.zeros(2)), r"got \(2, 2\) and \(2,\)"),
        (Moments(np.zeros(2), np.array([[1.0, np.nan], [0.0, 1.0]])), "covariance hold NaN"),
        (Moments(np.array([0.0, np.inf]), np.eye(2)), "mean hold NaN, infinity"),
        (Moments(np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]])), "symmetric"),
        (Moments(np.zeros(2), np.diag([1.0, -0.1])), "without negative eigenvalues"),
    ],
)
def test_moments_that_are_none_are_refused(other, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance_of_moments(Moments(np.zeros(2), np.eye(2)), other)


def test_a_single_precision_covariance_is_taken():
    """Published statistics are rounded: slightly negative eigenvalues are zeros."""
    a, b = correlated(n=10, d=40), correlated(n=200, d=40, seed=1)
    rounded = Moments(*(part.astype(np.float32) for part in moments(a)[:2]))
    close(frechet_distance_of_moments(rounded, moments(b)), frechet_distance(a, b), rtol=1e-3)


# Sliced Wasserstein


def sliced(a, b, seed=0, **options):
    return sliced_wasserstein(a, b, rng=np.random.default_rng(seed), **options)


def test_a_shift_has_its_squared_length_over_d_as_sliced_distance():
    a, shift = correlated(), np.array([3.0, 0.0, -4.0, 0.0, 1.0])
    found = sliced(a, a + shift, projections=4000)
    assert abs(found.value - 26.0 / 5) < 3.0 * found.standard_error
    assert found.standard_error < 0.02 * found.value


def test_a_scaling_of_white_features_has_a_known_sliced_distance():
    """Every direction has variance 1 and sees x and k x: (k - 1)², without spread."""
    a = white(400, 3)
    found = sliced(a, 3.0 * a)
    close(found.value, 4.0 * 399 / 400, rtol=1e-12)
    assert found.standard_error < 1e-12


def test_unequal_numbers_are_transported_exactly():
    """Rows repeated are the same distribution; in one dimension, also against pen and paper."""
    a, b = correlated(n=12), correlated(n=8, seed=1)
    close(sliced(a, b), sliced(np.repeat(a, 2, 0), np.repeat(b, 3, 0)), rtol=1e-12)
    # {0, 1, 2} onto {0, 3}: thirds 0->0, half of 1->0, half of 1->3, 2->3.
    few, fewer = np.array([[0.0], [1.0], [2.0]]), np.array([[3.0], [0.0]])
    close(sliced(few, fewer)[0], (1 / 6 + 4 / 6 + 1 / 3), rtol=1e-12)


def test_the_sliced_distance_is_symmetric_zero_to_itself_and_in_squared_units():
    a, b = correlated(n=60), correlated(n=45, seed=1)
    assert sliced(a, a[::-1]).value == 0.0
    close(sliced(a, b), sliced(b, a), rtol=1e-12)
    close(sliced(10.0 * a, 10.0 * b).value, 100.0 * sliced(a, b).value, rtol=1e-12)


def test_the_sliced_distance_s_standard_error_is_the_spread_over_directions():
    a, b = correlated(n=60), correlated(n=45, seed=1)
    found = [sliced(a, b, seed=seed, projections=50) for seed in range(300)]
    values, errors = np.array(found).T
    close(values.std(ddof=1), np.sqrt((errors**2).mean()), rtol=0.15)


def test_blocks_of_directions_change_nothing(monkeypatch):
    a, b = correlated(n=60), correlated(n=45, seed=1)
    whole = sliced(a, b)
    monkeypatch.setattr(base, "BLOCK", 1000)
    close(sliced(a, b), whole, rtol=1e-12)


def test_a_single_direction_is_refused():
    with pytest.raises(ValueError, match="at least 2 projections.*got 1"):
        sliced(correlated(), correlated(), projections=1)
