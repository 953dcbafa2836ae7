"""ΠGDM, MMPS and the twist, against the exact posterior score of correlated normal data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draws, make_process, mixture
from scipy.stats import multivariate_normal
from test_samplers import chains

from score_jax.densities import GaussianMixture, Rotated
from score_jax.densities.linear import posterior_given
from score_jax.errors import UserError
from score_jax.inverse.gaussian import mmps, pigdm, twist
from score_jax.inverse.observation import Observation, observe
from score_jax.inverse.operators import mask
from score_jax.predictions import VIEWS, exact, read
from score_jax.processes import VP
from score_jax.samplers import base
from score_jax.samplers.adaptive import adaptive
from score_jax.samplers.ancestral import ancestral, ddim
from score_jax.samplers.multistep import dpm_solver_pp_2m
from score_jax.samplers.ode import heun
from score_jax.times import on_host

pytestmark = pytest.mark.usefixtures("quick_compile")

close = np.testing.assert_allclose

D = 4
RNG = np.random.default_rng(0)
BASIS, _ = np.linalg.qr(RNG.normal(size=(D, D)))
MATRIX = RNG.normal(size=(2, D)) * [[1.0], [0.3]]  # along no axis of the space or of the data
STDS = np.array([[1.3, 0.4, 0.8, 0.15]])
MEAN = np.array([[0.5, -1.0, 0.3, 0.8]])
Y = MATRIX @ BASIS @ np.array([1.0, -0.5, 0.2, 0.7])


def correlated(stds=STDS):
    return Rotated(GaussianMixture(np.ones(1), MEAN, stds), BASIS)


def forward(x):
    return jnp.asarray(MATRIX, x.dtype) @ x


def observation(noise):
    return Observation(jnp.asarray(Y), forward, noise, (D,))


def posterior(noise, stds=STDS):
    """(mean [D], covariance [D, D]) of x_0 given y."""
    along = posterior_given(GaussianMixture(np.ones(1), MEAN, stds), MATRIX @ BASIS, Y, noise)
    return BASIS @ along.mean(), BASIS @ along.covariance() @ BASIS.T


def law_at(process, t, noise):
    """(mean, covariance) of x_t given y."""
    curves = on_host(lambda t: (process.alpha(t), process.sigma(t)), np.array([t]))
    alpha, sigma = (float(curve[0]) for curve in curves)
    mean, covariance = posterior(noise)
    return alpha * mean, alpha**2 * covariance + sigma**2 * np.eye(D)


def time_of(process, logsnr):
    return float(on_host(process.time_of_logsnr, np.array([logsnr]))[0])


def points(process, logsnr, noise=0.1, n=3):
    """(t, points where x_t is found given y, their exact posterior scores)."""
    t = time_of(process, logsnr)
    mean, covariance = law_at(process, t, noise)
    x = np.random.default_rng(1).multivariate_normal(mean, covariance, n)
    return t, x, -np.linalg.solve(covariance, (x - mean).T).T


def scores(predict, x, t):
    return np.asarray(jax.jit(jax.vmap(lambda x: predict(x, t).score))(x))


# ------------------------------------------------------------------ the score, at one time

LOGSNRS = (-6.0, 0.0, 6.0)


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("name", ["ve", "vp", "flow", "ddpm"])
def test_mmps_is_exact_for_normal_data(x64, name, noise):
    process = make_process(name)
    guided = mmps(exact(process, correlated()), process, observation(noise), tolerance=1e-14)
    score = jax.jit(jax.vmap(lambda x, t: guided(x, t).score, (0, None)))
    for logsnr in LOGSNRS:
        t, x, expected = points(process, logsnr, noise)
        close(score(x, t), expected, rtol=1e-10, atol=1e-10 * abs(expected).max())


def test_mmps_is_exact_with_as_many_iterations_as_observations_and_not_with_fewer(x64):
    process = make_process("vp")
    t, x, expected = points(process, 6.0, 0.0)

    def error(k):
        guided = mmps(exact(process, correlated()), process, observation(0.0), iterations=k)
        return abs(scores(guided, x, t) - expected).max() / abs(expected).max()

    assert error(2) < 1e-10 < 0.1 < error(1)


def test_pigdm_is_exact_for_data_of_unit_variance(x64):
    """Their variance given x_t is σ²/(α² + σ²), whatever their mean."""
    process, density = make_process("subvp"), correlated(np.ones((1, D)))
    guided = pigdm(exact(process, density), process, observation(0.1))
    score = jax.jit(jax.vmap(lambda x, t: guided(x, t).score, (0, None)))
    mean, covariance = posterior(0.1, np.ones((1, D)))
    for logsnr in LOGSNRS:
        t = time_of(process, logsnr)
        alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
        x = np.random.default_rng(1).normal(size=(3, D))
        noised = alpha**2 * covariance + sigma**2 * np.eye(D)
        expected = -np.linalg.solve(noised, (x - alpha * mean).T).T
        close(score(x, t), expected, rtol=1e-9)


def test_the_shift_is_the_gradient_of_the_twist(x64):
    """p̃(y | x) of a mixture: its logarithm differentiated by JAX, through everything."""
    process = make_process("flow")
    seen = Observation(jnp.array([0.2]), lambda x: 0.8 * x[:1] + 0.6 * x[1:], 0.3, (2,))
    twisted = twist(exact(process, mixture()), process, seen)

    @jax.jit
    @jax.vmap
    def both(x, t):
        prediction, guided, _ = twisted(x, t)
        return guided.score - prediction.score, jax.jacfwd(lambda x: twisted(x, t)[2])(x)

    x, t = np.random.default_rng(0).normal(size=(6, 2)), np.linspace(0.05, 0.95, 6)
    close(*both(x, t), rtol=1e-8)


def test_the_twist_is_a_normal_density_of_y_and_pigdm_its_guidance(x64):
    process = make_process("vp")
    t, x, _ = points(process, 1.0)
    predict, seen = exact(process, correlated()), observation(0.1)
    prediction, guided, log_p = jax.jit(jax.vmap(lambda x: twist(predict, process, seen)(x, t)))(x)
    close(prediction.score, scores(predict, x, t), rtol=1e-12)
    close(guided.score, scores(pigdm(predict, process, seen), x, t), rtol=1e-12)
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    spread = 0.01 * np.eye(2) + sigma**2 / (alpha**2 + sigma**2) * MATRIX @ MATRIX.T
    expected = [multivariate_normal(MATRIX @ x0, spread).logpdf(Y) for x0 in prediction.x0]
    close(np.diff(log_p), np.diff(expected), rtol=1e-9)


METHODS = {"pigdm": pigdm, "mmps": mmps}


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("name", ["edm", "flow", "subvp"])
def test_all_views_of_the_guided_prediction_agree(x64, name, method):
    process = make_process(name)
    seen = Observation(jnp.array([0.2]), lambda x: x[:1] - x[1:], 0.3, (2,))
    guided = METHODS[method](exact(process, mixture()), process, seen)
    x, t = np.array([0.7, -0.4]), 0.4
    views, again = jax.jit(lambda x: (p := guided(x, t), read("score", p.score, process, x, t)))(x)
    for view in VIEWS:
        close(getattr(views, view), getattr(again, view), rtol=1e-7, atol=1e-9, err_msg=view)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_network_is_asked_once_and_what_else_it_knows_is_kept(method):
    process, asked = make_process("vp"), []

    def predict(x, t):
        asked.append(t)
        prediction = exact(process, mixture())(x, t)
        return prediction._replace(evaluations=2, variance=0.5 * x, log_density=x[0])

    seen = Observation(jnp.array([0.2]), lambda x: x[:1], 0.3, (2,))
    guided = jax.jit(METHODS[method](predict, process, seen))(jnp.array([0.7, -0.4]), 0.4)
    assert len(asked) == 1 and guided.evaluations == 2
    assert guided.log_density is None
    close(guided.variance, [0.35, -0.2], rtol=1e-6)


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("name", ["vp", "edm", "cosine", "flow"])
def test_next_to_clean_data_and_without_noise_float32_stays_finite_and_keeps_to_y(name, method):
    process = make_process(name)
    seen = Observation(jnp.array([0.3]), lambda x: 0.8 * x[:1] + 0.6 * x[1:], 0.0, (2,))
    guided = METHODS[method](exact(process, mixture()), process, seen)
    for t in (1e-6, 1e-4, 1e-3):
        prediction = jax.jit(guided)(jnp.array([-1.0, 0.5]), t)
        assert all(np.isfinite(getattr(prediction, view)).all() for view in VIEWS)
        assert abs(seen.residual(prediction.x0)) < 2e-3


def test_where_nothing_is_observed_nothing_is_changed():
    process = VP()
    nothing = observe(np.zeros(0), mask(np.zeros(2)), 0.0, (2,))
    predict, x = exact(process, mixture()), np.array([[0.3, -0.2]])
    for method in METHODS.values():
        guided = method(predict, process, nothing)
        assert np.array_equal(scores(guided, x, 0.5), scores(predict, x, 0.5))


def test_mmps_stays_bounded_where_the_network_is_no_denoiser():
    """J with a negative eigenvalue and a rotation in it; its slope is compared with |y - A x0|."""
    process = make_process("ve")
    jacobian = jnp.array([[0.5, 0.8, 0.0], [-0.8, -0.2, 0.3], [0.1, 0.4, 1e-3]])
    predict = lambda x, t: read("x0", jacobian @ x, process, x, t)
    seen = Observation(jnp.array([1.0, -1.0, 0.5]), lambda x: x, 0.0, (3,))
    x, t = jnp.array([0.3, -0.2, 0.9]), 0.5
    guided = mmps(predict, process, seen)(x, t)
    moved = jnp.linalg.norm(guided.x0 - predict(x, t).x0)
    assert moved < 2.0 * jnp.linalg.norm(seen.residual(predict(x, t).x0))


# ------------------------------------------------------------- the law of what is sampled

NOISE, NOISY, CLEAN = 0.1, -6.0, 6.0  # logsnr: from σ/α = 20 to 0.05


def times_of(process):
    return dict(start=time_of(process, NOISY), end=time_of(process, CLEAN), denoise=False)


def guided(method, process, **options):
    return METHODS[method](exact(process, correlated()), process, observation(NOISE), **options)


@functools.cache
def law_of(make, method, **options):
    """(mean, covariance) of a deterministic sampler's ends, from the exact law given y at its
    start. Exactly: x0 and the converged slopes are affine in x, and so are the ends."""
    process = VP()
    sampler, predict = make(process, **times_of(process), **options), guided(method, process)

    def run(x):
        run = base.Run(sampler.init(x), jnp.zeros((), jnp.int32))
        run = base.advance(jax.random.key(0), sampler, predict, run, 0, sampler.steps)
        return base.finish(sampler, predict, run)[0]

    mean, covariance = law_at(process, sampler.start, NOISE)
    ends = np.asarray(jax.jit(jax.vmap(run))(np.vstack([mean, mean + np.eye(D)])))
    slope = (ends[1:] - ends[0]).T
    return ends[0], slope @ covariance @ slope.T


def compared(mean, covariance):
    """(mean's error in posterior deviations, deviations over the exact ones), axis by axis."""
    exact_mean, exact_covariance = law_at(VP(), time_of(VP(), CLEAN), NOISE)
    values, axes = np.linalg.eigh(exact_covariance)
    spread = np.diag(axes.T @ covariance @ axes)
    return axes.T @ (mean - exact_mean) / np.sqrt(values), np.sqrt(spread / values)


def sampled(make, method, n=4_000, **options):
    """`compared` of n draws of a sampler with 4 standard errors of its two numbers."""
    process, steps = VP(), options.pop("steps")
    sampler = make(process, steps=steps, grid="logsnr", **times_of(process))
    mean, covariance = law_at(process, sampler.start, NOISE)
    root = jnp.asarray(np.linalg.cholesky(covariance))
    start = lambda key: jnp.asarray(mean) + root @ jax.random.normal(key, (D,))
    x = chains(guided(method, process, **options), sampler, start, n)
    return *compared(x.mean(0), np.cov(x.T)), 4 / np.sqrt(n), 4 / np.sqrt(2 * n)


def test_an_adaptive_solver_with_mmps_draws_from_the_posterior(x64):
    mean, covariance = law_of(adaptive, "mmps", rtol=1e-7, atol=1e-7)
    exact_mean, exact_covariance = law_at(VP(), time_of(VP(), CLEAN), NOISE)
    close(mean, exact_mean, atol=1e-5)
    close(covariance, exact_covariance, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "steps", "error"),
    [(heun, 40, 0.003), (dpm_solver_pp_2m, 40, 0.002), (ddim, 200, 0.01)],
)
def test_solvers_with_mmps_draw_from_it_but_for_their_own_error(x64, make, steps, error):
    off, ratio = compared(*law_of(make, "mmps", steps=steps, grid="logsnr"))
    assert abs(off).max() < 1e-3 and abs(ratio - 1.0).max() < error


def test_the_reverse_chain_with_mmps_draws_from_the_posterior():
    """Its 200 steps make deviations at most 3% too small."""
    off, ratio, mean_error, error = sampled(ancestral, "mmps", 2_000, steps=200)
    assert abs(off).max() < mean_error and abs(ratio - 1.0).max() < error + 0.03


def test_with_one_iteration_mmps_misses_the_posterior():
    """By 0.46 of its deviation, and a deviation 1.85 times what it should be; with two, of two
    observations, by nothing."""
    off, ratio, mean_error, error = sampled(heun, "mmps", steps=40, iterations=1)
    assert abs(abs(off).max() - 0.46) < 2 * mean_error and abs(ratio.max() - 1.85) < 2 * error
    off, ratio, mean_error, error = sampled(heun, "mmps", steps=40, iterations=2)
    assert abs(off).max() < mean_error and abs(ratio - 1.0).max() < error + 0.003


def test_pigdms_bias_for_normal_data_is_what_it_is_said_to_be(x64):
    """Up to 0.21 posterior deviations in the mean; deviations 0.96 to 1.16 times the exact."""
    for make, options in ((heun, dict(steps=40, grid="logsnr")), (adaptive, {})):
        off, ratio = compared(*law_of(make, "pigdm", **options))
        assert abs(abs(off).max() - 0.21) < 0.005
        close([ratio.min(), ratio.max()], [0.96, 1.16], atol=0.01)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_on_separate_modes_both_miss_the_posterior(method):
    """99% of it lies in one mode, where the first coordinate's mean is -0.73; theirs is -0.25."""
    process, matrix, y = VP(), np.array([[0.8, 0.6]]), np.array([0.2])
    posterior = posterior_given(mixture(), matrix, y, NOISE)
    assert posterior.weights.max() > 0.98 and abs(posterior.mean()[0] + 0.73) < 0.005
    seen = observe(y, lambda x: jnp.asarray(matrix, x.dtype) @ x, NOISE, (2,))
    predict = METHODS[method](exact(process, mixture()), process, seen)
    sampler = heun(process, steps=60, grid="logsnr", end=1e-3)
    x = draws(lambda key: base.sample(key, process, sampler, predict, (2,)), 4_000)
    assert abs(x[:, 0].mean() + 0.25) < 4 * x[:, 0].std() / np.sqrt(len(x))


@pytest.mark.parametrize(
    ("make", "method"),
    [(heun, "mmps"), (ddim, "pigdm"), (ancestral, "mmps"), (dpm_solver_pp_2m, "pigdm")],
)
def test_guided_sampling_asks_the_network_as_often_as_unguided(make, method):
    process, sampler = VP(), make(VP(), steps=5, end=1e-3)
    predict = guided(method, process)
    count = lambda p: base.sample_counted(jax.random.key(0), process, sampler, p, (D,))[1]
    assert jax.jit(lambda: count(predict))() == count(exact(process, correlated()))


def test_a_batch_with_observations_of_its_own_is_what_each_gets_alone(x64):
    process = VP()

    def one(x, y):
        seen = Observation(y, forward, NOISE, (D,))
        return mmps(exact(process, correlated()), process, seen)(x, 0.5).score

    x, y = RNG.normal(size=(3, D)), RNG.normal(size=(3, 2))
    alone = jax.jit(one)
    close(jax.jit(jax.vmap(one))(x, y), [alone(*pair) for pair in zip(x, y)], rtol=1e-10)


def test_bad_options_are_refused():
    process, predict = VP(), exact(VP(), correlated())
    for method in METHODS.values():
        with pytest.raises(UserError, match="iterations must be at least 1, got 0"):
            method(predict, process, observation(0.1), iterations=0)
    with pytest.raises(UserError, match="mmps.tolerance must be at least 0, got -1.0"):
        mmps(predict, process, observation(0.1), tolerance=-1.0)
