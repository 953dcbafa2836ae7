"""The twisted sampler draws from the law of its sampler given y, however coarse the steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draws, make_process, mixture
from scipy.stats import chi2

from score_jax.densities import GaussianMixture
from score_jax.errors import UserError
from score_jax.inverse.gaussian import pigdm
from score_jax.inverse.observation import observe
from score_jax.inverse.twisted import _resample, twisted
from score_jax.predictions import exact
from score_jax.samplers import base
from score_jax.samplers.ancestral import ancestral, ddim
from score_jax.samplers.sde import euler_maruyama, reverse_diffusion
from score_jax.samplers.singlestep import dpm_solver_2

pytestmark = pytest.mark.usefixtures("quick_compile")

MATRIX = np.array([[1.0, 0.6]])
NOISE = 0.4
Y = np.array([0.3])


def observation(y=Y, noise=NOISE, matrix=MATRIX):
    return observe(y, lambda x: jnp.asarray(matrix) @ x, noise, (2,))


def normal():
    return GaussianMixture(np.ones(1), np.array([[0.7, -0.4]]), np.array([[0.9, 0.5]]))


def samples(process, sampler, predict, n, seed=0):
    """(x [n, 2], evaluations [n])."""
    one = lambda key: base.sample_counted(key, process, sampler, predict, (2,))
    return tuple(map(np.asarray, draws(one, n, seed)))


# --------------------------------------------------------------------- the law, in closed form


def law_of(process, sampler, predict):
    """Mean and covariance of what the sampler draws, where predict is affine in x."""
    mean, covariance = np.zeros(2), float(process.sigma(sampler.start)) ** 2 * np.eye(2)
    affine = lambda fn: (jax.jacobian(fn)(jnp.zeros(2)), fn(jnp.zeros(2)))

    @jax.jit
    def kernel(row):
        deviation = sampler.kernel(predict, jnp.zeros(2), *row)[1]
        return *affine(lambda x: sampler.kernel(predict, x, *row)[0]), deviation

    for row in zip(*sampler.schedule):
        slope, shift, deviation = (np.asarray(a, np.float64) for a in kernel(row))
        mean = slope @ mean + shift
        covariance = slope @ covariance @ slope.T + deviation**2 * np.eye(2)
    slope, shift = map(np.asarray, affine(lambda x: sampler.finish(predict, x)))
    return slope @ mean + shift, slope @ covariance @ slope.T


def given_y(mean, covariance, y, noise, matrix):
    """N(mean, covariance) given y = matrix x + noise n."""
    spread = matrix @ covariance @ matrix.T + noise**2 * np.eye(len(y))
    gain = covariance @ matrix.T @ np.linalg.inv(spread)
    return mean + gain @ (y - matrix @ mean), covariance - gain @ matrix @ covariance


def is_from(x, mean, covariance):
    """Whether mean and covariance are within what three standard errors are to one number (χ²)."""
    z = np.linalg.solve(np.linalg.cholesky(covariance), (x - mean).T).T
    values = np.stack([*z.T, z[:, 0] ** 2 - 1, z[:, 1] ** 2 - 1, z[:, 0] * z[:, 1]], 1)
    center = values.mean(0)
    return len(x) * center @ np.linalg.solve(np.cov(values.T), center) < chi2.ppf(0.9973, 5)


def network(process):
    """The perfect one of `normal`, with a variance of its own, made of two calls."""
    predict = exact(process, normal())
    known = dict(variance=jnp.full(2, 0.3), evaluations=jnp.int32(2))
    return lambda x, t: predict(x, t)._replace(**known)


FEW = dict(steps=6, grid="logsnr", start=0.9, end=0.05)  # so few that the sampler itself is wrong
KERNELS = [
    (ancestral, dict(denoise=False), "edm", 0.5),
    (ancestral, dict(variance="large", start=1.0, grid="uniform"), "flow", 1.0),
    (ancestral, dict(variance="learned", end=0.2), "ddpm", 0.5),  # much is left to the denoising
    (ddim, dict(eta=0.5), "subvp", 0.5),
    (euler_maruyama, dict(steps=20), "vp", 0.0),
    (reverse_diffusion, dict(denoise=False), "vp", 0.5),
]


@pytest.mark.parametrize(("make", "options", "name", "threshold"), KERNELS)
def test_its_law_is_the_samplers_own_given_y_and_all_evaluations_are_counted(
    make, options, name, threshold
):
    """Also where the sampler itself is far off, for every kernel, and however it resamples."""
    process, options = make_process(name), FEW | options
    sampler, predict = make(process, **options), network(process)
    mean, covariance = law_of(process, sampler, predict)
    method = twisted(sampler, process, observation(), particles=32, threshold=threshold)
    x, evaluations = samples(process, method, predict, 2000)
    assert is_from(x, *given_y(mean, covariance, Y, NOISE, MATRIX))
    assert not is_from(x, mean, covariance)
    assert np.all(evaluations == 2 * 32 * (options["steps"] + options.get("denoise", True)))


def test_on_three_modes_it_tends_to_the_samplers_own_law_given_y():
    """Which is what rejection leaves of the sampler's draws: kept with probability exp(-|r|²/2)."""
    process, y, noise = make_process("vp"), 0.6, 0.3
    seen = observation(np.array([y]), noise, np.array([[1.0, 0.0]]))
    predict = exact(process, mixture())
    sampler = ancestral(process, steps=50, grid="logsnr", end=0.002)
    upper = lambda x: x[:, 1] > -0.3  # of the two modes that y leaves, at 1 and -1.5
    x, _ = samples(process, sampler, predict, 20_000)
    likelihood = np.exp(-0.5 * ((y - x[:, 0]) / noise) ** 2)
    kept = upper(x[np.random.default_rng(0).uniform(size=len(x)) < likelihood])
    share, variance = kept.mean(), kept.var()

    def error(particles, n=700):
        """In standard errors."""
        method = twisted(sampler, process, seen, particles=particles)
        found = upper(samples(process, method, predict, n)[0]).mean()
        return abs(found - share) / np.sqrt(variance / n + variance / len(kept))

    assert error(32) < 3
    assert error(2) > 6


# ------------------------------------------------------------------------------- limits


def test_one_particle_is_guided_sampling(x64):
    """Whose every step is the kernel, given what `pigdm` says; a single one needs no weights."""
    process = make_process("vp")
    sampler = euler_maruyama(process, steps=8, end=0.05, denoise=False)
    predict = exact(process, mixture())
    alone = twisted(sampler, process, observation(), particles=1)
    guided = pigdm(predict, process, observation())
    key = jax.random.key(4)
    step = jax.jit(lambda x, row: sampler.kernel(guided, x, *row))
    x = base.start(key, process, alone, (2,)).state.x[0]
    for i, row in enumerate(zip(*sampler.schedule)):
        _, noise_key, _ = jax.random.split(jax.random.fold_in(key, i), 3)
        mean, deviation = step(x, row)
        x = mean + deviation * jax.random.normal(noise_key, (1, 2))[0]
    got = base.sample(key, process, alone, predict, (2,))
    np.testing.assert_allclose(got, x, rtol=1e-6)


def test_of_an_observation_without_information_it_is_the_sampler():
    process = make_process("vp")
    sampler, predict = ancestral(process, **FEW), exact(process, normal())
    nothing = observation(np.array([40.0]), noise=1e5)
    x, _ = samples(process, twisted(sampler, process, nothing, particles=4), predict, 3000)
    assert is_from(x, *law_of(process, sampler, predict))


def test_it_begins_where_the_sampler_does():
    """At draws of its own, one for each particle."""
    process = make_process("vp")
    first = lambda key, shape: 5.0 + jax.random.uniform(key, shape)
    sampler = ancestral(process, **FEW)._replace(first=first)
    method = twisted(sampler, process, observation(), particles=3)
    x = base.start(jax.random.key(0), process, method, (2,)).state.x
    assert x.shape == (3, 2) and len(np.unique(x)) == 6 and np.all((5 < x) & (x < 6))


# --------------------------------------------------------------------------- resampling


def test_resampling_draws_each_k_times_its_weight_rounded_and_on_average_exactly():
    weight = np.array([0.31, 0.0, 0.02, 0.27, 0.4, 0.0])
    log_weight = jnp.log(weight)
    draw = lambda key: _resample(key, log_weight, 1.0)[0]
    chosen = np.asarray(draws(draw, 4000))
    counts = np.stack([(chosen == k).sum(1) for k in range(6)], 1)
    assert np.all((counts >= np.floor(6 * weight)) & (counts <= np.ceil(6 * weight)))
    standard_error = np.maximum(counts.std(0), 1e-12) / np.sqrt(4000)
    assert np.all(abs(counts.mean(0) - 6 * weight) < 4 * standard_error + 1e-6)


def test_particles_of_even_weights_are_kept_and_those_of_uneven_ones_resampled():
    key = jax.random.key(0)
    even, uneven = jnp.log(jnp.array([0.3, 0.3, 0.4])), jnp.log(jnp.array([0.9, 0.05, 0.05]))
    chosen, kept = _resample(key, even, 0.5)
    assert np.array_equal(chosen, [0, 1, 2]) and np.array_equal(kept, even)
    chosen, equal = _resample(key, uneven, 0.5)  # 1/Σw² = 1.2 < 1.5
    assert np.sum(chosen == 0) >= 2 and np.all(equal == equal[0])
    assert np.array_equal(_resample(key, uneven, 0.3)[0], [0, 1, 2])


def test_an_observation_far_from_all_particles_leaves_finite_samples():
    """Log weights of -5e9 in float32, and the first noise only."""
    process = make_process("vp")
    far = observation(np.array([1e3]), noise=0.01)
    sampler = ancestral(process, steps=30)
    method = twisted(sampler, process, far, particles=8)
    x, _ = samples(process, method, exact(process, mixture()), 16)
    assert np.all(np.isfinite(x)) and x.dtype == np.float32
    assert np.all(x @ MATRIX[0] > 10)  # pulled towards it: the data end at 3


# -------------------------------------------------------------------- a draw is a draw


def test_a_sample_knows_no_batch_mates_and_no_chunks():
    process = make_process("vp")
    predict = exact(process, mixture())
    method = twisted(ancestral(process, steps=12), process, observation(), particles=8)
    together, _ = samples(process, method, predict, 4)
    keys = jax.random.split(jax.random.key(0), 4)

    @jax.jit
    def alone(key):
        run = base.start(key, process, method, (2,))
        for begin, end in ((0, 5), (5, method.steps)):
            run = base.advance(key, method, predict, run, begin, end)
        return base.finish(method, predict, run)[0]

    np.testing.assert_allclose(together, np.stack([alone(key) for key in keys]), atol=1e-5)
    assert len(np.unique(together)) == 8
    other, _ = samples(process, method, predict, 4, seed=1)
    assert not np.any(np.isin(other, together))


def test_the_shapes_of_x_and_y_are_of_no_account():
    process = make_process("vp")
    density = GaussianMixture(np.ones(1), np.full((1, 16), 0.4), np.full((1, 16), 0.2))
    vector = exact(process, density)
    shaped = lambda a: a.reshape(4, 4, 1) if jnp.ndim(a) else a
    image = lambda x, t: jax.tree.map(shaped, vector(x.ravel(), t))
    means = lambda x: x.reshape(2, 2, 2, 2, 1).mean((1, 3))
    y = 0.4 + 0.1 * np.arange(4.0).reshape(2, 2, 1)

    def draw(predict, seen):
        method = twisted(ancestral(process, **FEW), process, seen, particles=4)
        return base.sample(jax.random.key(0), process, method, predict, seen.shape)

    got = draw(image, observe(y, means, 0.1, (4, 4, 1)))
    as_vectors = lambda x: means(x.reshape(4, 4, 1)).ravel()
    expected = draw(vector, observe(y.ravel(), as_vectors, 0.1, (16,)))
    assert got.shape == (4, 4, 1)
    np.testing.assert_allclose(got.ravel(), expected, atol=1e-4)


# ------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: ddim(p, eta=0.0), "whose step is one draw from a normal"),
        (lambda p: dpm_solver_2(p), "whose step is one draw from a normal"),
        (lambda p: ancestral(p, variance="analytic"), "whose variances are known"),
        (lambda p: ancestral(p, steps=1), "at least 2 steps"),
    ],
)
def test_a_sampler_whose_steps_it_cannot_weigh_is_refused(make, words):
    process = make_process("vp")
    with pytest.raises(UserError, match=words):
        twisted(make(process), process, observation())


def test_an_analytic_sampler_that_is_calibrated_is_taken():
    process = make_process("vp")
    sampler = ancestral(process, variance="analytic", **FEW)
    twisted(sampler.calibrate(np.full(sampler.steps, 0.5)), process, observation())


@pytest.mark.parametrize(
    ("options", "noise", "words"),
    [
        (dict(), 0.0, "Give a small one, for example 0.01"),
        (dict(particles=0), NOISE, "particles must be at least 1, got 0"),
        (dict(threshold=1.5), NOISE, r"threshold must lie in \[0, 1\], got 1.5"),
        (dict(threshold=-0.5), NOISE, r"threshold must lie in \[0, 1\], got -0.5"),
    ],
)
def test_options_that_cannot_be_are_refused(options, noise, words):
    process = make_process("vp")
    with pytest.raises(UserError, match=words):
        twisted(ancestral(process), process, observation(noise=noise), **options)
