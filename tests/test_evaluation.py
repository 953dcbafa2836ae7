"""The Fréchet distance in closed form, and features that know a digit from noise."""

import numpy as np
import pytest

from score_jax.data.arrays import digits
from score_jax.evaluation.features import classifier_features, train_classifier
from score_jax.evaluation.metrics import frechet_distance

close = np.testing.assert_allclose


def correlated(n=400, d=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + rng.standard_normal(d)


def test_a_shift_has_its_squared_length_as_distance():
    a, shift = correlated(), np.array([3.0, 0.0, -4.0, 0.0, 1.0])
    close(frechet_distance(a, a + shift), 26.0, rtol=1e-9)


def test_a_scaling_about_the_mean_has_a_known_distance():
    """Σ_b = k² Σ_a: tr(Σ_a + k² Σ_a - 2 k Σ_a) = (k - 1)² tr Σ_a."""
    a = correlated()
    b = a.mean(0) + 3.0 * (a - a.mean(0))
    close(frechet_distance(a, b), 4.0 * np.trace(np.cov(a.T)), rtol=1e-9)


def test_commuting_gaussians_have_the_distance_of_their_standard_deviations():
    """For covariances with the same axes: Σ_d (s_d - r_d)²; here the axes are a rotation's."""
    rng = np.random.default_rng(1)
    white = np.linalg.qr(rng.standard_normal((500, 4)) - rng.standard_normal(4))[0]
    white = white - white.mean(0)
    white = np.linalg.qr(white)[0] * np.sqrt(len(white) - 1)  # exact unit covariance
    axes = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    s, r = np.array([1.0, 2.0, 0.5, 3.0]), np.array([2.0, 0.1, 0.7, 1.0])
    close(frechet_distance(white * s @ axes, white * r @ axes), ((s - r) ** 2).sum(), rtol=1e-9)


def test_the_distance_is_symmetric_and_zero_to_itself():
    a, b = correlated(seed=1), correlated(seed=2)
    close(frechet_distance(a, b), frechet_distance(b, a), rtol=1e-9)
    assert abs(frechet_distance(a, a)) < 1e-9


def test_a_degenerate_covariance_is_no_trouble():
    """Fewer examples than features, as in small runs."""
    a = correlated(n=3, d=5)
    assert np.isfinite(frechet_distance(a, a + 1.0))
    close(frechet_distance(a, a + 1.0), 5.0, rtol=1e-6)


def test_unequal_features_are_refused():
    with pytest.raises(ValueError, match=r"got \(10, 3\) and \(10, 4\)"):
        frechet_distance(np.zeros((10, 3)), np.zeros((10, 4)))


def test_the_classifiers_features_tell_real_digits_from_noise_and_blur():
    """Order known beforehand: halves of the data < blurred digits < noise."""
    data = digits()
    params = train_classifier(data.examples, data.labels, steps=200)
    features = lambda x: classifier_features(params, x)
    real = features(data.examples)
    x = data.examples.astype(np.float32)
    blurred = ((x + np.roll(x, 1, 1) + np.roll(x, 1, 2) + np.roll(x, (1, 1), (1, 2))) / 4).astype(
        np.uint8
    )
    noise = np.random.default_rng(0).integers(0, 256, data.examples.shape, dtype=np.uint8)
    halves = frechet_distance(real[::2], real[1::2])
    assert 3 * halves < frechet_distance(features(blurred), real)
    assert frechet_distance(features(blurred), real) < frechet_distance(features(noise), real)
