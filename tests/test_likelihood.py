"""log p by the probability flow against densities known exactly, and bits against uniform ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import PROCESS_EXAMPLES, draws, exact_score, make_process, mixture

from score_jax.data.encoding import Encoding
from score_jax.densities import GaussianMixture
from score_jax.errors import UserError
from score_jax.likelihood import bits_per_dim, log_likelihood
from score_jax.predictions import from_score, read
from score_jax.probability_flow import angle, flow_times, time_of_angle
from score_jax.processes import VE, GaussianProcess, start_time

pytestmark = pytest.mark.usefixtures("quick_compile")

close = np.testing.assert_allclose
KEY = jax.random.key(0)


def noised(process, density, t):
    return density.noised(process.alpha(t), process.sigma(t))


def case(process, n=64, density=None, end=1e-3):
    """(predict, x, log p_end(x), log p_start): the exact model, draws at `end`, the truth."""
    p = mixture() if density is None else density
    at_end, at_start = noised(process, p, end), noised(process, p, start_time(process))
    x = draws(at_end.sample, n)
    predict = from_score(process, exact_score(process, p))
    return predict, x, jax.vmap(at_end.log_prob)(x), at_start.log_prob


def run(process, predict, x, key=KEY, **options):
    """A Likelihood of every x, each with a key of its own."""
    keys = jax.random.split(key, len(x))
    one = lambda key, x: log_likelihood(key, process, predict, x, **options)
    return jax.jit(jax.vmap(one))(keys, x)


def gaussian3():
    return GaussianMixture(
        np.array([1.0]), np.array([[-1.0, 0.5, 2.0]]), np.array([[0.25, 0.5, 1.5]])
    )


# --- the exact trace ---------------------------------------------------------------------


def test_the_log_likelihood_is_the_exact_one(process, x64):
    """To 1e-4 nats a dimension at the default tolerances, in at most 110 evaluations."""
    predict, x, exact, log_prior = case(process)
    got = run(process, predict, x, log_prior=log_prior)
    close(got.log_prob / 2, exact / 2, atol=1e-4, rtol=0)
    assert got.evaluations.max() <= 110
    np.testing.assert_array_equal(got.standard_error, 0.0)


@pytest.mark.parametrize("name", ["vp", "edm", "flow", "ddpm"])
def test_the_log_likelihood_is_the_exact_one_in_float32(name):
    process = make_process(name)
    predict, x, exact, log_prior = case(process)
    got = run(process, predict, x, log_prior=log_prior)
    assert got.log_prob.dtype == np.float32
    close(got.log_prob / 2, exact / 2, atol=2e-4, rtol=0)


def test_the_error_follows_the_tolerance_down(x64):
    process = make_process("subvp")
    predict, x, exact, log_prior = case(process)
    got = run(process, predict, x, log_prior=log_prior, rtol=1e-10, atol=1e-10)
    close(got.log_prob, exact, atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", ["vp", "subvp", "ve"])
def test_any_network_whatever_has_a_density_with_integral_one(name, x64):
    """Also one that is no score of anything: the likelihood is that of what it samples."""
    process = make_process(name)

    def predict(x, t):
        return read("x0", 0.8 * jnp.tanh(2.0 * x + t) + 0.1 * jnp.cos(x), process, x, t)

    grid = jnp.linspace(-9.0, 9.0, 4001)[:, None]
    density = jnp.exp(run(process, predict, grid, end=0.2, rtol=1e-7, atol=1e-7).log_prob)
    assert density[0] < 1e-9 and density[-1] < 1e-9 and density.max() > 0.3
    close(density.sum() * (grid[1, 0] - grid[0, 0]), 1.0, atol=1e-5)


def test_images_are_taken_as_they_are(x64):
    """A shape [H, W, C] gives what the flat one does."""
    process, p = make_process("vp"), gaussian3()
    predict, x, exact, log_prior = case(process, n=4, density=p)

    def image_predict(x, t):
        return read("x0", predict(x.ravel(), t).x0.reshape(x.shape), process, x, t)

    prior = lambda x: log_prior(x.ravel())
    got = run(process, image_predict, x.reshape(4, 3, 1, 1), log_prior=prior)
    close(got.log_prob, exact, atol=1e-4)


# --- the prior ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ve", "subvp", "flow"])
def test_the_default_prior_changes_the_result_by_its_mismatch_and_nothing_else(name, x64):
    """log N(x_1; 0, σ(1)² I) - log p_1(x_1), at the x_1 that x is carried to."""
    process = make_process(name)
    predict, x, _, log_prior = case(process, n=8)

    def with_linear_prior(x, w):
        return log_likelihood(KEY, process, predict, x, log_prior=lambda x_1: w @ x_1).log_prob

    linear = jax.jit(jax.vmap(jax.vmap(with_linear_prior, (None, 0)), (0, None)))
    volume, *x_1 = linear(x, jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])).T
    x_1 = jnp.stack(x_1, axis=1) - volume[:, None]
    sigma = process.sigma(start_time(process))
    normal = GaussianMixture(jnp.ones(1), jnp.zeros((1, 2)), sigma[None])
    mismatch = jax.vmap(normal.log_prob)(x_1) - jax.vmap(log_prior)(x_1)
    default = run(process, predict, x).log_prob
    close(default - run(process, predict, x, log_prior=log_prior).log_prob, mismatch, atol=1e-7)


def test_the_mismatch_of_ves_prior_shrinks_like_the_data_against_its_noise(x64):
    """x·m/σ², of the order of |m|/σ: ten times smaller with ten times the noise."""
    errors = []
    for sigma_max in (10.0, 100.0, 1000.0):
        process = VE(sigma_min=0.01, sigma_max=sigma_max)
        predict, x, exact, _ = case(process)
        got = run(process, predict, x, rtol=1e-9, atol=1e-9).log_prob
        errors.append(float(jnp.abs(got - exact).max()))
    assert errors[0] < 0.5 and all(0.05 < b / a < 0.2 for a, b in zip(errors, errors[1:]))


# --- time --------------------------------------------------------------------------------


class Warped(GaussianProcess):
    """A process in a time of its own, t²."""

    def __init__(self, process):
        self.process = process

    def log_alpha(self, t):
        return self.process.log_alpha(t**2)

    def alpha(self, t):
        return self.process.alpha(t**2)

    def sigma(self, t):
        return self.process.sigma(t**2)

    def time_of_logsnr(self, logsnr):
        return jnp.sqrt(self.process.time_of_logsnr(logsnr))


@pytest.mark.parametrize("name", ["subvp", "edm", "flow"])
def test_a_warp_of_time_changes_nothing(name, x64):
    process = make_process(name)
    predict, x, _, _ = case(process, n=16)
    warped_predict, *_ = case(Warped(process), n=1)
    plain = run(process, predict, x, end=0.01)
    warped = run(Warped(process), warped_predict, x, end=0.1)
    close(warped.log_prob, plain.log_prob, atol=1e-7, rtol=0)
    np.testing.assert_array_equal(warped.evaluations, plain.evaluations)


def test_the_angle_and_the_time_are_inverse_and_grow_together(process, x64):
    t = jnp.linspace(0.02, 0.98, 50)
    phi = angle(process, t)
    close(jax.vmap(lambda phi: time_of_angle(process, phi))(phi), t, atol=1e-9)
    assert jnp.all(jnp.diff(phi) > 0) and phi[0] > 0 and phi[-1] < np.pi / 2


def test_flow_matching_begins_where_a_trace_of_the_data_is_left():
    process = make_process("flow")
    end, start = flow_times(process, 1e-3, 1.0)
    assert end == 1e-3 and 0.999 < start < 1.0
    close(process.logsnr(start), -14.0, rtol=1e-3)
    assert flow_times(process, 1e-3, 0.5) == (1e-3, 0.5)
    assert flow_times(make_process("vp"), 1e-3, 1.0) == (1e-3, 1.0)


# --- Hutchinson's estimator --------------------------------------------------------------


@pytest.mark.parametrize("law", ["rademacher", "gaussian"])
def test_the_estimate_is_unbiased_and_knows_its_error(law, x64):
    """Over many keys: the mean is the exact trace's, the spread the reported standard error."""
    process, n, probes = make_process("vp"), 2_000, 4
    predict, _, _, log_prior = case(process, n=1, end=0.1)
    x = jnp.array([[0.1, 0.5]])  # between the modes, where the Jacobian is far from diagonal
    options = dict(log_prior=log_prior, end=0.1)
    exact = run(process, predict, x, **options).log_prob[0]
    got = run(process, predict, jnp.repeat(x, n, 0), trace=law, probes=probes, **options)
    spread = got.log_prob.std(ddof=1)
    assert abs(got.log_prob.mean() - exact) < 3 * spread / np.sqrt(n)
    assert spread > 0.5
    # s²/4, of four independent sums, has the mean's variance as its own mean.
    squared = got.standard_error**2
    slack = 4 * (squared.std() + np.sqrt(2.0) * spread**2) / np.sqrt(n)
    assert abs(squared.mean() - spread**2) < slack < 0.5 * spread**2


@pytest.mark.parametrize("probes", [1, 3])
def test_rademacher_probes_are_exact_where_the_jacobian_is_diagonal(probes, x64):
    process = make_process("vp")
    predict, x, _, log_prior = case(process, n=8, density=gaussian3())
    options = dict(log_prior=log_prior, rtol=1e-9, atol=1e-9)
    exact = run(process, predict, x, **options).log_prob
    got = run(process, predict, x, trace="rademacher", probes=probes, **options)
    close(got.log_prob, exact, atol=1e-7)
    if probes > 1:
        close(got.standard_error, 0.0, atol=1e-9)
    gaussian = run(process, predict, x, trace="gaussian", probes=probes, **options)
    assert jnp.abs(gaussian.log_prob - exact).max() > 0.05  # which normal ones are not


def test_a_single_probe_cannot_know_its_error():
    process = make_process("vp")
    predict, x, *_ = case(process, n=2)
    got = run(process, predict, x, trace="rademacher")
    assert np.isnan(got.standard_error).all() and np.isfinite(got.log_prob).all()


# --- evaluations -------------------------------------------------------------------------


@pytest.mark.parametrize("options", [dict(), dict(trace="gaussian", probes=3)])
def test_evaluations_are_the_networks_calls(options):
    """A Jacobian-vector product belongs to the evaluation that it is the derivative of."""
    process = make_process("vp")
    exact, x, *_ = case(process, n=1)
    calls = []

    def predict(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return exact(x, t)

    one = jax.jit(lambda x: log_likelihood(KEY, process, predict, x, **options))
    evaluations = one(x[0]).evaluations
    jax.effects_barrier()
    assert len(calls) == evaluations and evaluations > 40


def test_every_example_has_its_own_evaluations_and_the_result_it_has_alone(x64):
    process = make_process("edm")
    predict, x, *_ = case(process)
    got = run(process, predict, x)
    assert len(set(got.evaluations.tolist())) > 1
    for i in (int(got.evaluations.argmin()), int(got.evaluations.argmax())):
        alone = run(process, predict, x[i : i + 1])
        assert alone.evaluations[0] == got.evaluations[i]
        close(alone.log_prob[0], got.log_prob[i], atol=1e-10)


def test_too_few_evaluations_give_nan():
    process = make_process("vp")
    predict, x, *_ = case(process, n=2)
    got = run(process, predict, x, max_evaluations=20)
    assert np.isnan(got.log_prob).all() and (got.evaluations == 20).all()


# --- mistakes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(trace="exct"), "Did you mean 'exact'"),
        (dict(trace="gaussian", probes=0), "probes must be at least 1, got 0"),
        (dict(end=1.0), "got end = 1.0 and start = 1.0"),
        (dict(end=-0.1), "got end = -0.1"),
        (dict(end=0.5, start=0.5), "0 <= end < start <= 1"),
        (dict(start=1.5), "start = 1.5"),
        (dict(end=float("nan")), "end = nan"),
        (dict(end=0.0), "sigma(end) = 0"),
        (dict(atol=0.0), "atol = 0.0"),
    ],
)
def test_what_cannot_be_is_refused_at_the_call(options, says):
    process = make_process("vp")
    predict, x, *_ = case(process, n=1)
    with pytest.raises(UserError) as error:
        log_likelihood(KEY, process, predict, x[0], **options)
    assert says in str(error.value)


@pytest.mark.parametrize("name", sorted(PROCESS_EXAMPLES))
def test_the_end_may_be_0_just_where_there_is_noise(name):
    process = make_process(name)
    if process.sigma(0.0) > 0:
        assert flow_times(process, 0.0, 1.0)[0] == 0.0
    else:
        with pytest.raises(UserError, match="end = 0.0"):
            flow_times(process, 0.0, 1.0)


# --- bits per dimension ------------------------------------------------------------------


@pytest.mark.parametrize(("centered", "width"), [(True, 2 / 256), (False, 1 / 256)])
def test_a_uniform_density_is_eight_bits_in_either_encoding(centered, width):
    shape = (4, 3, 1)
    encoding = Encoding(centered=centered, dequantize=True)
    encode = jax.vmap(lambda key, p: encoding.encode(key, p * jnp.ones(shape, jnp.uint8)))
    x = encode(jax.random.split(KEY, 256), jnp.arange(256, dtype=jnp.uint8))
    assert x.min() >= encoding.low and x.max() < 1.0
    close(x.max() - x.min(), 256 * width, atol=2 * width)
    log_prob = -12 * np.log(1.0 - encoding.low)
    close(bits_per_dim(log_prob, 12, width), 8.0, rtol=1e-12)


@pytest.mark.parametrize(("centered", "width"), [(True, 2 / 256), (False, 1 / 256)])
def test_a_density_that_is_flat_on_every_level_has_its_levels_code_length(centered, width):
    """p(x) = P(level)/width: exactly -log2 P(level), and on average the entropy."""
    P = np.random.default_rng(0).dirichlet(np.ones(256))
    encoding = Encoding(centered=centered, dequantize=True)
    levels = jnp.arange(256, dtype=jnp.uint8).reshape(256, 1, 1)
    x = np.asarray(encoding.encode(KEY, levels), np.float64).ravel()
    cell = np.floor((x - encoding.low) / width).astype(int)
    np.testing.assert_array_equal(cell, np.arange(256))
    close(bits_per_dim(np.log(P[cell] / width), 1, width), -np.log2(P), rtol=1e-9)
