"""Averages of any length, from snapshots of two."""

import numpy as np
import pytest

from score_jax.errors import CannotWrite, UserError
from score_jax.power_ema import WIDEST, Profile, coefficients, decay, exponent, overlap
from score_jax.training.averages import average, keep

close = np.testing.assert_allclose


def density(profile, t):
    """p(τ) on a grid of steps."""
    gamma = exponent(profile.sigma_rel)
    inside = (gamma + 1) * t**gamma / profile.step ** (gamma + 1)
    return np.where(t <= profile.step, inside, 0.0)


def run(trajectory, sigma_rel):
    """The averages θ̂_1, θ̂_2 .. of θ_1, θ_2 .., by the recursion that training uses."""
    gamma, found, current = exponent(sigma_rel), [], np.full(np.shape(trajectory[0]), 1e6)
    for n, theta in enumerate(trajectory, start=1):
        beta = float(decay(gamma, n))
        current = beta * current + (1 - beta) * theta
        found.append(current)
    return np.array(found)


@pytest.mark.parametrize("sigma_rel", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_a_profile_has_the_standard_deviation_that_it_is_named_by(sigma_rel):
    t = (np.arange(1_000_000) + 0.5) / 1_000_000
    p = density(Profile(1, sigma_rel), t)
    mean, gamma = (p * t).mean(), exponent(sigma_rel)
    close(p.mean(), 1.0, rtol=1e-6)
    close(mean, (gamma + 1) / (gamma + 2), rtol=1e-6)
    close(np.sqrt((p * (t - mean) ** 2).mean()), sigma_rel, rtol=1e-6)


def test_the_widest_is_the_plain_mean():
    assert exponent(WIDEST) == pytest.approx(0.0, abs=1e-12)
    trajectory = np.random.default_rng(0).standard_normal((50, 3))
    close(run(trajectory, WIDEST)[-1], trajectory.mean(0), rtol=1e-5)


@pytest.mark.parametrize("sigma_rel", [0.0, -0.1, 0.3, float("nan")])
def test_a_length_that_no_average_has_is_refused(sigma_rel):
    with pytest.raises(UserError, match=r"must lie in \(0, 0.2887\]"):
        exponent(sigma_rel)


@pytest.mark.parametrize(
    ("a", "b"), [((30, 0.05), (100, 0.1)), ((100, 0.05), (30, 0.1)), ((50, 0.2), (50, 0.1))]
)
def test_the_overlap_is_the_integral_of_the_product(a, b):
    a, b = Profile(*a), Profile(*b)
    t = (np.arange(1_000_000) + 0.5) / 10_000
    close(overlap(a, b), (density(a, t) * density(b, t)).mean() * 100, rtol=1e-5)


def test_the_first_update_forgets_the_initial_parameters():
    assert run(np.array([[3.0]]), 0.1)[0, 0] == 3.0


def test_the_average_of_constant_parameters_is_constant_and_that_of_linear_ones_known():
    """Of θ_k = k: Σ_k k ((k/T)^g - ((k-1)/T)^g) = T - Σ_{k<T} (k/T)^g, g = γ + 1."""
    close(run(np.full((40, 2), 1.7), 0.07), 1.7, rtol=1e-6)
    steps, g = np.arange(1, 41), exponent(0.07) + 1
    close(run(steps.astype(float), 0.07)[-1], 40 - ((steps[:-1] / 40) ** g).sum(), rtol=1e-5)


def test_what_was_tracked_comes_back_exactly():
    profiles = [Profile(step, s) for step in (10, 20, 30) for s in (0.05, 0.1)]
    for i in (0, 3, 5):
        weights, error = coefficients(profiles, profiles[i])
        close(weights, np.eye(6)[i], atol=1e-8)
        assert error < 1e-6


def test_more_snapshots_come_nearer_and_a_length_between_is_nearer_than_one_outside():
    def left(n, wanted):
        profiles = [Profile(1000 * (k + 1) // n, s) for k in range(n) for s in (0.05, 0.1)]
        return coefficients(profiles, Profile(1000, wanted))[1]

    assert left(4, 0.07) > 2 * left(8, 0.07) > 8 * left(32, 0.07) > 0
    assert left(16, 0.07) < left(16, 0.15) < left(16, 0.25)
    assert left(16, 0.07) < 0.005 and left(4, 0.01) > 0.5


def test_the_error_is_that_of_the_profiles():
    """By quadrature of (Σ w_i p_i - p)²."""
    profiles = [Profile(step, s) for step in (25, 50, 75, 100) for s in (0.05, 0.1)]
    wanted, t = Profile(100, 0.15), (np.arange(1_000_000) + 0.5) / 10_000
    weights, error = coefficients(profiles, wanted)
    p = density(wanted, t)
    sum_ = sum(w * density(profile, t) for w, profile in zip(weights, profiles))
    close(error, np.sqrt(((sum_ - p) ** 2).mean() / (p**2).mean()), rtol=1e-4)
    nudged = weights + 1e-3 * np.random.default_rng(0).standard_normal(len(weights))
    worse = sum(w * density(profile, t) for w, profile in zip(nudged, profiles))
    assert ((worse - p) ** 2).mean() > ((sum_ - p) ** 2).mean()


def test_an_average_made_afterwards_is_the_one_that_training_would_have_kept(tmp_path):
    """Parameters on a random walk; snapshots of 0.05 and 0.1 every 50 steps; 0.075 wanted."""
    rng = np.random.default_rng(1)
    walk = np.cumsum(rng.standard_normal((1000, 6)), axis=0)
    kept = {s: run(walk, s) for s in (0.05, 0.1)}
    for step in range(50, 1001, 50):
        trees = [{"a": {"w": kept[s][step - 1].astype(np.float32)}} for s in kept]
        keep(tmp_path, step, tuple(kept), trees)
    like = {"a": {"w": np.zeros(6, np.float32)}}
    wanted = run(walk, 0.075)
    params, made = average(tmp_path, 1000, 0.075, like=like)
    close(params["a"]["w"], wanted[999], atol=0.02)
    assert np.abs(kept[0.05][999] - wanted[999]).max() > 1.0  # which is not easy
    assert made["snapshots"] == 20 and made["step"] == 1000 and made["left_of_profile"] < 0.003
    params, made = average(tmp_path, 730, 0.075, like=like)
    close(params["a"]["w"], wanted[699], atol=0.05)
    assert made["step"] == 700 and made["snapshots"] == 14


def test_a_length_out_of_reach_is_said(tmp_path, capsys):
    keep(tmp_path, 10, (0.1,), [{"w": np.ones(2, np.float32)}])
    average(tmp_path, 10, 0.02, like={"w": np.ones(2)})
    assert "an average of length 0.02 cannot be made well of 1 snapshots" in capsys.readouterr().out


def test_mistakes_are_told(tmp_path):
    like = {"w": np.ones(2)}
    with pytest.raises(UserError, match="there are none in .*averages; train with training.power"):
        average(tmp_path, 10, 0.1, like=like)
    keep(tmp_path, 10, (0.1,), [{"w": np.ones(3, np.float32)}])
    with pytest.raises(UserError, match=r"not of this network: w \(2,\) is not there"):
        average(tmp_path, 10, 0.1, like=like)
    with pytest.raises(UserError, match="there are none"):
        average(tmp_path, 9, 0.1, like=like)
    (tmp_path / "averages" / "000000010.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="damaged"):
        average(tmp_path, 10, 0.1, like=like)
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="could not keep the averages of step 3"):
        keep(tmp_path / "file", 3, (0.1,), [like])
