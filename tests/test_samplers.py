"""The samplers' common promises, the ancestral chain, and Langevin's known biases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draws, make_process, mixture

from score_jax.densities import GaussianMixture, two_modes
from score_jax.errors import UserError
from score_jax.predictions import exact, from_score
from score_jax.processes import Tabulated, geometric
from score_jax.samplers import SAMPLERS, base
from score_jax.samplers.ancestral import ancestral
from score_jax.samplers.langevin import annealed_langevin, langevin

pytestmark = pytest.mark.usefixtures("quick_compile")

N = 20_000


def chains(predict, sampler, start, n, seed=0):
    """The ends of n chains that begin at start(key)."""

    def one(key):
        begin, steps = jax.random.split(key)
        run = base.Run(sampler.init(start(begin)), jnp.zeros((), jnp.int32))
        run = base.advance(steps, sampler, predict, run, 0, sampler.steps)
        return base.finish(sampler, predict, run)[0]

    return np.asarray(draws(one, n, seed))


def test_langevin_has_its_known_stationary_variance(x64):
    """On N(m, s²) the step is x' = (1 - ε/2s²)(x - m) + m + √ε z, whose law tends to
    N(m, s²/(1 - ε/4s²)): right mean, and a variance too large by a known factor."""
    mean, std, step = 1.5, 0.7, 0.5
    process = make_process("ve")
    predict = from_score(process, lambda x, t: (mean - x) / std**2)
    sampler = langevin(process, steps=200, step_size=step, end=0.5)
    x = chains(predict, sampler, lambda key: jnp.array(9.0), N)
    variance = std**2 / (1 - step / (4 * std**2))
    assert abs(x.mean() - mean) < 3 * np.sqrt(variance / N)
    assert abs(x.var() / variance - 1) < 3 * np.sqrt(2 / N)
    assert variance > 1.2 * std**2  # the bias is visible, so the claim above is not empty


@pytest.mark.parametrize(("steps_per_level", "excess"), [(5, 0.28), (20, 0.07)])
def test_annealed_langevin_has_its_known_variance(steps_per_level, excess):
    """On N(m, s²) a step at level i takes the variance w to (1 - ε_i/2v_i)² w + ε_i with
    v_i = s² + σ_i². Where the steps are too few for their size, a level's noise is kept."""
    mean, std, step_size = np.array([0.7, -0.4]), np.array([0.5, 1.0]), 1e-3
    process = make_process("ncsn")
    sampler = annealed_langevin(
        process, levels=25, steps_per_level=steps_per_level, step_size=step_size, denoise=False
    )
    variance, center = 400.0 * np.ones(2), -mean
    for sigma in process.ratios[::-1]:
        epsilon = step_size * (sigma / process.ratios[0]) ** 2
        shrink = 1 - epsilon / (2 * (std**2 + sigma**2))
        center = shrink**steps_per_level * center
        for _ in range(steps_per_level):
            variance = shrink**2 * variance + epsilon
    data = GaussianMixture(np.ones(1), mean[None], std[None])
    start = lambda key: 20.0 * jax.random.normal(key, (2,))
    x = chains(exact(process, data), sampler, start, N)
    assert np.all(abs(x.mean(0) - mean - center) < 3 * np.sqrt(variance / len(x)))
    assert np.all(abs(x.var(0) / variance - 1) < 3 * np.sqrt(2 / len(x)))
    assert np.all(variance / (std**2 + 0.05**2) > 1 + excess)


def test_langevin_gets_the_modes_weights_wrong_and_annealing_right():
    """Song & Ermon 2019, figure 3: 4/5 in the mode at (5, 5), seen as half by Langevin."""
    p, ladder = two_modes(), geometric(sigma_min=1.0, sigma_max=20.0, levels=10)
    start = lambda key: jax.random.uniform(key, (2,), minval=-8.0, maxval=8.0)

    def share(predict, sampler):
        return float((chains(predict, sampler, start, 1280).sum(1) > 0).mean())

    def level(x, t):
        """The paper's toy: σ takes the place of the components' standard deviation 1."""
        return GaussianMixture(p.weights, p.means, jnp.full(2, ladder.sigma(t))).score(x)

    plain = langevin(ladder, steps=1000, step_size=0.1, end=0.1)
    annealed = annealed_langevin(
        ladder, levels=10, steps_per_level=100, step_size=0.1, denoise=False
    )
    assert 0.45 < share(from_score(ladder, lambda x, t: p.score(x)), plain) < 0.56
    assert 0.74 < share(from_score(ladder, level), annealed) < 0.83


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
    """Whatever `denoise` says: there is no noise at the end to stop at."""
    process = make_process("ddpm")
    predict = from_score(process, lambda x, t: -jnp.sin(x))
    x = np.array([0.3, 0.1])
    for denoise in (True, False):
        sampler = ancestral(process, steps=10, grid="ladder", variance="large", denoise=denoise)
        last = sampler.schedule[1][-1]
        np.testing.assert_allclose(sampler.finish(predict, x), predict(x, last).x0, rtol=1e-9)
        assert sampler.steps == 9 and last == 0.001


def test_annealed_langevin_keeps_the_signal_to_noise_ratio_of_its_step():
    """ε_i ∝ σ_i²: Song & Ermon 2019, section 4.3."""
    process = make_process("ncsn")
    options = dict(levels=25, steps_per_level=4, step_size=1e-3)
    t, _, step_size, rescale = annealed_langevin(process, **options).schedule
    sigma = np.asarray(jax.vmap(process.sigma)(t.astype(np.float32)))
    np.testing.assert_allclose(step_size / sigma**2, 1e-3 / 0.05**2, rtol=1e-5)
    assert len(t) == 25 * 4 and np.all(rescale == 1)


def test_the_denoising_end_is_tweedies_formula(x64):
    """x + σ_L² s(x, σ_L), at the last level that Langevin ran at."""
    process = make_process("ncsn")
    predict = from_score(process, lambda x, t: -jnp.sin(x))
    x = np.array([0.3, 0.1])
    with_it = annealed_langevin(process, levels=25, denoise=True).finish(predict, x)
    without = annealed_langevin(process, levels=25, denoise=False).finish(predict, x)
    np.testing.assert_allclose(with_it, x - 0.05**2 * np.sin(x), rtol=1e-9)
    assert np.array_equal(without, x)


OPTIONS = {  # of a short run of every sampler
    "ancestral": dict(steps=7),
    "annealed_langevin": dict(levels=5, steps_per_level=3, grid="uniform"),
    "langevin": dict(steps=7, end=0.1),
    "mala": dict(steps=7, end=0.1, step_size=1e-3),
    "ddim": dict(steps=7),
    "euler_maruyama": dict(steps=7),
    "reverse_diffusion": dict(steps=7),
    "predictor_corrector": dict(steps=7),
    "euler": dict(steps=7),
    "heun": dict(steps=7),
    "edm_stochastic": dict(steps=7),
    "adaptive": dict(),
    "dpm_solver_2": dict(steps=7),
    "dpm_solver_3": dict(steps=7),
    "dpm_solver_pp_2m": dict(steps=7),
    "dpm_solver_pp_3m": dict(steps=7),
    "deis": dict(steps=7),
    "unipc": dict(steps=7),
    "adams": dict(steps=7),
}


def test_every_sampler_has_a_short_run():
    assert set(OPTIONS) == set(SAMPLERS)


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"adaptive"}))  # see test_adaptive
def test_a_draw_depends_on_its_own_key_alone(name):
    """Not on the batch size, the batch mates, or the pieces its loop is cut into."""
    process = make_process("vp")
    sampler, predict = SAMPLERS[name](process, **OPTIONS[name]), exact(process, mixture())
    one = jax.jit(lambda key: base.sample(key, process, sampler, predict, (2,)))
    many = jax.jit(jax.vmap(one))
    piece = jax.jit(lambda *args: base.advance(args[0], sampler, predict, *args[1:]))

    def in_pieces(key):
        run = base.start(key, process, sampler, (2,))
        for begin, end in ((0, 2), (2, 3), (3, sampler.steps)):
            run = piece(key, run, begin, end)
        return base.finish(sampler, predict, run)[0]

    keys = jax.random.split(jax.random.key(0), 4)
    batch = np.asarray(many(keys))
    assert len(np.unique(batch, axis=0)) == 4
    tolerance = dict(rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(many(keys[::-1])[::-1], batch, **tolerance)
    np.testing.assert_allclose(np.stack([one(key) for key in keys]), batch, **tolerance)
    np.testing.assert_allclose(in_pieces(keys[0]), batch[0], **tolerance)


def test_coefficients_are_made_in_float64():
    """In float32 the variance of one of DDPM's thousand steps would keep three digits."""
    process = make_process("ddpm")
    large = ancestral(process, steps=1000, grid="ladder", variance="large").schedule[-1]
    betas = np.linspace(1e-4, 0.02, 1000)[:0:-1]
    np.testing.assert_allclose(large**2, betas, rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 7, 50, 1000, 1500])
def test_any_number_of_steps_runs_down_a_ladder(steps):
    """Of the `steps` the last, to a time without noise, is the denoising one: E[x_0 | x]."""
    sampler = ancestral(make_process("ddpm"), steps=steps, grid="ladder")
    t, s, *_ = sampler.schedule
    assert sampler.start == 1.0 and len(t) == steps - 1
    assert np.all(s < t) and np.array_equal(t[1:], s[:-1])
    if steps > 1:
        assert t[0] == 1.0 and s[-1] == 0.001


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
