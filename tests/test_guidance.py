"""Guidance against densities whose classes are known exactly: a mixture's components."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import make_process, mixture, times
from test_samplers import chains
from test_stochastic_samplers import distance, make_sampler

from score_jax.densities import GaussianMixture
from score_jax.errors import UserError
from score_jax.guidance import by_classifier, extrapolated
from score_jax.predictions import VIEWS, exact, from_energy, read
from score_jax.samplers import base
from score_jax.samplers.ancestral import ddim

pytestmark = pytest.mark.usefixtures("quick_compile")

close = np.testing.assert_allclose
CLASS = 1
X = np.array([0.6, -0.4])
TIMES = (0.1, 0.5, 0.9)


def component(k=CLASS):
    p = mixture()
    return GaussianMixture(np.ones(1), p.means[k : k + 1], p.stds[k : k + 1])


def at(process, density, t):
    return density.noised(process.alpha(t), process.sigma(t))


def classifier(process, k=CLASS):
    """log p(k | x_t) of the mixture, exactly."""
    return lambda x, t: jax.nn.log_softmax(at(process, mixture(), t).component_log_probs(x))[k]


def told_and_untold(process):
    return exact(process, component()), exact(process, mixture())


def free(process, **options):
    return extrapolated(*told_and_untold(process), process, **options)


def guided(kind, process, **options):
    """One of the two ways, of the same class."""
    if kind == "free":
        return free(process, **options)
    return by_classifier(exact(process, mixture()), process, classifier(process), **options)


KINDS = ("free", "classifier")


def not_to_be_asked(x, t):
    raise AssertionError("asked")


# ------------------------------------------------------------------------- extrapolation


def test_without_weight_it_is_the_prediction_itself():
    process = make_process("vp")
    predict, options = exact(process, mixture()), dict(weight=0.0, interval=(0.1, 2.0))
    assert extrapolated(predict, not_to_be_asked, process, rescale=0.5, **options) is predict
    assert by_classifier(predict, process, not_to_be_asked, **options) is predict


def test_weights_1_and_minus_1_are_twice_less_once_and_the_other(process, x64):
    predict, other = told_and_untold(process)
    for t in TIMES:
        once, back = (free(process, weight=w)(X, t) for w in (1.0, -1.0))
        p, o = predict(X, t), other(X, t)
        for view in VIEWS:
            ours, theirs = getattr(p, view), getattr(o, view)
            close(getattr(once, view), 2 * ours - theirs, rtol=1e-12, atol=1e-12, err_msg=view)
            close(getattr(back, view), theirs, rtol=1e-12, atol=1e-12, err_msg=view)


@pytest.mark.parametrize(
    ("kind", "options"), [("free", dict()), ("free", dict(rescale=0.7)), ("classifier", dict())]
)
def test_the_views_stay_those_of_one_pair(kind, options, process, x64):
    for t in TIMES:
        found = guided(kind, process, weight=2.5, **options)(X, t)
        expected = read("v", found.v, process, X, t)
        for view in VIEWS:
            got = getattr(found, view)
            close(got, getattr(expected, view), rtol=1e-7, atol=1e-7, err_msg=view)


@pytest.mark.parametrize("weight", [-0.5, 6.5])
def test_it_is_the_score_of_a_density_over_another(weight, process, x64):
    """∇ log p(x | c)^(1+w) / p(x)^w, by differentiation of the densities."""
    for t in TIMES:
        told, untold = at(process, component(), t), at(process, mixture(), t)
        log_p = lambda x, p=told, q=untold: (1 + weight) * p.log_prob(x) - weight * q.log_prob(x)
        close(free(process, weight=weight)(X, t).score, jax.grad(log_p)(X), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rescale", [0.0, 1.0])
def test_it_is_finite_where_nothing_is_left_of_the_data_or_nearly_all(rescale):
    """On flow α(1) = 0; at t = 1e-6 float32 tells x_t from x_0 by a digit at most."""
    flow = make_process("flow")
    predict = free(flow, weight=3.0, rescale=rescale)
    for t in (1.0, 1e-6):
        assert all(np.isfinite(getattr(predict(jnp.asarray(X), t), view)).all() for view in VIEWS)
    classified = guided("classifier", flow, weight=3.0, interval=(0.0, 100.0))
    assert np.isfinite(classified(jnp.asarray(X), 1.0).x0).all()
    if not rescale:
        expected = 4.0 * component().mean() - 3.0 * mixture().mean()
        close(predict(jnp.asarray(X), 1.0).x0, expected, rtol=1e-5)


# ------------------------------------------------------------------------- a classifier


def test_the_exact_classifier_gives_the_exact_class_conditional_prediction(process, x64):
    for t in TIMES:
        found = guided("classifier", process, weight=1.0)(X, t)
        expected = exact(process, component())(X, t)
        close(found.score, expected.score, rtol=1e-10, atol=1e-10)
        for view in VIEWS:  # the others come through σ²/α of it
            got = getattr(found, view)
            close(got, getattr(expected, view), rtol=1e-8, atol=1e-8, err_msg=view)


@pytest.mark.parametrize("weight", [-1.0, 4.0])
def test_at_another_weight_it_is_the_score_of_the_classifiers_power(weight, process, x64):
    """∇ log p(x) p(c | x)^w, by differentiation of both."""
    for t in TIMES:
        tilted = lambda x, t=t: (
            at(process, mixture(), t).log_prob(x) + weight * classifier(process)(x, t)
        )
        found = guided("classifier", process, weight=weight)(X, t).score
        close(found, jax.grad(tilted)(X), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "options", "process"),
    [
        ("ancestral", dict(steps=200), "vp"),
        ("dpm_solver_pp_3m", dict(steps=40, eta=1.0), "edm"),
        ("dpm_solver_pp_3m", dict(steps=40), "flow"),
    ],
)
def test_a_guided_sampler_draws_from_the_class(name, options, process):
    """Its mean and covariance, as near as a normal quantity within three standard errors."""
    process = make_process(process)
    sampler = make_sampler(name, process, **options)
    predict = guided("classifier", process, weight=1.0)
    x = chains(predict, sampler, at(process, component(), sampler.start).sample, 5_000)
    found, bound = distance(x, at(process, component(), sampler.schedule[1][-1]))
    assert found < bound
    untold, bound = distance(x, at(process, mixture(), sampler.schedule[1][-1]))
    assert untold > 100 * bound  # that the claim above is not empty


# ------------------------------------------------------------------------- the interval


@pytest.mark.parametrize(("name", "kind"), [("ve", "free"), ("ddpm", "classifier")])
def test_outside_of_the_interval_it_is_the_prediction_bit_for_bit(name, kind):
    """Guided where low < σ/α <= high: of five times, the interval from the second to the fourth."""
    process = make_process(name)
    ratio = [float(process.sigma(t) / process.alpha(t)) for t in times(5)]
    options = dict(weight=2.0, interval=(ratio[1], ratio[3]))
    plain = told_and_untold(process)[0 if kind == "free" else 1]
    everywhere = guided(kind, process, weight=2.0)
    for i, t in enumerate(times(5)):
        found = guided(kind, process, **options)(X, t)
        expected = (everywhere if i in (2, 3) else plain)(X, t)
        assert found.evaluations == expected.evaluations == (2 if i in (2, 3) else 1)
        for view in VIEWS:
            got, wanted = getattr(found, view), getattr(expected, view)
            if i in (2, 3):
                close(got, wanted, rtol=1e-5, atol=1e-5, err_msg=view)
                assert np.abs(got - getattr(plain(X, t), view)).max() > 1e-4
            else:
                assert np.array_equal(got, wanted), view


@pytest.mark.parametrize("kind", KINDS)
def test_networks_are_counted_as_they_are_asked_and_asked_no_more(kind):
    """Under vmap, where an interval stays a branch: the calls that really happen."""
    process, calls = make_process("vp"), []
    told, untold = told_and_untold(process)

    def counted(f):
        def asked(x, t):
            jax.debug.callback(lambda x: calls.append(1), x)
            return f(x, t)

        return asked

    options = dict(weight=1.0, interval=(0.3, 2.0))
    if kind == "free":
        predict = extrapolated(counted(told), counted(untold), process, **options)
    else:
        log_prob = counted(classifier(process))
        predict = by_classifier(counted(untold), process, log_prob, **options)
    sampler = ddim(process, steps=12)
    one = lambda key: base.sample_counted(key, process, sampler, predict, (2,))
    found = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 3))[1]
    jax.effects_barrier()
    asked_at = sampler.asked()
    ratio = np.exp(-0.5 * np.array([process.logsnr(t) for t in asked_at]))
    expected = len(asked_at) + np.sum((ratio > 0.3) & (ratio <= 2.0))
    assert np.array_equal(found, [expected] * 3) and len(calls) == 3 * expected
    assert len(asked_at) + 2 < expected < 2 * len(asked_at)


def test_counts_add_up_where_guidance_is_guided():
    process = make_process("vp")
    inner = guided("classifier", process, weight=1.0)
    outer = extrapolated(inner, free(process, weight=1.0), process, weight=1.0)
    assert outer(X, 0.5).evaluations == 4


# -------------------------------------------------------------------------- the rescaling


def test_a_rescaled_prediction_has_the_deviation_of_the_unguided_one(process, x64):
    """Of x0: in full at φ = 1, and in between the mean of both factors."""
    factors = []
    for t in TIMES:
        plain, pushed = told_and_untold(process)[0](X, t).x0, free(process, weight=3.0)(X, t).x0
        full, quarter = (free(process, weight=3.0, rescale=phi)(X, t).x0 for phi in (1.0, 0.25))
        factors.append(np.std(plain) / np.std(pushed))
        close(np.std(full), np.std(plain), rtol=1e-12)
        close(quarter, (0.75 + 0.25 * factors[-1]) * pushed, rtol=1e-10)
    assert np.abs(np.array(factors) - 1).max() > 0.05


def test_a_single_number_is_not_rescaled(x64):
    process = make_process("vp")
    p = GaussianMixture(np.ones(2), np.array([[-1.0], [2.0]]), np.array([0.3, 0.5]))
    told = exact(process, GaussianMixture(np.ones(1), p.means[1:], p.stds[1:]))

    @jax.jit
    def both(x):
        predicts = (
            extrapolated(told, exact(process, p), process, weight=2.0, rescale=phi)
            for phi in (1.0, 0.0)
        )
        return [predict(x, 0.4).x0 for predict in predicts]

    close(*both(jnp.ones(1)), rtol=1e-12)


# ------------------------------------------------------------------------------ the rest


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_traced_once_and_a_batch_is_its_examples(kind):
    process, traces = make_process("vp"), []
    options = dict(rescale=0.5) if kind == "free" else {}
    predict = guided(kind, process, weight=1.5, interval=(0.2, 4.0), **options)

    @jax.jit
    def ask(x, t):
        traces.append(1)
        return predict(x, t)

    x = jax.random.normal(jax.random.key(0), (3, 2))
    for t in (0.02, 0.4, 0.9):
        batch = jax.jit(jax.vmap(predict, (0, None)))(x, t)
        for i in range(3):
            single = ask(x[i], t)
            for view in VIEWS:
                got = getattr(batch, view)[i]
                close(got, getattr(single, view), rtol=2e-5, atol=2e-5, err_msg=view)
    assert len(traces) == 1


@pytest.mark.parametrize("interval", [None, (0.1, 9.0)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_variance_is_the_predictions_own_and_the_density_unknown(kind, interval):
    process, share = make_process("vp"), jnp.array([0.2, 0.9])
    energy = from_energy(process, lambda x, t: 0.3 * jnp.sum(x**2))
    predict = lambda x, t: energy(x, t)._replace(variance=share)
    if kind == "free":
        found = extrapolated(predict, energy, process, weight=1.0, interval=interval)
    else:
        found = by_classifier(predict, process, classifier(process), weight=1.0, interval=interval)
    prediction = found(jnp.asarray(X), 0.4)
    assert np.array_equal(prediction.variance, share) and prediction.log_density is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(weight=-1.5), "guidance.weight must be .* at least -1, .* got -1.5"),
        (dict(weight=float("inf")), "guidance.weight must be a finite .* got inf"),
        (dict(weight=float("nan")), "guidance.weight must be a finite .* got nan"),
        (dict(weight=1.0, rescale=1.2), r"guidance.rescale must lie in \[0, 1\], got 1.2"),
        (dict(weight=1.0, interval=(2.0, 0.5)), r"guidance.interval .* got \(2.0, 0.5\)"),
        (dict(weight=1.0, interval=(-1.0, 0.5)), r"guidance.interval .* got \(-1.0, 0.5\)"),
        (dict(weight=1.0, interval=(0.5,)), r"guidance.interval .* got \(0.5,\)"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        free(make_process("vp"), **options)
    if "rescale" not in options and options["weight"] != -1.5:
        with pytest.raises(UserError, match="guidance"):
            guided("classifier", make_process("vp"), **options)
