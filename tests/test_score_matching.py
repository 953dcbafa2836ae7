"""Score matching: five losses, one gradient; each identity exactly where it is exact."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import draws, exact_score, mixture

from score_jax.densities import GaussianMixture, parzen, rings, subspace
from score_jax.errors import UserError
from score_jax.losses.denoising import denoising
from score_jax.losses.score_matching import (
    DIRECTIONS,
    explicit,
    explicit_of,
    finite_difference,
    fisher_divergence,
    implicit,
    sliced,
)
from score_jax.predictions import from_score
from score_jax.processes import PROCESSES

pytestmark = pytest.mark.usefixtures("quick_compile")

close = np.testing.assert_allclose

LEVELS = PROCESSES["ncsn"](sigma_min=0.1, sigma_max=1.0, levels=3)  # σ = 0.1, √0.1 and 1
MIDDLE = 2 / 3
KEY = jax.random.key(0)

LOSSES = {
    "explicit": lambda process, **options: explicit_of(process, mixture(), **options),
    "implicit": implicit,
    "sliced": sliced,
    "sliced_plain": lambda process, **o: sliced(process, variance_reduced=False, **o),
    "finite_difference": finite_difference,
}


def weights(d, width=4):
    """Parameters of a model that nothing in a loss is symmetric in."""
    rng = np.random.default_rng(0)
    shapes = dict(inner=(d, width), bias=(width,), outer=(width, d), linear=(d, d))
    return {name: rng.normal(0.1, 0.7, shape) for name, shape in shapes.items()}


def model(w, score=True):
    """A score with a Jacobian that is neither symmetric nor constant."""
    return lambda x, t: jnp.tanh(x @ w["inner"] + w["bias"]) @ w["outer"] - x @ w["linear"]


def linear(w):
    return lambda x, t: x @ w["linear"] + w["outer"][0]


def value(loss, score, x_0, key=KEY, u=None):
    return jax.jit(lambda x_0: loss(key, from_score(LEVELS, score), x_0, u))(x_0)


def every_sign(key, shape, dtype):
    """All 2^D sign vectors: Rademacher directions, averaged exactly."""
    d = shape[-1]
    bits = (np.arange(2**d)[:, None] >> np.arange(d)) & 1
    return jnp.asarray(1.0 - 2.0 * bits, dtype)


def every_axis(key, shape, dtype):
    """The D axes of an orthonormal basis times √D: E v vᵀ = I exactly."""
    d = shape[-1]
    basis, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(d, d)))
    return jnp.asarray(basis * np.sqrt(d), dtype)


def square(low, high, n):
    """Points of the trapezoidal rule in the plane, [n², 2], and the area of each."""
    axis = np.linspace(low, high, n)
    return np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2), (axis[1] - axis[0]) ** 2


def gradient(fn, weight):
    """d/dw of Σ_i weight_i fn(w, i), compiled."""
    w = weights(2)
    total = lambda w: jnp.sum(weight * jax.vmap(lambda i: fn(w, i))(jnp.arange(len(weight))))
    return jax.jit(jax.grad(total))(w)


def check_equal(a, b, rtol):
    jax.tree.map(lambda a, b: close(a, b, rtol=rtol, atol=rtol), a, b)


def test_explicit_is_half_the_squared_error(x64):
    """0 at the exact score, ½ w |d|² at a score that is off by d."""
    off, x_0 = np.array([0.3, -0.4]), np.array([0.2, 0.9])
    exact = exact_score(LEVELS, mixture())
    wrong = lambda x, t: exact(x, t) + off
    for options, weight in (({}, 1.0), (dict(weight="sigma2"), 0.1)):
        loss = explicit_of(LEVELS, mixture(), at=MIDDLE, **options)
        both = jax.jit(lambda loss=loss: [value(loss, score, x_0) for score in (exact, wrong)])()
        close(both, [0.0, 0.125 * weight], rtol=1e-10, atol=1e-20)


def test_a_name_stands_for_its_density(x64):
    x_0 = np.array([0.2, 0.9])
    score = model(weights(2))
    named, given = explicit(LEVELS, "rings", at=MIDDLE), explicit_of(LEVELS, rings(), at=MIDDLE)
    assert value(named, score, x_0) == value(given, score, x_0)


def test_implicit_of_a_linear_score_is_its_formula(x64):
    """tr A + ½ |A x + b|² at clean data."""
    w, x_0 = weights(3), np.array([0.2, 0.9, -1.4])
    s = x_0 @ w["linear"] + w["outer"][0]
    expected = np.trace(w["linear"]) + 0.5 * s @ s
    close(value(implicit(LEVELS, at=0.0), linear(w), x_0), expected, rtol=1e-12)


def test_all_have_the_gradient_of_the_fisher_divergence_on_clean_data(x64):
    """Hyvärinen 2005, theorem 1, integrated over the mixture on a fine grid."""
    x, area = square(-6.0, 6.0, 481)
    weight = np.exp(jax.jit(jax.vmap(mixture().log_prob))(x)) * area

    def of(loss):
        return gradient(lambda w, i: value(loss, model(w), jnp.asarray(x)[i]), weight)

    check_equal(of(implicit(LEVELS, at=0.0)), of(explicit_of(LEVELS, mixture(), at=0.0)), 1e-9)


def test_all_have_the_gradient_of_denoising_at_one_level(x64, monkeypatch):
    """Vincent 2011, equation 11: over the data and the noise, denoising fits the score of the
    data's kernel density estimate, and so does implicit. The noise is integrated on a grid."""
    data = np.array([[0.3, -0.8], [1.1, 0.2], [-0.4, 0.5]])
    eps, area = square(-8.0, 8.0, 129)
    weight = np.tile(np.exp(-0.5 * np.sum(eps**2, -1)) * area / (2 * np.pi), len(data)) / len(data)

    def of(loss):
        def at(w, i):
            with monkeypatch.context() as patch:
                patch.setattr(jax.random, "normal", lambda *_: jnp.asarray(eps)[i % len(eps)])
                return value(loss, model(w), jnp.asarray(data)[i // len(eps)])

        return gradient(at, weight)

    expected = of(explicit_of(LEVELS, parzen(data, 0.0), at=MIDDLE))
    check_equal(of(implicit(LEVELS, at=MIDDLE)), expected, 1e-9)
    target = denoising(LEVELS, at=MIDDLE, view="score", reduction="half_sum")
    check_equal(of(target), expected, 1e-9)


@pytest.mark.parametrize("every", [every_sign, every_axis])
@pytest.mark.parametrize("variance_reduced", [True, False])
def test_sliced_over_all_directions_is_implicit(variance_reduced, every, x64, monkeypatch):
    """E v vᵀ = I and nothing else: Song et al. 2019, section 3."""
    d, x_0 = 3, np.array([0.2, 0.9, -1.4])
    n = 2**d if every is every_sign else d
    monkeypatch.setitem(DIRECTIONS, "rademacher", every)
    loss = sliced(LEVELS, projections=n, variance_reduced=variance_reduced, at=MIDDLE)
    expected = value(implicit(LEVELS, at=MIDDLE), model(weights(d)), x_0)
    close(value(loss, model(weights(d)), x_0), expected, rtol=1e-12)


def test_rademacher_directions_see_a_diagonal_jacobian_exactly(x64):
    """v_i² = 1, so one direction is enough; a Gaussian one is not."""
    x_0, score = np.array([0.2, 0.9, -1.4]), lambda x, t: jnp.sin(2.0 * x) - x
    expected = value(implicit(LEVELS, at=MIDDLE), score, x_0)
    close(value(sliced(LEVELS, at=MIDDLE), score, x_0), expected, rtol=1e-12)
    gaussian = value(sliced(LEVELS, at=MIDDLE, directions="gaussian"), score, x_0)
    assert abs(gaussian - expected) > 0.01 * abs(expected)


@pytest.mark.parametrize(("directions", "projections"), [("gaussian", 1), ("rademacher", 3)])
def test_sliced_has_the_gradient_of_implicit_on_average(directions, projections):
    """With and without variance reduction, in 4 standard errors of the paired difference;
    variance reduction reduces the variance."""
    w = {name: jnp.asarray(part, jnp.float32) for name, part in weights(2).items()}
    options = dict(projections=projections, directions=directions, at=MIDDLE)
    losses = [implicit(LEVELS, at=MIDDLE)]
    losses += [sliced(LEVELS, variance_reduced=reduced, **options) for reduced in (True, False)]

    def one(key):
        x_0 = mixture().sample(key)
        of = lambda loss: jax.grad(lambda w: value(loss, model(w), x_0, key))(w)
        return [jax.flatten_util.ravel_pytree(of(loss))[0] for loss in losses]

    exact, reduced, plain = (np.asarray(g, np.float64) for g in draws(one, 20_000))
    for gap in (reduced - exact, plain - exact):
        assert np.all(np.abs(gap.mean(0)) < 4 * gap.std(0) / np.sqrt(len(gap)) + 1e-6)
    assert (reduced - exact).var(0).sum() < (plain - exact).var(0).sum()


@pytest.mark.parametrize("at", [0.0, MIDDLE])
def test_finite_differences_are_sliced_to_second_order(at, x64):
    """Halving the step divides the difference by four, on clean and on noisy data."""
    x_0, score = np.array([0.2, 0.9, -1.4]), model(weights(3))
    steps = np.array([0.1, 0.05, 0.025])
    exact = value(sliced(LEVELS, projections=4, at=at), score, x_0)
    of = lambda step: finite_difference(LEVELS, projections=4, step=step, at=at)
    error = [abs(value(of(step), score, x_0) - exact) for step in steps]
    order = np.diff(np.log(error)) / np.diff(np.log(steps))
    assert np.all(np.abs(order - 2.0) < 0.1), (order, error)


def test_finite_differences_of_a_linear_score_are_exact(x64):
    x_0, score = np.array([0.2, 0.9, -1.4]), linear(weights(3))
    for step in (0.01, 3.0):
        loss = finite_difference(LEVELS, step=step, at=MIDDLE)
        close(value(loss, score, x_0), value(sliced(LEVELS, at=MIDDLE), score, x_0), rtol=1e-10)


@pytest.mark.parametrize("density", [mixture, rings, subspace])
def test_the_default_step_keeps_three_digits_in_float32(density):
    """At noise levels from 0.01 to 1, in float32, against the derivative."""
    process, p = PROCESSES["ncsn"](sigma_min=0.01, sigma_max=1.0, levels=3), density()
    predict = from_score(process, exact_score(process, p))
    both = [make(process, law="ladder") for make in (finite_difference, sliced)]
    every_level = jnp.array([0.1, 0.5, 0.9])

    def one(key):
        x_0 = p.sample(key)
        at = lambda u: [loss(key, predict, x_0, u) for loss in both]
        return jax.vmap(at)(every_level)

    got, expected = (np.asarray(values, np.float64) for values in draws(one, 500))
    assert np.all(np.abs(got - expected).mean(0) < 1e-3 * np.abs(expected).mean(0))


@pytest.mark.parametrize("name", LOSSES)
def test_over_all_levels_a_loss_is_the_weighted_one_at_each(name, x64):
    """law = "ladder", weight = "sigma2": λ(σ) = σ² of Song & Ermon 2019, section 4.2."""
    x_0, predict = np.array([0.2, 0.9]), from_score(LEVELS, model(weights(2)))
    t, u = np.arange(1, 4) / 3, (np.arange(3) + 0.5) / 3
    over_all = LOSSES[name](LEVELS, law="ladder", weight="sigma2")
    at_each = [LOSSES[name](LEVELS, at=level) for level in t]

    @jax.jit
    def both():
        expected = [loss(KEY, predict, x_0) for loss in at_each]
        return jax.vmap(lambda u: over_all(KEY, predict, x_0, u))(u), jnp.stack(expected)

    got, expected = both()
    close(got, np.array([0.1, 0.1**0.5, 1.0]) ** 2 * expected, rtol=1e-10)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"explicit"}))
def test_a_loss_does_not_depend_on_the_shape_of_an_example(name, x64):
    """An image is its pixels, in any arrangement. (A density is one of points.)"""
    flat, score = np.linspace(-1.0, 1.3, 6), lambda x, t: jnp.sin(3.0 * x) - 0.2 * jnp.sum(x) * x
    loss = LOSSES[name](LEVELS, at=MIDDLE)
    close(value(loss, score, flat.reshape(3, 2, 1)), value(loss, score, flat), rtol=1e-12)


def test_the_fisher_divergence_is_the_mean_squared_error():
    """Of a score off by d: |d|². Of c times the score of N(m, diag s²): (1 - c)² Σ 1/s²."""
    std = np.array([0.5, 2.0])
    p = GaussianMixture(np.ones(1), np.array([[2.0, -1.0]]), std[None])
    exact, error = fisher_divergence(KEY, lambda x: p.score(x) + 0.5, p, 100)
    close(exact, 0.5, rtol=1e-5)
    assert error < 1e-5
    estimate, error = fisher_divergence(KEY, lambda x: 0.7 * p.score(x), p, 20_000)
    assert abs(estimate - 0.09 * np.sum(1 / std**2)) < 4 * error
    # Var z² = 2 for z ~ N(0, 1), and the score is z/s.
    close(error, 0.09 * np.sqrt(2 * np.sum(1 / std**4) / 20_000), rtol=0.1)


@pytest.mark.parametrize("make", [implicit, finite_difference])
def test_a_network_trained_on_clean_data_alone_learns_the_score(make):
    """From data without their scores: the Fisher divergence falls by a factor of ten."""
    p, at = mixture(), MIDDLE
    noisy = p.noised(1.0, float(LEVELS.sigma(at)))
    data = draws(p.sample, 2000, seed=5)
    loss, adam, width = make(LEVELS, at=at), optax.adam(1e-2), 32
    rng = np.random.default_rng(0)
    shapes = dict(inner=(2, width), bias=(width,), outer=(width, 2), linear=(2, 2))
    start = {k: jnp.asarray(rng.normal(0, 0.5, shape), jnp.float32) for k, shape in shapes.items()}

    def mean_loss(w, key):
        which, keys = jax.random.split(key)
        x_0 = data[jax.random.randint(which, (128,), 0, len(data))]
        one = lambda key, x: value(loss, model(w), x, key)
        return jax.vmap(one)(jax.random.split(keys, 128), x_0).mean()

    @jax.jit
    def train(w):
        def step(carry, key):
            w, state = carry
            updates, state = adam.update(jax.grad(mean_loss)(w, key), state)
            return (optax.apply_updates(w, updates), state), None

        carry, _ = jax.lax.scan(step, (w, adam.init(w)), jax.random.split(KEY, 600))
        return carry[0]

    divergence = lambda w: fisher_divergence(KEY, lambda x: model(w)(x, at), noisy, 2000)[0]
    before, after = divergence(start), divergence(train(start))
    assert after < before / 10, (before, after)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: sliced(LEVELS, projections=0), ["loss.projections", "at least 1", "0"]),
        (lambda: sliced(LEVELS, directions="gauss"), ["loss.directions", "'gaussian'"]),
        (lambda: finite_difference(LEVELS, step=0.0), ["loss.step", "positive", "0.0"]),
        (lambda: implicit(LEVELS, at=1.5), ["loss.at", "[0, 1]", "1.5"]),
        (lambda: implicit(LEVELS, law="ladders"), ["loss.law", "'ladder'"]),
        (lambda: implicit(LEVELS, weight="min_snr"), ["loss.weight", "'min_snr'"]),
        (lambda: explicit(LEVELS, "ring"), ["loss.density", "'ring'", "'rings'"]),
        (lambda: explicit(LEVELS, "subspace", at=0.0), ["loss.at = 0.0", "singular"]),
        (lambda: explicit(LEVELS, "rings", at=-0.5), ["loss.at", "-0.5"]),
        (lambda: fisher_divergence(KEY, mixture().score, mixture(), 1), ["n must", "1"]),
    ],
)
def test_a_bad_argument_is_refused_with_its_name_and_value(make, says):
    with pytest.raises(UserError) as error:
        make()
    assert all(word in str(error.value) for word in says), str(error.value)
