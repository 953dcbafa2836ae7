"""Reverse variances: the analytic one is right where that is known, and the best elsewhere."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draws, make_process, mixture, tiny_config, write_config

from score_jax.build import build
from score_jax.densities import GaussianMixture
from score_jax.errors import UserError
from score_jax.losses.decoders import gaussian
from score_jax.losses.variational import bound
from score_jax.main import main
from score_jax.models.base import init_params
from score_jax.predictions import exact
from score_jax.processes import Tabulated, posterior, transition
from score_jax.samplers import base
from score_jax.samplers.ancestral import ancestral
from score_jax.sampling import make_draw
from score_jax.variances import (
    analytic_variance,
    between,
    eps_errors,
    reverse_log_variance,
    small_log_variance,
)

pytestmark = pytest.mark.usefixtures("quick_compile")

STEPS = [(0.1, 0.2), (0.45, 0.5), (0.2, 0.9)]


def gaussian_error(process, t, std):
    """E|ε - E[ε | x_t]|²/D for x_0 ~ N(m, std² I): α² std²/(α² std² + σ²)."""
    signal = (process.alpha(t) * std) ** 2
    return signal / (signal + process.sigma(t) ** 2)


def mean_errors(process, density, times, n=10_000):
    """What `eps_errors` says of the exact denoiser, averaged over n draws."""

    def one(key):
        data_key, key = jax.random.split(key)
        x_0 = density.sample(data_key)
        return eps_errors(key, process, exact(process, density), x_0, times)

    return np.asarray(draws(one, n, seed=7), np.float64).mean(0)


@pytest.mark.parametrize(("s", "t"), STEPS)
@pytest.mark.parametrize("std", [0.4, 2.3])
def test_for_gaussian_data_it_is_the_variance_of_the_true_reverse_step(process, std, s, t, x64):
    """q(x_s | x_t) is Gaussian then, of precision 1/Var x_s + a²/β, by Bayes' rule."""
    a, deviation = transition(process, s, t)
    variance_s = (process.alpha(s) * std) ** 2 + process.sigma(s) ** 2
    expected = 1.0 / (1.0 / variance_s + (a / deviation) ** 2)
    got = analytic_variance(process, s, t, gaussian_error(process, t, std))
    np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.parametrize(("s", "t"), STEPS)
def test_it_lies_between_what_is_known_of_a_point_and_of_nothing(process, s, t, x64):
    """c² <= v <= β/a²: Bao et al. 2022, theorem 2. Beyond an error of 1, nothing is known."""
    low, high = (analytic_variance(process, s, t, error) for error in (0.0, 1.0))
    a, deviation = transition(process, s, t)
    np.testing.assert_allclose(low, posterior(process, s, t)[2] ** 2, rtol=1e-9)
    np.testing.assert_allclose(high, (deviation / a) ** 2, rtol=1e-9)
    assert analytic_variance(process, s, t, 1.7) == high


@pytest.mark.parametrize("name", ["vp", "ddpm", "cosine"])
@pytest.mark.parametrize(("s", "t"), STEPS)
def test_for_data_of_less_than_unit_variance_it_lies_between_small_and_large(name, s, t, x64):
    process = make_process(name)
    error = gaussian_error(process, t, 0.4)
    small, large, analytic = (
        reverse_log_variance(process, s, t, kind, error=error)
        for kind in ("small", "large", "analytic")
    )
    assert small < analytic < large


def test_the_errors_are_those_of_the_noise_as_bao_et_al_count_them():
    """For the exact ε_θ, E|ε - ε_θ|² = D - E|ε_θ|², and known for Gaussian data."""
    process, times = make_process("ddpm"), np.array([0.1, 0.4, 0.8])
    p = GaussianMixture(np.ones(1), np.array([[2.0, -1.0]]), np.array([0.4]))
    errors = mean_errors(process, p, times)
    np.testing.assert_allclose(errors, gaussian_error(process, times, 0.4), rtol=0.05)

    def second_moments(key):
        data_key, key = jax.random.split(key)
        eps, x_0 = jax.random.normal(key, (2,)), mixture().sample(data_key)
        x_t = lambda t: process.alpha(t) * x_0 + process.sigma(t) * eps
        ask = exact(process, mixture())
        return jnp.stack([jnp.mean(ask(x_t(t), t).eps ** 2) for t in times])

    moments = np.asarray(draws(second_moments, 40_000), np.float64).mean(0)
    np.testing.assert_allclose(
        mean_errors(process, mixture(), times, 40_000), 1 - moments, atol=0.02
    )


def test_the_first_step_of_a_ladder_has_the_small_variance_of_the_second(x64):
    betas = np.linspace(0.01, 0.3, 12)
    bar = np.cumprod(1 - betas)
    small = betas[1:] * (1 - bar[:-1]) / (1 - bar[1:])
    process = Tabulated.from_betas(betas)
    got = [small_log_variance(process, i / 12, (i + 1) / 12) for i in range(12)]
    np.testing.assert_allclose(np.exp(got), [small[0], *small], rtol=1e-9)


LADDER = Tabulated.from_betas(np.linspace(1e-4, 0.02, 20) * 40)
TIMES = np.arange(1, 21) / 20


def test_no_other_number_gives_a_tighter_bound():
    """Bao et al. 2022, theorem 1: neither small nor large, nor of half or twice the error."""
    p = mixture()
    predict, errors = exact(LADDER, p), mean_errors(LADDER, p, TIMES, 40_000)

    def excesses(key):
        data_key, key = jax.random.split(key)
        x_0 = p.sample(data_key)

        def transitions(variance, errors=None):
            result = bound(
                key, LADDER, predict, x_0, variance=variance, decoder=gaussian, errors=errors
            )
            return result.transitions.sum()

        others = [transitions("small"), transitions("large")]
        others += [transitions("analytic", errors / 2), transitions("analytic", errors * 2)]
        return jnp.stack(others) - transitions("analytic", errors)

    excess = np.asarray(draws(excesses, 20_000), np.float64)
    assert np.all(excess.mean(0) > 10 * excess.std(0) / np.sqrt(len(excess))), excess.mean(0)


def test_with_it_five_steps_have_the_spread_of_gaussian_data_and_with_the_others_not():
    """Each step is the true q(x_s | x_t) then, so any number of them is exact."""
    process, std = make_process("vp"), 0.4
    p = GaussianMixture(np.ones(1), np.array([[2.0, -1.0]]), np.array([std]))
    options = dict(steps=5, end=0.05, denoise=False)
    true = float((process.alpha(0.05) * std) ** 2 + process.sigma(0.05) ** 2)

    def spread(sampler):
        one = lambda key: base.sample(key, process, sampler, exact(process, p), (2,))
        return np.asarray(draws(one, 20_000), np.float64).var(0) / true

    analytic = ancestral(process, variance="analytic", **options)
    times = analytic.schedule[0].astype(np.float32)
    analytic = analytic.calibrate(gaussian_error(process, times, std))
    assert np.all(np.abs(spread(analytic) - 1.0) < 4 * np.sqrt(2 / 20_000))
    assert np.all(spread(ancestral(process, variance="small", **options)) < 0.9)
    assert np.all(spread(ancestral(process, variance="large", **options)) > 1.1)


def test_a_sampler_that_is_not_calibrated_does_not_draw():
    process = make_process("vp")
    sampler = ancestral(process, steps=5, variance="analytic")
    predict = exact(process, mixture())
    with pytest.raises(UserError, match="sampler.calibrate"):
        base.sample(jax.random.key(0), process, sampler, predict, (2,))
    with pytest.raises(UserError, match=r"expected errors \[4\], got shape \(6,\)"):
        sampler.calibrate(np.ones(6))
    ready = sampler.calibrate(0.3 * np.ones(4))
    assert ready.calibrate is None and np.all(np.isfinite(ready.schedule[-1]))


def test_where_no_data_is_left_the_analytic_sampler_starts_a_little_later():
    """It divides by α, which is 0 at t = 1 on `flow`."""
    sampler = ancestral(make_process("flow"), steps=5, variance="analytic")
    assert sampler.start < 1.0
    assert np.all(np.isfinite(sampler.calibrate(np.ones(4)).schedule[-1]))


def test_a_variance_that_nobody_tells_is_refused():
    with pytest.raises(UserError, match="learned_variance = True"):
        between(None, -2.0, -1.0)
    with pytest.raises(UserError, match="needs the mean of `eps_errors`"):
        reverse_log_variance(make_process("vp"), 0.1, 0.2, "analytic")
    with pytest.raises(UserError, match="unknown variance 'mid'"):
        reverse_log_variance(make_process("vp"), 0.1, 0.2, "mid")


ANALYTIC = dict(sampler=dict(variance="analytic"))


def test_drawing_calibrates_for_the_parameters_given_and_for_no_batch_size():
    """The sampler's variances are those of these parameters; sample i follows from (seed, i)."""
    experiment = build(tiny_config(**ANALYTIC))
    params = init_params(experiment.module, jax.random.key(0), experiment.data.shape)
    worse = jax.tree.map(lambda p: 3 * p, params)
    draw = make_draw(experiment, 64)
    before, after = (draw(p, range(5)).samples for p in (params, worse))
    np.testing.assert_allclose(draw(params, range(5)).samples, before, rtol=1e-6)
    assert not np.allclose(before, after)
    other = make_draw(experiment, 7)(params, range(2, 5)).samples
    np.testing.assert_allclose(other, before[2:], rtol=1e-4, atol=1e-4)


def test_drawing_can_be_stopped_while_it_calibrates():
    experiment = build(tiny_config(**ANALYTIC))
    params = init_params(experiment.module, jax.random.key(0), experiment.data.shape)
    seen = []
    assert make_draw(experiment, 100)(params, range(5), lambda f: seen.append(f) or False) is None
    assert set(seen) == {0.0}  # none of the steps was made


def test_a_config_trains_and_samples_with_it(tmp_path):
    config = write_config(
        tmp_path / "c.py", tiny_config(**ANALYTIC, training=dict(sample_every=20))
    )
    assert main(["launch.py", f"--config={config}", f"--workdir={tmp_path / 'run'}"]) == 0
    made = json.loads((tmp_path / "run" / "samples.json").read_text())
    assert made["sampler"]["variance"] == "analytic"
    assert np.all(np.isfinite(np.load(tmp_path / "run" / "samples.npz")["arr_0"]))
