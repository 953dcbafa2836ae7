"""Views of a prediction: conversions, Tweedie's formula against exact posteriors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import exact_score, make_process, mixture, times

from score_jax.errors import UserError
from score_jax.parameterization import (
    Parameterization,
    check_parameterization,
    check_start,
    make_predict,
)
from score_jax.predictions import (
    LINEAR_VIEWS,
    NETWORK_VIEWS,
    VIEWS,
    clipped,
    exact,
    express,
    from_energy,
    from_score,
    read,
    target,
)
from score_jax.processes import PROCESSES, add_noise, posterior

pytestmark = pytest.mark.usefixtures("quick_compile")

close = np.testing.assert_allclose
X_0, EPS = np.array([0.3, -1.2, 0.8]), np.array([-0.5, 0.1, 1.4])


def views_of(process):
    return [v for v in LINEAR_VIEWS if v != "posterior_mean" or process.levels]


def test_reading_any_view_of_the_truth_gives_all_of_it(process, x64):
    """Every ordered pair of views, as truth -> view -> everything."""

    def both(t):
        truth = target(process, X_0, EPS, t)
        x_t = add_noise(process, X_0, EPS, t)
        express_all = lambda p: {v: express(v, p, process, t) for v in views_of(process)}
        return express_all(truth), {
            v: express_all(read(v, express(v, truth, process, t), process, x_t, t))
            for v in views_of(process)
        }

    truth, seen = jax.jit(jax.vmap(both))(times())
    for view, values in seen.items():
        for name, value in values.items():
            close(value, truth[name], rtol=1e-7, atol=1e-7, err_msg=f"{view} to {name}")


def test_views_round_trip(process, x64):
    """Of any numbers, not only the truth: y -> another view -> y."""
    x, y, t = jnp.array([0.4, -0.7]), jnp.array([1.1, 0.2]), 0.37

    def round_trips():
        for a, b in itertools.permutations(views_of(process), 2):
            there = express(b, read(a, y, process, x, t), process, t)
            yield f"{a} to {b}", express(a, read(b, there, process, x, t), process, t)

    for name, back in jax.jit(lambda: dict(round_trips()))().items():
        close(back, y, rtol=1e-8, err_msg=name)


def test_f_is_what_karras_et_al_s_preconditioning_makes_of_x0(process, x64):
    """Karras et al. 2022, table 1 and equation 7, with x/α and σ/α for their x and σ."""
    x, y, t, data = jnp.array([0.4, -0.7]), jnp.array([1.1, 0.2]), 0.37, 0.6
    alpha, sigma = process.alpha(t), process.sigma(t) / process.alpha(t)
    c_skip = data**2 / (sigma**2 + data**2)
    c_out = sigma * data / jnp.sqrt(sigma**2 + data**2)
    close(read("F", y, process, x, t, data).x0, c_skip * x / alpha + c_out * y, rtol=1e-9)

    net = lambda x, c: jnp.sin(x + c)  # and the network's input: c_in x, c_noise
    predict = make_predict(net, process, Parameterization("F", "edm", data))
    inside = net(x / alpha / jnp.sqrt(sigma**2 + data**2), jnp.log(sigma) / 4)
    close(predict(x, t).x0, c_skip * x / alpha + c_out * inside, rtol=1e-9)


@pytest.mark.parametrize("name", ["ncsn", "ddpm"])
def test_the_posterior_mean_is_the_mean_of_the_level_below(name, x64):
    process = make_process(name)
    for level in (0, 5, process.levels - 1):
        t, s = (level + 1) / process.levels, level / process.levels
        a, b, _ = posterior(process, s, t)
        x_t = add_noise(process, X_0, EPS, t)
        got = express("posterior_mean", target(process, X_0, EPS, t), process, t)
        close(got, a * x_t + b * X_0, rtol=1e-7)


def test_an_energys_score_is_minus_its_gradient(process, x64):
    """And a constant added to the energy, the log of a normalizing constant, drops out."""
    p, x, t = mixture(), jnp.array([0.6, -0.4]), 0.4
    energy = lambda x, t: 3.7 - p.noised(process.alpha(t), process.sigma(t)).log_prob(x)
    prediction = from_energy(process, energy)(x, t)
    close(prediction.score, exact(process, p)(x, t).score, rtol=1e-9)
    close(prediction.log_density, -energy(x, t), rtol=1e-12)


def test_an_energy_network_is_half_a_squared_distance(process, x64):
    x, t = jnp.array([0.6, -0.4]), 0.4
    net = lambda x, c: jnp.stack([x[0] * x[1], jnp.sin(x[0])])
    energy = lambda x: 0.5 * jnp.sum((x - net(x, 0.0)) ** 2) / process.sigma(t) ** 2
    got = make_predict(net, process, Parameterization("energy", "log_sigma"))(x, t)
    close(got.score, -jax.grad(energy)(x), rtol=1e-9)


def test_a_learned_variance_is_the_second_half_of_the_outputs():
    process, y = make_process("ddpm"), jnp.array([0.1, 0.7, -1.0, 1.0])
    parameterization = Parameterization("eps", "level", learned_variance=True)
    got = make_predict(lambda x, c: y, process, parameterization)(jnp.zeros(2), 0.5)
    assert np.array_equal(got.eps, y[:2]) and np.array_equal(got.variance, [0.0, 1.0])


def test_the_exact_prediction_is_that_of_the_exact_score(process, x64):
    p, x = mixture(), jnp.array([0.6, -0.4])
    for t in times():
        known = from_score(process, exact_score(process, p))(x, t)
        for name in VIEWS:
            close(getattr(exact(process, p)(x, t), name), getattr(known, name), rtol=1e-6)


def test_the_exact_prediction_exists_where_nothing_of_the_data_is_left(x64):
    """On flow at t = 1: x0 is the data's mean, where the score alone says 0/0."""
    process, p, x = make_process("flow"), mixture(), jnp.array([0.6, -0.4])
    got = exact(process, p)(x, 1.0)
    close(got.x0, p.mean(), rtol=1e-12)
    close(got.velocity, x - p.mean(), rtol=1e-12)
    assert not np.isfinite(from_score(process, exact_score(process, p))(x, 1.0).x0).any()


@pytest.mark.parametrize("view", NETWORK_VIEWS)
def test_a_view_that_does_not_tell_x0_at_the_start_is_refused_there(view):
    """On flow x_1 is all noise: eps and the score say nothing about x0."""
    flow = make_process("flow")
    if view in ("eps", "score", "scaled_score", "energy"):
        with pytest.raises(UserError, match=f"sampler.start = 1.0.*view = '{view}'"):
            check_start(flow, view, 1.0)
    else:
        check_start(flow, view, 1.0)
    check_start(flow, view, 0.999)
    check_start(make_process("vp"), view, 1.0)


def test_unequal_shapes_are_refused_before_they_broadcast():
    process = make_process("vp")
    with pytest.raises(UserError, match=r"shape of x, \(3,\), got \(3, 1\)"):
        read("eps", jnp.zeros((3, 1)), process, jnp.zeros(3), 0.5)
    with pytest.raises(UserError, match=r"shape of x_0, \(3,\), got \(1,\)"):
        add_noise(process, jnp.zeros(3), jnp.zeros(1), 0.5)
    with pytest.raises(UserError, match=r"a point \[2\], got shape \(1,\)"):
        mixture().log_prob(jnp.zeros(1))


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
