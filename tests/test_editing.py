"""Editing on a mixture, where the posterior and the probability flow are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draws, make_process, mixture
from test_stochastic_samplers import make_sampler, time_of

from score_jax.densities import GaussianMixture
from score_jax.editing import decode, interpolate, interpolation, invert, slerp, started_from
from score_jax.errors import UserError
from score_jax.predictions import exact
from score_jax.processes import posterior
from score_jax.samplers import base
from score_jax.samplers.ancestral import ancestral, ddim

pytestmark = pytest.mark.usefixtures("quick_compile")

close = np.testing.assert_allclose
X_0 = np.array([0.3, 0.9])  # between two components
TIGHT = dict(rtol=1e-9, atol=1e-9)


def gaussian():
    """One component, off-center and anisotropic."""
    return GaussianMixture(
        np.array([1.0]), np.array([[-1.0, 0.5, 2.0]]), np.array([[0.25, 0.5, 1.5]])
    )


def at(process, density, t):
    return density.noised(process.alpha(t), process.sigma(t))


# --------------------------------------------------------------------------------- SDEdit


def moments(x):
    """x and x xᵀ, what is different in it."""
    return np.stack([x[..., 0], x[..., 1], x[..., 0] ** 2, x[..., 1] ** 2, x[..., 0] * x[..., 1]])


def edited_exactly(process, density, s, t, n=50_000):
    """n draws of x_s ~ p(x_s | x_t) for as many x_t from X_0: x_0 by Bayes' rule, then x_s."""
    alpha, sigma, (a, b, c) = process.alpha(t), process.sigma(t), posterior(process, s, t)
    noised = density.noised(alpha, sigma)

    def draw(key):
        eps_key, which, where, rest = jax.random.split(key, 4)
        x_t = alpha * X_0 + sigma * jax.random.normal(eps_key, (2,))
        k = jax.random.categorical(which, noised.component_log_probs(x_t))
        std, gain = density.stds[k], alpha * (density.stds[k] / noised.stds[k]) ** 2
        mean = density.means[k] + gain * (x_t - alpha * density.means[k])
        x_0 = mean + sigma * std / noised.stds[k] * jax.random.normal(where, (2,))
        return a * x_t + b * x_0 + c * jax.random.normal(rest, (2,))

    return np.asarray(draws(draw, n, seed=1), np.float64)


@pytest.mark.parametrize(
    ("name", "process", "options"),
    [
        ("ancestral", "vp", dict(steps=200)),
        ("dpm_solver_pp_3m", "edm", dict(steps=40, eta=1.0)),
        ("euler_maruyama", "flow", dict(steps=200)),
    ],
)
def test_an_edited_point_has_the_law_of_the_data_given_the_noised_point(name, process, options):
    """Its first and second moments, within four standard errors."""
    process = make_process(process)
    start, end = time_of(process, 0.0), time_of(process, 4.6)
    sampler = started_from(make_sampler(name, process, start=start, **options), process, X_0)
    predict = exact(process, mixture())
    x = draws(lambda key: base.sample(key, process, sampler, predict, (2,)), 10_000)
    found = moments(np.asarray(x, np.float64))
    expected = moments(edited_exactly(process, mixture(), end, start))
    error = np.sqrt(sum(m.var(1) / m.shape[1] for m in (found, expected)))
    assert np.all(np.abs(found.mean(1) - expected.mean(1)) < 4 * error)
    away = np.abs(expected.mean(1)[:2] - at(process, mixture(), end).mean())
    assert np.all(away > 15 * error[:2])  # it is not just any sample


def test_the_earlier_the_start_the_nearer_the_point_and_at_last_it_comes_back():
    process = make_process("vp")
    predict = exact(process, mixture())

    def distance(start):
        sampler = started_from(ancestral(process, steps=10, start=start), process, X_0)
        x = draws(lambda key: base.sample(key, process, sampler, predict, (2,)), 500)
        return float(np.sqrt(np.mean((x - X_0) ** 2)))

    distances = [distance(start) for start in (0.5, 0.2, 0.01)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1.5 * process.sigma(0.01) / process.alpha(0.01)


@pytest.mark.parametrize("name", ["ve", "vp", "flow"])
def test_the_first_x_is_the_noised_image_and_nothing_else_of_the_sampler_changes(name):
    process, start = make_process(name), 0.4
    sampler = ddim(process, steps=5, start=start)
    edited = started_from(sampler, process, X_0)
    x = draws(lambda key: edited.first(key, (2,)), 4000)
    sigma = float(process.sigma(start))
    center = np.asarray(process.alpha(start) * X_0)
    assert np.all(np.abs(x.mean(0) - center) < 4 * sigma / np.sqrt(len(x)))
    assert np.all(np.abs(x.std(0) / sigma - 1) < 4 / np.sqrt(2 * len(x)))
    assert edited._replace(first=None, calibrate=None) == sampler


def test_a_sampler_that_is_calibrated_later_still_starts_from_the_image():
    process = make_process("vp")
    sampler = ancestral(process, steps=5, start=0.4, variance="analytic")
    ready = started_from(sampler, process, X_0).calibrate(np.full(sampler.steps, 0.5))
    key = jax.random.key(0)
    expected = started_from(ancestral(process, steps=5, start=0.4), process, X_0).first(key, (2,))
    assert ready.calibrate is None and np.array_equal(ready.first(key, (2,)), expected)


@pytest.mark.parametrize("name", ["vp", "edm", "flow", "ddpm", "cosine"])
def test_a_start_at_which_nothing_is_left_is_refused_and_the_proposed_one_is_not(name):
    process = make_process(name)
    with pytest.raises(UserError, match="nothing of the image is left") as error:
        started_from(ddim(process), process, X_0)
    proposed = float(str(error.value).split("for example at ")[1].split(",")[0])
    assert -2.2 < process.logsnr(proposed) < -1.8
    started_from(ddim(process, start=proposed), process, X_0)


def test_another_shape_is_refused():
    process = make_process("vp")
    sampler = started_from(ddim(process, start=0.4), process, X_0)
    with pytest.raises(UserError, match=r"expected x_0 of shape \(3,\), got \(2,\)"):
        sampler.first(jax.random.key(0), (3,))
    with pytest.raises(UserError, match=r"expected x_b of shape \(2,\), got \(3,\)"):
        interpolate(process, exact(process, mixture()), X_0, np.zeros(3), 0.5)
    between = interpolation(process, X_0, X_0 + 1, fraction=0.5)
    with pytest.raises(UserError, match=r"expected x_a of shape \(3,\), got \(2,\)"):
        between.first(jax.random.key(0), (3,))


# ------------------------------------------------------------------------------ inversion


@pytest.mark.parametrize(
    ("name", "options", "error"), [("vp", TIGHT, 1e-7), ("edm", TIGHT, 1e-7), ("flow", {}, 1e-3)]
)
def test_there_and_back_is_the_image_to_the_tolerance(name, options, error, x64):
    process = make_process(name)
    predict = exact(process, mixture())

    def there_and_back(x):
        latent, up = invert(process, predict, x, **options)
        x, down = decode(process, predict, latent, **options)
        return x, up + down

    x = jax.random.normal(jax.random.key(0), (4, 2)) + X_0
    got, calls = jax.jit(jax.vmap(there_and_back))(x)
    close(got, x, rtol=0, atol=error)
    assert len(set(calls.tolist())) > 1


@pytest.mark.parametrize("name", ["ve", "subvp", "flow", "ddpm"])
def test_a_gaussians_latent_is_known_in_closed_form(name, x64):
    """Its flow is affine: (x - α m)/√(α² s² + σ²) is the same at all times."""
    process, p, z = make_process(name), gaussian(), jax.random.normal(jax.random.key(1), (3,))
    end, start = at(process, p, 1e-3), at(process, p, base.where_data_is_left(process, 1.0))
    x = end.means[0] + end.stds[0] * z
    latent = jax.jit(lambda x: invert(process, exact(process, p), x, **TIGHT)[0])(x)
    close(latent, start.means[0] + start.stds[0] * z, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["vp", "flow"])
def test_latents_of_the_data_are_the_priors_noise(name):
    """Mean 0 and covariance σ(start)² I, within four standard errors; the data's are neither."""
    process, p, n = make_process(name), mixture(), 4000
    predict, data = exact(process, p), at(process, p, 1e-3)
    latent = draws(lambda key: invert(process, predict, data.sample(key), rtol=1e-4)[0], n)
    z = np.asarray(latent, np.float64) / float(process.sigma(base.where_data_is_left(process, 1.0)))
    assert np.all(np.abs(z.mean(0)) < 4 / np.sqrt(n) + 0.01)  # α(start) times the data's mean
    assert np.all(np.abs(z.var(0) - 1) < 4 * np.sqrt(2 / n))
    assert abs(np.mean(z[:, 0] * z[:, 1])) < 4 / np.sqrt(n)
    assert abs(np.mean(z[:, 0] ** 2 * z[:, 1] ** 2) - 1) < 4 * np.sqrt(8 / n)  # as if independent


# -------------------------------------------------------------------------- interpolation


def test_slerp_runs_along_the_great_circle(x64):
    """In 2 D: the angle and the length grow in proportion to the fraction."""
    polar = lambda r, angle: r * np.array([np.cos(angle), np.sin(angle)])
    a, b = polar(2.0, 0.3), polar(5.0, 2.8)
    for f in (0.0, 0.2, 0.5, 0.9, 1.0):
        expected = polar(2.0 + 3.0 * f, 0.3 + 2.5 * f)
        close(slerp(a, b, f), expected, rtol=1e-12, atol=1e-12)
        close(slerp(b, a, 1.0 - f), expected, rtol=1e-12, atol=1e-12)


def test_slerp_gives_its_ends_back_to_the_bit_and_stays_where_they_are_the_same():
    a, b = jax.random.normal(jax.random.key(0), (2, 4, 3))
    for f, end in ((0.0, a), (1.0, b)):
        assert np.array_equal(slerp(a, b, f), end)
    close(slerp(a, a, 0.3), a, rtol=1e-6)
    close(slerp(a, a + 1e-5, 0.5), a + 0.5e-5, rtol=1e-6)
    close(slerp(a, 3.0 * a, 0.5), 2.0 * a, rtol=1e-6)


def test_slerp_keeps_the_length_of_noise():
    """Where half of each, added up, has 0.71 of it."""
    a, b = jax.random.normal(jax.random.key(0), (2, 3000))
    length = np.linalg.norm(slerp(a, b, 0.5))
    close(length, np.sqrt(3000), rtol=0.03)
    assert np.linalg.norm(0.5 * a + 0.5 * b) < 0.75 * length


ENDS = np.array([[-1.2, 0.2], [1.5, 1.1]])  # in two components


def between(process, fractions, **options):
    predict = exact(process, mixture())
    one = lambda f: interpolate(process, predict, *ENDS, f, **options)
    return jax.jit(jax.vmap(one))(jnp.asarray(fractions))


def test_an_interpolation_has_its_ends_and_is_the_same_backwards(x64):
    process, f = make_process("vp"), np.array([0.0, 0.25, 0.6, 1.0])
    x, _ = between(process, f, **TIGHT)
    close(np.asarray(x)[[0, -1]], ENDS, atol=1e-6)
    predict = exact(process, mixture())
    back = lambda f: interpolate(process, predict, ENDS[1], ENDS[0], 1.0 - f, **TIGHT)[0]
    close(jax.jit(jax.vmap(back))(f), x, atol=1e-6)
    assert np.linalg.norm(x[1] - ENDS[0]) > 0.05


def test_between_two_points_of_a_gaussian_it_is_known(x64):
    """The latents are known, and so is what becomes of them."""
    process, p, f = make_process("subvp"), gaussian(), 0.3
    end, start = at(process, p, 1e-3), at(process, p, 1.0)
    x_a, x_b = end.means[0] + end.stds[0] * jax.random.normal(jax.random.key(2), (2, 3))
    latent = lambda x: start.means[0] + start.stds[0] * (x - end.means[0]) / end.stds[0]
    middle = slerp(latent(x_a), latent(x_b), f)
    expected = end.means[0] + end.stds[0] * (middle - start.means[0]) / start.stds[0]
    found = jax.jit(lambda: interpolate(process, exact(process, p), x_a, x_b, f, **TIGHT)[0])()
    close(found, expected, rtol=1e-5, atol=1e-6)


def test_as_a_sampler_every_sample_has_a_fraction_of_its_own():
    """A traced one; and no randomness."""
    process, f = make_process("vp"), np.array([0.0, 0.3, 1.0])
    predict = exact(process, mixture())

    def one(key, fraction):
        sampler = interpolation(process, *ENDS, fraction=fraction)
        return base.sample_counted(key, process, sampler, predict, (2,))

    x, asked = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(3), 3), f)
    expected, calls = between(process, f)
    close(x, expected, atol=1e-4)
    close(asked, calls, atol=12)  # two steps, where rounding decides
    close(np.asarray(x)[[0, -1]], ENDS, atol=2e-3)


def test_its_evaluations_are_the_calls_really_made():
    process, calls = make_process("vp"), []
    exactly, sampler = exact(process, mixture()), interpolation(process, *ENDS, fraction=0.3)

    def predict(x, t):
        jax.debug.callback(lambda x: calls.append(1), x)
        return exactly(x, t)

    key = jax.random.key(0)
    twice = lambda x, t: predict(x, t)._replace(evaluations=2)  # as guidance does
    asked = jax.jit(lambda: base.sample_counted(key, process, sampler, twice, (2,)))()[1]
    jax.effects_barrier()
    assert 2 * len(calls) == asked and asked > 200


def test_solutions_that_are_given_up_are_nan():
    process = make_process("vp")
    predict = exact(process, mixture())
    invert_soon = jax.jit(lambda x: invert(process, predict, x, max_evaluations=20))
    x, calls = invert_soon(X_0)
    assert np.isnan(x).all() and calls <= 20


@pytest.mark.parametrize(
    ("options", "message"),
    [(dict(end=0.0), "sigma"), (dict(end=1.0), "end"), (dict(atol=0.0), "atol > 0")],
)
def test_what_cannot_be_is_refused(options, message):
    process = make_process("vp")
    predict = exact(process, mixture())
    for use in (
        lambda: invert(process, predict, X_0, **options),
        lambda: decode(process, predict, X_0, **options),
        lambda: interpolate(process, predict, X_0, X_0 + 1, 0.5, **options),
        lambda: interpolation(process, X_0, X_0 + 1, fraction=0.5, **options),
    ):
        with pytest.raises(UserError, match=message):
            use()
