"""Replacement, RePaint and DPS: their laws on correlated normal data, where all are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draws, make_process, mixture
from test_samplers import OPTIONS

from score_jax.densities import GaussianMixture, Rotated
from score_jax.densities.linear import posterior_given
from score_jax.errors import UserError
from score_jax.inverse.dps import dps
from score_jax.inverse.observation import Observation, observe
from score_jax.inverse.operators import blur, downsample, gray, mask
from score_jax.inverse.replacement import repaint, replacement
from score_jax.predictions import exact, read
from score_jax.processes import VP, posterior, transition
from score_jax.samplers import SAMPLERS, base
from score_jax.samplers.ancestral import ancestral, ddim
from score_jax.samplers.langevin import langevin
from score_jax.samplers.ode import heun
from score_jax.times import logsnr_grid, on_host

pytestmark = pytest.mark.usefixtures("quick_compile")

close = np.testing.assert_allclose

BASIS = np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])
ALONG = GaussianMixture(np.ones(1), np.array([[0.5, -0.3]]), np.array([[1.0, 0.3]]))
Y, END = -0.6, 1e-3
PROCESS = VP()


def correlated():
    return Rotated(ALONG, BASIS)


def first_coordinate(noise=0.0):
    return Observation(jnp.array([Y]), mask([True, False]), noise, (2,))


def chain(steps):
    return ancestral(PROCESS, steps=steps, grid="logsnr", end=END)


def true_law():
    """(mean, deviation) of the second coordinate given the first."""
    given = posterior_given(ALONG, BASIS[:1], np.array([Y]), 0.0)
    return (BASIS @ given.mean())[1], np.sqrt((BASIS @ given.covariance() @ BASIS.T)[1, 1])


def law_of(steps, repeats=1, jump=1):
    """The same of the reverse chain with the first coordinate replaced, in closed form.

    Everything is normal: its mean and covariance step by step, by the algorithm's words.
    """
    prior_mean = BASIS @ np.asarray(ALONG.means[0])
    prior = BASIS @ np.diag(np.asarray(ALONG.stds[0]) ** 2) @ BASIS.T
    times = logsnr_grid(PROCESS, steps, 1.0, END)
    alpha, sigma = on_host(lambda t: (PROCESS.alpha(t), PROCESS.sigma(t)), times)
    a, b, c = on_host(lambda t, s: posterior(PROCESS, s, t), times[:-1], times[1:])

    def denoiser(i):  # E[x_0 | x_t = x] = gain x + constant
        noised = alpha[i] ** 2 * prior + sigma[i] ** 2 * np.eye(2)
        gain = alpha[i] * prior @ np.linalg.inv(noised)
        return gain, prior_mean - alpha[i] * gain @ prior_mean

    mean, cov = np.zeros(2), sigma[0] ** 2 * np.eye(2)
    for begin in range(0, steps, jump):
        end = min(begin + jump, steps)
        for again in range(repeats):
            for i in range(begin, end):
                gain, constant = denoiser(i)
                step = a[i] * np.eye(2) + b[i] * gain
                mean = step @ mean + b[i] * constant
                cov = step @ cov @ step.T + c[i] ** 2 * np.eye(2)
                mean[0], cov[0], cov[:, 0] = alpha[i + 1] * Y, 0.0, 0.0
                cov[0, 0] = sigma[i + 1] ** 2
            if again < repeats - 1:
                up = alpha[begin] / alpha[end]
                mean = up * mean
                cov = up**2 * cov + (sigma[begin] ** 2 - up**2 * sigma[end] ** 2) * np.eye(2)
    gain, constant = denoiser(steps)
    return (gain @ mean + constant)[1], np.sqrt((gain @ cov @ gain.T)[1, 1])


def drawn(sampler, n=4_000):
    """[n, 2] draws, of correlated data."""
    predict = exact(PROCESS, correlated())
    return np.asarray(draws(lambda key: base.sample(key, PROCESS, sampler, predict, (2,)), n))


def assert_law(x, mean, deviation):
    """Within four standard errors."""
    assert abs(x.mean() - mean) < 4 * deviation / np.sqrt(len(x))
    assert abs(x.std() / deviation - 1.0) < 4 / np.sqrt(2 * len(x))


def steps_of(sampler, predict, x, n):
    """x after each of the first n steps, every one from the same x."""

    def one(i):
        row = (jnp.asarray(c)[i] for c in sampler.schedule)
        return sampler.step(jax.random.key(0), predict, x, *row)

    return np.asarray(jax.jit(jax.vmap(one))(jnp.arange(n)))


def counted(sampler, predict=None):
    """How often one draw asks the network."""
    predict = predict or exact(PROCESS, correlated())
    draw = lambda key: base.sample_counted(key, PROCESS, sampler, predict, (2,))
    return jax.jit(draw)(jax.random.key(0))[1]


# -------------------------------------------------------------------------- replacement


def test_replacement_draws_from_the_law_of_its_own_chain():
    x = drawn(replacement(chain(20), PROCESS, first_coordinate()))
    assert_law(x[:, 1], *law_of(20))
    close(x[:, 0], Y, rtol=1e-6)


def test_replacement_is_biased_towards_what_was_known_without_y_as_it_is_said_to_be(x64):
    """A quarter of what y tells is lost, and more steps do not bring it back."""
    (true, _), prior = true_law(), (BASIS @ ALONG.means[0])[1]
    lost = lambda steps: (law_of(steps)[0] - true) / (prior - true)
    assert lost(50) > lost(200) > lost(1000) > 0.26
    close([true, prior, law_of(1000)[0]], [-0.67, 0.03, -0.48], atol=0.006)
    assert abs(law_of(1000)[1] / true_law()[1] - 1.11) < 0.01


def test_with_a_deterministic_sampler_replacement_loses_more():
    sampler = ddim(PROCESS, steps=200, grid="logsnr", end=END)
    x = drawn(replacement(sampler, PROCESS, first_coordinate()))
    assert abs(x[:, 1].mean() + 0.34) < 4 * x[:, 1].std() / np.sqrt(len(x))


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_what_is_observed_of_x_has_the_law_of_the_process_after_every_step(noise):
    """A x_s ~ N(α_s A x_0, σ_s² A Aᵀ) with y's noise a part of it, however little is x_s's own."""
    rows, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 2)))
    matrix = jnp.asarray(2.0 * rows.T, jnp.float32)
    if noise == 0.0:  # else A Aᵀ must be a multiple of the identity
        matrix = matrix * jnp.array([[1.0], [0.4]])
    predict = lambda x, t: read("x0", 0.3 * x + 0.1, PROCESS, x, t)
    x_0 = jnp.array([0.4, -1.1, 0.8])
    sampler = ddim(PROCESS, steps=6, grid="logsnr", end=0.1)
    alpha, sigma = on_host(lambda s: (PROCESS.alpha(s), PROCESS.sigma(s)), sampler.schedule[1])
    assert np.all(sigma > alpha * noise / 2.0)

    def one(key):
        first, second, third = jax.random.split(key, 3)
        y = matrix @ x_0 + noise * jax.random.normal(first, (2,))
        seen = Observation(y, lambda x: matrix @ x, noise, (3,))
        replaced = replacement(sampler, PROCESS, seen)
        x = jax.random.normal(second, (3,))
        rows = ([c[i] for c in replaced.schedule] for i in (0, 3, 5))
        return jnp.stack([replaced.step(third, predict, x, *row) for row in rows]) @ matrix.T

    n, root = 10_000, np.linalg.cholesky(np.asarray(matrix @ matrix.T, np.float64))
    found = np.asarray(draws(one, n), np.float64)
    for i, at in enumerate((0, 3, 5)):
        noise_of_it = found[:, i] - alpha[at] * np.asarray(matrix @ x_0)
        whitened = np.linalg.solve(sigma[at] * root, noise_of_it.T)
        assert abs(whitened.mean(1)).max() < 4 / np.sqrt(n)
        assert abs(np.cov(whitened) - np.eye(2)).max() < 4 * np.sqrt(2 / n)


def test_where_y_is_noisier_than_x_nothing_is_replaced():
    sampler = ddim(PROCESS, steps=12, grid="logsnr", end=END, denoise=False)
    replaced = replacement(sampler, PROCESS, first_coordinate(0.5))
    ratio = np.exp(-0.5 * on_host(PROCESS.logsnr, sampler.schedule[1]))
    predict, x = exact(PROCESS, correlated()), jnp.array([0.3, 0.4])
    differ = abs(steps_of(replaced, predict, x, 12) - steps_of(sampler, predict, x, 12)).max(1)
    assert np.array_equal(differ > 0, ratio >= 0.5) and 0 < sum(ratio < 0.5) < 12
    assert replaced.finish(predict, x) is x


@pytest.mark.parametrize("forward", [mask(np.eye(4)), gray(), downsample(2), blur(0.5)])
def test_without_noise_the_sample_keeps_to_y(x64, forward):
    """Of any linear operator: also where A Aᵀ is no multiple of the identity."""
    shape = (4, 4, 3)
    x_0 = jnp.asarray(np.random.default_rng(0).normal(size=shape))
    seen = observe(forward(x_0), forward, 0.0, shape)
    predict = lambda x, t: read("x0", 0.3 * x + 0.1, PROCESS, x, t)
    sampler = replacement(chain(3), PROCESS, seen)
    x = jax.jit(lambda key: base.sample(key, PROCESS, sampler, predict, shape))(jax.random.key(0))
    assert abs(seen.residual(x)).max() < 1e-8


def test_where_nothing_is_observed_the_sampler_is_left_as_it_is():
    nothing = Observation(jnp.zeros(0), mask([False, False]), 0.0, (2,))
    sampler = ddim(PROCESS, steps=5, grid="logsnr", end=END)
    for replaced in (replacement(sampler, PROCESS, nothing), dps(sampler, PROCESS, nothing)):
        assert np.array_equal(drawn(replaced, 5), drawn(sampler, 5))


# ------------------------------------------------------------------------------ repaint


def test_repaint_draws_from_the_law_of_its_own_chain():
    """In segments of 4, 4, ... and 2 steps, each made three times."""
    sampler = repaint(chain(14), PROCESS, first_coordinate(), repeats=3, jump=4)
    assert_law(drawn(sampler)[:, 1], *law_of(14, repeats=3, jump=4))


def test_the_more_repeats_the_less_bias(x64):
    """10 of them leave a twelfth of what replacement loses, 20 a twentyfifth."""
    bias = [law_of(200, repeats, 10)[0] - true_law()[0] for repeats in (1, 2, 5, 10, 20)]
    assert np.all(np.diff(bias) < 0.0)
    close(bias / bias[0], [1.0, 0.5, 0.18, 0.085, 0.04], atol=0.01)


def test_repaint_without_repeats_is_replacement():
    once = repaint(chain(5), PROCESS, first_coordinate(), repeats=1, jump=2)
    expected = replacement(chain(5), PROCESS, first_coordinate())
    assert np.array_equal(drawn(once, 5), drawn(expected, 5))


@pytest.mark.parametrize("name", ["vp", "ve", "flow"])
def test_repaints_schedule_goes_back_to_where_a_segment_began(name):
    process = make_process(name)
    sampler = heun(process, steps=5, end=0.1)
    t, s, *_, a, b = repaint(sampler, process, first_coordinate(), repeats=2, jump=2).schedule
    order = [0, 1, 0, 1, 2, 3, 2, 3, 4, 4]
    assert np.array_equal(t, sampler.schedule[0][order])
    up, now = np.array([1, 5, 8]), s.copy()
    now[up] = sampler.schedule[0][[0, 2, 4]]
    assert np.array_equal(now[:-1], t[1:])  # each step begins where the last one left x
    expected = on_host(lambda s, t: transition(process, s, t), s[up], now[up])
    assert np.array_equal((a[up], b[up]), expected) and np.isfinite([a, b]).all()
    assert np.all(np.delete(a, up) == 1.0) and np.all(np.delete(b, up) == 0.0)


def test_what_y_is_too_noisy_to_say_is_not_made_again():
    """From the level of y's noise on, where nothing is replaced, each step is made once."""
    noisy = first_coordinate()._replace(noise=0.3)
    *_, replaced, a, b = repaint(chain(40), PROCESS, noisy, repeats=3, jump=2).schedule
    once = replacement(chain(40), PROCESS, noisy).schedule[-1]
    assert 0 < np.sum(once == 0.0) < 40 and np.sum(replaced == 0.0) <= np.sum(once == 0.0) + 2
    assert not np.any(b[replaced == 0.0])


# ---------------------------------------------------------------------------------- dps


def test_dps_takes_a_gradient_step_after_the_samplers_own():
    sampler, seen = chain(6), first_coordinate()
    predict, x = exact(PROCESS, correlated()), jnp.array([0.3, 0.4])
    moved = steps_of(dps(sampler, PROCESS, seen, scale=0.7), predict, x, 6)
    slope = jax.grad(lambda x, t: jnp.linalg.norm(seen.residual(predict(x, t).x0)))
    slopes = jax.jit(jax.vmap(slope, (None, 0)))(x, jnp.asarray(sampler.schedule[0]))
    close(moved, steps_of(sampler, predict, x, 6) - 0.7 * slopes, rtol=1e-4, atol=1e-6)


def test_dps_leaves_x_alone_where_y_is_explained_already():
    sampler, x = chain(6), jnp.array([0.3, 0.4])
    known = lambda x, t: exact(PROCESS, correlated())(x, t)._replace(x0=jnp.array([Y, 1.0]) + 0 * x)
    moved = steps_of(dps(sampler, PROCESS, first_coordinate()), known, x, 6)
    assert np.array_equal(moved, steps_of(sampler, known, x, 6))


def test_dps_does_not_know_its_batch_mates(x64):
    sampler = dps(chain(5), PROCESS, first_coordinate())
    predict = exact(PROCESS, correlated())
    draw = jax.jit(lambda key: base.sample(key, PROCESS, sampler, predict, (2,)))
    keys = jax.random.split(jax.random.key(0), 3)
    close(jax.jit(jax.vmap(draw))(keys), [draw(key) for key in keys], rtol=1e-10)


def test_dps_is_no_posterior_and_its_scale_decides():
    """The mean of what is not observed, -0.67, and the deviation of what is observed, 0."""
    for scale, mean, deviation in ((0.1, -0.680, 0.058), (1.0, -0.763, 0.560)):
        x = drawn(dps(chain(200), PROCESS, first_coordinate(), scale=scale))
        assert abs(x[:, 1].mean() - mean) < 4 * x[:, 1].std() / np.sqrt(len(x))
        assert abs(x[:, 0].std() / deviation - 1.0) < 0.1


# ------------------------------------------------------------------------ of all of them

TWICE = functools.partial(repaint, repeats=2, jump=3)
MAPS = {"replacement": replacement, "repaint": TWICE, "dps": dps}


@pytest.mark.parametrize("method", sorted(MAPS))
@pytest.mark.parametrize("make", [heun, ddim, ancestral])
def test_the_network_is_asked_as_often_as_by_the_sampler(make, method):
    """By repaint twice as often, but for the denoising; dps hands on what it has asked."""
    sampler = make(PROCESS, steps=7, end=END)
    times, asked = (2 if method == "repaint" else 1), int(counted(sampler))
    assert counted(MAPS[method](sampler, PROCESS, first_coordinate())) == times * (asked - 1) + 1


@pytest.mark.parametrize("method", sorted(MAPS))
def test_a_count_that_is_only_known_in_the_program_is_counted(method):
    """Of a network that is asked at some times only, as guidance within an interval is."""

    def predict(x, t):
        prediction = exact(PROCESS, correlated())(x, t)
        x0, asked = jax.lax.cond(t > 0.5, lambda v: (v, 2), lambda v: (v, 1), prediction.x0)
        return prediction._replace(x0=x0, evaluations=asked)

    sampler = ddim(PROCESS, steps=4, end=END)
    expected = sum(2 if t > 0.5 else 1 for t in sampler.schedule[0]) + 1
    got = counted(MAPS[method](sampler, PROCESS, first_coordinate()), predict)
    assert got == (2 * expected - 1 if method == "repaint" else expected)


@pytest.mark.parametrize("method", sorted(MAPS))
def test_what_a_sampler_says_of_itself_stays_true(method):
    sampler = ancestral(PROCESS, steps=7, start=0.8, end=END)
    sampler = sampler._replace(first=lambda key, shape: jnp.ones(shape))
    mapped = MAPS[method](sampler, PROCESS, first_coordinate())
    assert mapped.kernel is None and mapped.first is sampler.first
    assert mapped.start == sampler.start and mapped.between == sampler.between
    assert set(mapped.asked()) == set(sampler.asked()) and not mapped.has_memory


@pytest.mark.parametrize("method", sorted(MAPS))
def test_every_sampler_without_a_memory_may_be_mapped_and_no_other(method):
    process = make_process("vp")
    for name, make in SAMPLERS.items():
        sampler = make(process, **OPTIONS[name])
        if sampler.has_memory:
            with pytest.raises(UserError, match="moves x after every step"):
                MAPS[method](sampler, process, first_coordinate())
        elif method != "repaint" or "langevin" not in name:
            mapped = MAPS[method](sampler, process, first_coordinate())
            row, predict = (c[0] for c in mapped.schedule), exact(process, mixture())
            step = functools.partial(mapped.step, jax.random.key(0), predict)
            assert jax.eval_shape(step, jnp.zeros(2), *row).shape == (2,)


BLURRED = Observation(jnp.zeros((4, 4, 1)), blur(0.7), 0.1, (4, 4, 1))
ANALYTIC = ancestral(PROCESS, steps=5, variance="analytic")
REFUSED = [
    (repaint, dict(repeats=0), "repaint.repeats must be at least 1, got 0"),
    (repaint, dict(jump=0), "repaint.jump must be at least 1, got 0"),
    (repaint, dict(repeats=10**6), "must be at most 1,000,000, got 5000000"),
    (repaint, dict(sampler=langevin(PROCESS, steps=5, end=0.1)), "an earlier time; langevin"),
    (repaint, dict(sampler=ANALYTIC), "calibrate it first"),
    (replacement, dict(sampler=ANALYTIC), "calibrate it first"),
    (replacement, dict(observation=BLURRED), "A Aᵀ = λ I .* use pigdm, mmps or dps, or noise = 0"),
    (dps, dict(sampler=ANALYTIC), "calibrate it first"),
    (dps, dict(scale=-1.0), "dps.scale must be finite and at least 0, got -1.0"),
]


@pytest.mark.parametrize(("method", "options", "message"), REFUSED)
def test_what_cannot_be_is_refused(method, options, message):
    common = dict(sampler=chain(5), process=PROCESS, observation=first_coordinate())
    with pytest.raises(UserError, match=message):
        method(**(common | options))
