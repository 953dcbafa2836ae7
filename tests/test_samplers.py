"""Samplers against densities known exactly: moments, mode weights, stationary laws, reductions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draws, exact_score, make_process, mixture

from score_jax.densities import GaussianMixture, two_modes
from score_jax.errors import UserError
from score_jax.predictions import from_score
from score_jax.processes import Tabulated
from score_jax.samplers import SAMPLERS, base
from score_jax.samplers.ancestral import ancestral
from score_jax.samplers.langevin import annealed_langevin, langevin, run_langevin

N = 20_000


def run(process, sampler, density, n=N, seed=0):
    predict = from_score(process, exact_score(process, density))
    shape = density.means.shape[1:]
    one = lambda key: base.sample(key, process, sampler, predict, shape)
    return np.asarray(draws(one, n, seed), np.float64)


def check_moments(x, density, slack):
    """Mean, covariance and mode weights within 4 standard errors plus the stated slack."""
    mean, cov = np.asarray(density.mean()), np.asarray(density.covariance())
    error = np.sqrt(np.diag(cov) / len(x))
    assert np.all(np.abs(x.mean(0) - mean) < 4 * error + slack), (x.mean(0), mean)
    products = (x - mean)[:, :, None] * (x - mean)[:, None, :]
    error = products.std(0) / np.sqrt(len(x))
    assert np.all(np.abs(products.mean(0) - cov) < 4 * error + slack), (products.mean(0), cov)
    nearest = np.argmax(jax.vmap(density.component_log_probs)(x.astype(np.float32)), axis=1)
    true = np.argmax(jax.vmap(density.component_log_probs)(draws(density.sample, 100_000)), axis=1)
    for k, weight in enumerate(np.bincount(true) / len(true)):
        error = np.sqrt(weight * (1 - weight) / len(x))
        assert abs((nearest == k).mean() - weight) < 4 * error + slack, f"weight of mode {k}"


CASES = {
    "ancestral": [
        ("ddpm", dict(steps=1000, grid="ladder")),
        ("ddpm", dict(steps=1000, grid="ladder", variance="large")),
        ("vp", dict(steps=1000)),
        ("ve", dict(steps=500)),
        ("ncsn", dict(steps=500, grid="ladder")),
    ],
    "annealed_langevin": [
        ("ncsn", dict(levels=25, steps_per_level=1000, step_size=5e-4)),
        ("ve", dict(levels=25, grid="uniform", steps_per_level=1000, step_size=5e-4)),
    ],
    "langevin": [],  # does not mix between modes: its stationary law is tested below
}


def test_every_sampler_has_a_case():
    assert set(CASES) == set(SAMPLERS)


@pytest.mark.parametrize(
    ("sampler", "process", "options"),
    [(name, *case) for name, cases in CASES.items() for case in cases],
)
def test_a_sampler_reproduces_the_mixture(sampler, process, options):
    process = make_process(process)
    n = 2_500 if sampler == "annealed_langevin" else N
    x = run(process, SAMPLERS[sampler](process, **options), mixture(), n)
    check_moments(x, mixture(), slack=0.02)


def test_langevin_has_its_known_stationary_variance(x64):
    """On N(m, s²) the step is x' = (1 - ε/2s²)(x - m) + m + √ε z, whose law tends to
    N(m, s²/(1 - ε/4s²)): right mean, and a variance too large by a known factor."""
    mean, std, step = 1.5, 0.7, 0.5
    score = lambda x, t: (mean - x) / std**2
    x = draws(lambda key: run_langevin(key, score, jnp.array(9.0), 0.0, step, 200), N)
    variance = std**2 / (1 - step / (4 * std**2))
    assert abs(x.mean() - mean) < 4 * np.sqrt(variance / N)
    assert abs(x.var() / variance - 1) < 4 * np.sqrt(2 / N)
    assert variance > 1.2 * std**2  # the bias is visible, so the claim above is not empty


def test_langevin_gets_the_modes_weights_wrong_and_annealing_right():
    """Song & Ermon 2019, figure 3: 4/5 in the mode at (5, 5), seen as half by Langevin."""
    p = two_modes()
    start = lambda key: jax.random.uniform(key, (2,), minval=-8.0, maxval=8.0)

    def plain(key):
        return run_langevin(key, lambda x, t: p.score(x), start(key), 0.0, 0.1, 1000)

    def annealed(key):
        x = start(key)
        for i, sigma in enumerate(np.geomspace(20.0, 1.0, 10)):
            # The paper's toy: σ takes the place of the components' standard deviation 1.
            level = GaussianMixture(p.weights, p.means, jnp.full(2, sigma))
            score = lambda x, t, level=level: level.score(x)
            x = run_langevin(jax.random.fold_in(key, i), score, x, 0.0, 0.1 * sigma**2, 100)
        return x

    share = lambda one: float((draws(one, 1280).sum(1) > 0).mean())
    assert 0.45 < share(plain) < 0.56
    assert 0.74 < share(annealed) < 0.83


def test_the_ancestral_step_is_ho_et_al_s(x64):
    """Algorithm 2: x_{t-1} = (x_t - β_t/√(1-ᾱ_t) ε_θ)/√α_t + σ_t z, with either σ_t."""
    betas = np.linspace(1e-4, 0.02, 1000)
    bar = np.cumprod(1 - betas)
    process, eps, x = make_process("ddpm"), np.array([0.3, -1.1]), np.array([0.9, 2.0])
    predict = from_score(process, lambda x, t: -eps / process.sigma(t))
    key = jax.random.key(5)
    z = jax.random.normal(key, (2,))
    for variance in ("small", "large"):
        schedule = ancestral(process, steps=1000, grid="ladder", variance=variance)
        for level in (999, 500, 1):  # t = level + 1 in the paper's counting from 1
            row = [c[999 - level] for c in schedule.schedule]
            got = schedule.step(key, predict, x, *row)
            mean = (x - betas[level] / np.sqrt(1 - bar[level]) * eps) / np.sqrt(1 - betas[level])
            small = betas[level] * (1 - bar[level - 1]) / (1 - bar[level])
            std = np.sqrt(small if variance == "small" else betas[level])
            np.testing.assert_allclose(got, mean + std * z, rtol=1e-9)


def test_the_last_ancestral_step_adds_no_noise_and_returns_x0(x64):
    process = make_process("ddpm")
    sampler = ancestral(process, steps=10, grid="ladder", variance="large")
    predict = from_score(process, lambda x, t: -jnp.sin(x))
    x, row = np.array([0.3, 0.1]), [c[-1] for c in sampler.schedule]
    for seed in (0, 1):
        got = sampler.step(jax.random.key(seed), predict, x, *row)
        np.testing.assert_allclose(got, predict(x, row[0]).x0, rtol=1e-9)


def test_annealed_langevin_keeps_the_signal_to_noise_ratio_of_its_step():
    """ε_i ∝ σ_i²: Song & Ermon 2019, section 4.3."""
    process = make_process("ncsn")
    t, _, step_size, rescale = annealed_langevin(process, levels=25, step_size=1e-3).schedule
    sigma = np.asarray(jax.vmap(process.sigma)(t.astype(np.float32)))
    np.testing.assert_allclose(step_size / sigma**2, 1e-3 / 0.05**2, rtol=1e-5)
    assert len(t) == 25 and np.all(rescale == 1)


def test_the_denoising_end_is_tweedies_formula(x64):
    """x + σ_L² s(x, σ_L), at the last level that Langevin ran at."""
    process = make_process("ncsn")
    predict = from_score(process, lambda x, t: -jnp.sin(x))
    x = np.array([0.3, 0.1])
    with_it = annealed_langevin(process, levels=25, denoise=True).finish(predict, x)
    without = annealed_langevin(process, levels=25, denoise=False).finish(predict, x)
    np.testing.assert_allclose(with_it, x - 0.05**2 * np.sin(x), rtol=1e-9)
    assert np.array_equal(without, x)


OPTIONS = {
    "ancestral": dict(steps=7),
    "annealed_langevin": dict(levels=5, steps_per_level=3, grid="uniform"),
    "langevin": dict(steps=7, end=0.1),
}


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_draw_depends_on_its_own_key_alone(name, process):
    """Not on the batch size, the batch mates, or the pieces its loop is cut into."""
    sampler, density = SAMPLERS[name](process, **OPTIONS[name]), mixture()
    predict = from_score(process, exact_score(process, density))
    one = jax.jit(lambda key: base.sample(key, process, sampler, predict, (2,)))
    many = jax.jit(jax.vmap(one))
    piece = jax.jit(lambda *args: base.advance(args[0], sampler, predict, *args[1:]))

    def in_pieces(key):
        state = base.start(key, process, sampler, (2,))
        for begin, end in ((0, 2), (2, 3), (3, sampler.steps)):
            state = piece(key, state, begin, end)
        return sampler.finish(predict, state)

    keys = jax.random.split(jax.random.key(0), 4)
    batch = np.asarray(many(keys))
    assert np.all(np.isfinite(batch))
    tolerance = dict(rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(many(keys[::-1])[::-1], batch, **tolerance)
    np.testing.assert_allclose(many(keys[2:]), batch[2:], **tolerance)
    np.testing.assert_allclose(np.stack([one(key) for key in keys]), batch, **tolerance)
    np.testing.assert_allclose(in_pieces(keys[0]), batch[0], **tolerance)


def test_coefficients_are_made_in_float64():
    """In float32 the variance of one of DDPM's thousand steps would keep three digits."""
    process = make_process("ddpm")
    large = ancestral(process, steps=1000, grid="ladder", variance="large").schedule[-1]
    betas = np.linspace(1e-4, 0.02, 1000)[::-1]
    np.testing.assert_allclose(large[:-1] ** 2, betas[:-1], rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 7, 50, 1000, 1500])
def test_any_number_of_steps_runs_down_a_ladder(steps):
    t, s, *_ = ancestral(make_process("ddpm"), steps=steps, grid="ladder").schedule
    assert t[0] == 1.0 and s[-1] == 0.0 and len(t) == steps
    assert np.all(s < t) and np.array_equal(t[1:], s[:-1])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: ancestral(p, steps=0), "sampler.steps must be at least 1, got 0"),
        (lambda p: ancestral(p, end=1.0), r"sampler.end must lie in \[0, 1\), got 1.0"),
        (lambda p: ancestral(p, grid="ladder"), "'ladder' needs a process with a ladder"),
        (lambda p: ancestral(p, grid="karas"), "unknown sampler.grid 'karas'"),
        (lambda p: ancestral(p, variance="mid"), "unknown sampler.variance 'mid'"),
        (lambda p: annealed_langevin(p, levels=0, grid="uniform"), "got 0"),
        (lambda p: annealed_langevin(p, levels=9, grid="uniform", step_size=-1.0), "got -1.0"),
        (lambda p: annealed_langevin(p, levels=9, grid="uniform", steps_per_level=0), "got 0"),
        (
            lambda p: langevin(p, step_size=0.0, end=0.1),
            "sampler.step_size must be positive, got 0.0",
        ),
    ],
)
def test_a_bad_argument_is_refused_with_its_name_and_value(make, words):
    with pytest.raises(UserError, match=words):
        make(make_process("vp"))


def test_langevin_at_a_time_without_noise_is_refused():
    """At t = 0 a ladder has σ = 0 and no score."""
    with pytest.raises(UserError, match="sampler.end"):
        langevin(Tabulated.from_sigmas([0.1, 1.0]), end=0.0)
