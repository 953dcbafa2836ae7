"""Views of a prediction: conversions, Tweedie's formula against exact posteriors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import exact_score, make_process, mixture, times

from score_jax.errors import UserError
from score_jax.predictions import (
    VIEWS,
    Parameterization,
    check_parameterization,
    clipped,
    from_score,
    make_predict,
    read,
    target,
)
from score_jax.processes import PROCESSES, add_noise

close = np.testing.assert_allclose
X_0, EPS = np.array([0.3, -1.2, 0.8]), np.array([-0.5, 0.1, 1.4])


@pytest.mark.parametrize("view", VIEWS)
def test_reading_any_view_of_the_truth_gives_all_of_it(view, process, x64):
    for t in times():
        truth = target(process, X_0, EPS, t)
        x_t = add_noise(process, X_0, EPS, t)
        for name, value in read(view, getattr(truth, view), process, x_t, t)._asdict().items():
            close(value, getattr(truth, name), rtol=1e-7, atol=1e-7, err_msg=f"{view} to {name}")


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(VIEWS, 2)))
def test_views_round_trip(first, second, process, x64):
    x, y, t = jnp.array([0.4, -0.7]), jnp.array([1.1, 0.2]), 0.37
    there = getattr(read(first, y, process, x, t), second)
    close(getattr(read(second, there, process, x, t), first), y, rtol=1e-9)


@pytest.mark.parametrize("view", VIEWS)
def test_the_networks_own_view_passes_through_untouched(view, process):
    y = jnp.array([0.1, 0.7])
    assert np.array_equal(getattr(read(view, y, process, y + 1, 0.5), view), y)


def test_velocity_is_the_time_derivative_of_the_path(process, x64):
    t, h = 0.4321, 1e-6
    path = lambda t: add_noise(process, X_0, EPS, t)
    close(target(process, X_0, EPS, t).velocity, (path(t + h) - path(t - h)) / (2 * h), rtol=1e-6)


def test_x0_read_from_the_exact_score_is_the_posterior_mean(process, x64):
    """Tweedie's formula against E[x_0 | x_t] of the mixture by Bayes' rule, per component."""
    p, x = mixture(), jnp.array([0.6, -0.4])
    for t in times():
        alpha, sigma = process.alpha(t), process.sigma(t)
        noised = p.noised(alpha, sigma)
        gain = alpha * p.stds**2 / noised.stds**2
        means = p.means + gain * (x - alpha * p.means)
        posterior_mean = jax.nn.softmax(noised.component_log_probs(x)) @ means
        close(from_score(process, exact_score(process, p))(x, t).x0, posterior_mean, rtol=1e-6)


def test_the_mixtures_score_is_the_gradient_of_its_log_probability(x64):
    p = mixture()
    for x in (jnp.array([0.1, 0.2]), jnp.array([3.0, -4.0])):
        close(p.score(x), jax.grad(p.log_prob)(x), rtol=1e-10)


def test_a_clipped_prediction_stays_consistent(process, x64):
    x, t = jnp.array([3.0, -0.2, 0.9]), 0.6
    predict = from_score(process, lambda x, t: -x)
    got = clipped(predict, process, -1.0, 1.0)(x, t)
    close(got.x0, np.clip(predict(x, t).x0, -1, 1))
    close(add_noise(process, got.x0, got.eps, t), x, rtol=1e-10)


@pytest.mark.parametrize("levels", [10, 1000])
def test_the_level_condition_counts_the_ladder_from_zero(levels):
    process = PROCESSES["ddpm"](beta_min=1e-4, beta_max=0.02, levels=levels)
    asked = lambda x, c: jnp.full_like(x, c)
    predict = make_predict(asked, process, Parameterization("eps", "level"))
    for i in (0, 1, levels // 2, levels - 1):
        close(predict(jnp.zeros(1), (i + 1) / levels).eps, i, atol=1e-3)


def test_a_level_condition_without_a_ladder_is_refused():
    with pytest.raises(UserError, match="needs a process with a ladder"):
        check_parameterization(make_process("vp"), Parameterization("eps", "level"))


def test_an_unknown_view_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'eps'"):
        check_parameterization(make_process("vp"), Parameterization("epss", "time"))
