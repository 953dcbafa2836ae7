"""The noise-aware classifier: its loss against exact posteriors, its networks, its training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import draws, make_process, mixture

from score_jax.densities import GaussianMixture
from score_jax.errors import UserError
from score_jax.guidance import by_classifier
from score_jax.losses.cross_entropy import cross_entropy
from score_jax.models.base import as_net, count, init_params, output_shape
from score_jax.models.classifier import Classifier, PointClassifier
from score_jax.parameterization import CONDITIONS
from score_jax.predictions import exact
from score_jax.probability_flow import norm
from score_jax.times import make_law

pytestmark = pytest.mark.usefixtures("quick_compile")

close = np.testing.assert_allclose
X_0 = np.array([0.3, -1.2])


def log_posteriors(density, process, x, t):
    """log p(k | x_t) of every class k, exactly: the components of a mixture."""
    noised = density.noised(process.alpha(t), process.sigma(t))
    return jax.nn.log_softmax(noised.component_log_probs(x.ravel()))


def labelled(key, density, shape):
    """(x_0, its component)."""
    which, where = jax.random.split(key)
    k = jax.random.categorical(which, jnp.log(density.weights))
    x = density.means[k] + density.stds[k] * jax.random.normal(where, density.means[k].shape)
    return x.reshape(shape), k


# -------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize("law", ["uniform", "ladder", "lognormal", "importance"])
def test_the_loss_is_minus_the_log_probability_at_the_laws_time(law, x64):
    """Times the factor of a law that is not that of the mean."""
    process = make_process("ddpm")
    loss, time_of, key = cross_entropy(process, law=law), make_law(process, law), jax.random.key(0)
    for u in (0.1, 0.77):
        t, factor = time_of(u)
        close(loss(key, lambda x, t: 3.0 - t, X_0, u), factor * (t - 3.0), rtol=1e-12)
    free = draws(lambda key: loss(key, lambda x, t: jnp.exp(-t), X_0), 4)
    assert len(np.unique(free)) == 4


def test_the_options_of_the_law_arrive(x64):
    process = make_process("edm")
    loss = cross_entropy(process, law="lognormal", law_mean=0.3, law_std=0.5)
    seen = -loss(jax.random.key(0), lambda x, t: t, X_0, 0.5)  # the median of σ/α
    close(process.sigma(seen), np.exp(0.3), rtol=1e-6)
    with pytest.raises(UserError, match="law_mean"):
        cross_entropy(process, law_mean=0.3)
    with pytest.raises(UserError, match="unknown loss.law 'unifrm'"):
        cross_entropy(process, law="unifrm")


@pytest.mark.parametrize("name", ["ve", "subvp", "flow"])
def test_the_classifier_is_shown_the_noised_example(name):
    process, x_0, u, n = make_process(name), jnp.array([0.3, -1.2]), 0.4, 20_000
    loss, (t, _) = cross_entropy(process), make_law(process, "uniform")(u)

    def look(key):
        return -loss(key, lambda x, t: x[0], x_0, u), -loss(key, lambda x, t: x[1], x_0, u)

    x = np.array(draws(look, n), np.float64)
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    assert np.all(np.abs(x.mean(1) - alpha * np.asarray(x_0)) < 4 * sigma / np.sqrt(n))
    assert np.all(np.abs(x.var(1) / sigma**2 - 1) < 4 * np.sqrt(2 / n))
    assert abs(np.corrcoef(x)[0, 1]) < 4 / np.sqrt(n)


def losses(process, log_probs, n=20_000):
    """The loss of n labelled examples, of a classifier that puts out log_probs(x, t) [K]."""
    loss, p = cross_entropy(process), mixture()

    def one(key):
        data_key, loss_key = jax.random.split(key)
        x_0, label = labelled(data_key, p, (2,))
        return loss(loss_key, lambda x, t: log_probs(x, t)[label], x_0)

    return np.asarray(draws(one, n), np.float64)


def test_the_exact_posteriors_loss_is_the_classes_conditional_entropy():
    """E H(c | x_t) over t and x_t, drawn here from the noised mixture itself."""
    process, p, n = make_process("vp"), mixture(), 20_000
    known = lambda x, t: log_posteriors(p, process, x, t)

    def entropy(key):
        time_key, x_key = jax.random.split(key)
        t = 1e-5 + (1 - 1e-5) * jax.random.uniform(time_key)
        log_p = known(p.noised(process.alpha(t), process.sigma(t)).sample(x_key), t)
        return -jnp.sum(jnp.exp(log_p) * log_p)

    found, expected = losses(process, known, n), np.asarray(draws(entropy, n, seed=1), np.float64)
    error = np.sqrt((found.var() + expected.var()) / n)
    assert abs(found.mean() - expected.mean()) < 4 * error
    of_the_classes = -np.sum(p.weights * np.log(p.weights))
    assert 0.3 < found.mean() < of_the_classes - 10 * error


@pytest.mark.parametrize("wrong", ["surer", "less sure", "one class favoured", "deaf to the noise"])
def test_no_other_classifier_has_a_loss_as_low_as_the_exact_posteriors(wrong):
    """The differences, example by example, four standard errors above 0."""
    process, p = make_process("vp"), mixture()
    known = lambda x, t: log_posteriors(p, process, x, t)
    other = {
        "surer": lambda x, t: jax.nn.log_softmax(1.3 * known(x, t)),
        "less sure": lambda x, t: jax.nn.log_softmax(0.7 * known(x, t)),
        "one class favoured": lambda x, t: jax.nn.log_softmax(known(x, t).at[2].add(0.4)),
        "deaf to the noise": lambda x, t: known(x, 0.3),
    }[wrong]
    more = losses(process, other) - losses(process, known)
    assert more.mean() > 4 * more.std() / np.sqrt(len(more))


# ---------------------------------------------------------------------------- the networks

SMALL = {
    "points": (PointClassifier(classes=3, width=16, depth=2), (3,)),
    "images": (
        Classifier(3, features=8, multipliers=(1, 2), blocks=1, attention=(8,), dropout=0.5),
        (8, 8, 1),
    ),
}


@pytest.fixture(scope="module", params=sorted(SMALL))
def small(request):
    """(module, parameters moved off their zeros, shape)."""
    module, shape = SMALL[request.param]
    params = init_params(module, jax.random.key(0), shape)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape, np.float32), params)
    return module, params, shape


def test_it_answers_with_logits_for_each_example_and_is_told_the_noise_level(small):
    module, params, shape = small
    x, c = jax.random.normal(jax.random.key(1), (2, *shape)), jnp.array([1.0, 4.0])
    batch = jax.jit(module.apply)({"params": params}, x, c)
    assert batch.shape == (2, 3) and output_shape(module, shape) == (3,)
    net = jax.jit(as_net(module, params))
    close(batch, jnp.stack([net(x, c) for x, c in zip(x, c)]), rtol=2e-4, atol=2e-4)
    assert np.abs(net(x[0], 1.0) - net(x[0], 4.0)).max() > 1e-3
    assert np.abs(net(x[0], 1.0) - net(x[1], 1.0)).max() > 1e-3


def test_all_classes_are_as_likely_at_first(small):
    module, _, shape = small
    params = init_params(module, jax.random.key(0), shape)
    x = jax.random.normal(jax.random.key(1), shape)
    np.testing.assert_array_equal(jax.jit(as_net(module, params))(x, 2.0), np.zeros(3))


def test_dropout_is_for_training_and_images_of_0_to_1_are_centered_first():
    module, shape = SMALL["images"]
    params = init_params(module, jax.random.key(0), shape)
    params = jax.tree.map(lambda p: p + 0.1, params)
    x = jax.random.uniform(jax.random.key(1), shape)
    in_training = jax.jit(lambda key: as_net(module, params, dropout_key=key)(x, 1.0))
    assert not np.array_equal(in_training(jax.random.key(2)), in_training(jax.random.key(3)))
    centered, other = (
        jax.jit(as_net(module.clone(centered=centered), params)) for centered in (True, False)
    )
    close(other(x, 1.0), centered(2.0 * x - 1.0, 1.0), rtol=1e-5)


def test_the_number_of_parameters_is_the_documented_one():
    assert count(Classifier(classes=10), (32, 32, 3)) == 13_414_794


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (Classifier(1, attention=()), (8, 8, 1), "at least 2 classes to choose from, got 1"),
        (Classifier(3, features=7), (8, 8, 1), "model.features must be even .* got 7"),
        (Classifier(3, multipliers=(1, 1, 1)), (6, 6, 1), "classifier .* sides divide by 4"),
        (Classifier(3, dropout=1.0), (8, 8, 1), r"model.dropout must lie in \[0, 1\)"),
        (Classifier(3, blocks=0), (8, 8, 1), "model.blocks must be at least 1"),
        (PointClassifier(1), (2,), "at least 2 classes to choose from, got 1"),
        (PointClassifier(3, width=5), (2,), "model.width must be even and at least 4, got 5"),
        (PointClassifier(3), (8, 8, 1), r"needs them as \[D\], got examples"),
    ],
)
def test_what_cannot_be_is_refused(module, shape, message):
    with pytest.raises(UserError, match=message):
        module.check(shape)


# ---------------------------------------------------------------------------- the training


def log_probs_of(module, params, process):
    """(x, t) -> log p(k | x_t) [K]; the network sees x_t scaled to the size of the data."""
    net = as_net(module, params)
    condition = CONDITIONS["time"]
    return lambda x, t: jax.nn.log_softmax(net(x / norm(process, t), condition(process, t)))


def trained(module, shape, process, density, *, steps, rate, batch, seed=0):
    """Adam on labelled draws, the learning rate falling to 0."""
    params = init_params(module, jax.random.key(seed), shape)
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))
    loss = cross_entropy(process)

    def mean_loss(params, key):
        log_probs = log_probs_of(module, params, process)

        def one(i):
            data_key, loss_key = jax.random.split(jax.random.fold_in(key, i))
            x_0, label = labelled(data_key, density, shape)
            return loss(loss_key, lambda x, t: log_probs(x, t)[label], x_0, (i + 0.5) / batch)

        return jax.vmap(one)(jnp.arange(batch)).mean()

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state, step):
        params, moments = state
        slope = jax.grad(mean_loss)(params, jax.random.fold_in(jax.random.key(seed), step))
        updates, moments = optimizer.update(slope, moments)
        return optax.apply_updates(params, updates), moments

    state = jax.tree.map(jnp.asarray, (params, optimizer.init(params)))
    for step in range(steps):
        state = update(state, step)
    return log_probs_of(module, state[0], process)


def divergences(log_probs, density, process, shape, times, n=2000):
    """The mean over x_t of KL(exact | network) in nats, and the entropy of the exact, at times."""

    def one(key, t):
        x = density.noised(process.alpha(t), process.sigma(t)).sample(key)
        known, found = log_posteriors(density, process, x, t), log_probs(x.reshape(shape), t)
        return jnp.sum(jnp.exp(known) * (known - found)), -jnp.sum(jnp.exp(known) * known)

    keys = jax.random.split(jax.random.key(9), n)
    means = jax.jit(lambda t: jax.tree.map(jnp.mean, jax.vmap(one, (0, None))(keys, t)))
    return np.array([means(t) for t in times]).T


def test_a_trained_classifier_of_points_knows_the_posteriors_at_every_noise_level():
    """And its gradient is the class's: guided by it, x_t has the score of the class nearly."""
    process, p, times = make_process("vp"), mixture(), (0.05, 0.2, 0.4, 0.7)
    module = PointClassifier(classes=3, width=64, depth=2, scale=0.1)
    log_probs = trained(module, (2,), process, p, steps=1500, rate=4e-3, batch=256)
    found, entropy = divergences(log_probs, p, process, (2,), times)
    assert np.all(found < 0.01)
    ignorance = -np.sum(p.weights * np.log(p.weights)) - entropy  # what the weights alone miss
    assert np.all(found < 0.1 * ignorance) and ignorance[0] > 0.8

    log_prob = lambda x, t: log_probs(x, t)[1]
    guided = by_classifier(exact(process, p), process, log_prob, weight=1.0)
    told = exact(process, GaussianMixture(np.ones(1), p.means[1:2], p.stds[1:2]))
    at = p.noised(process.alpha(0.4), process.sigma(0.4))
    x = draws(at.sample, 500, seed=3)
    error, distance = (
        jax.jit(jax.vmap(lambda x, f=f: jnp.sum((f(x, 0.4).x0 - told(x, 0.4).x0) ** 2)))(x).mean()
        for f in (guided, exact(process, p))
    )
    assert error < 0.05 * distance


def test_a_trained_classifier_of_images_knows_the_posteriors_at_every_noise_level():
    """Upright stripes or flat ones, faint under noise of their own."""
    process, shape, times = make_process("vp"), (8, 8, 1), (0.1, 0.3, 0.5)
    stripes = 0.4 * np.tile([1.0, 1.0, -1.0, -1.0], (8, 2))
    means = np.stack([stripes.ravel(), stripes.T.ravel()])
    p = GaussianMixture(np.array([0.7, 0.3]), means, np.array([0.3, 0.5]))
    module = Classifier(2, features=8, multipliers=(1, 2), blocks=1, attention=(), dropout=0.0)
    log_probs = trained(module, shape, process, p, steps=200, rate=1e-2, batch=64)
    found, entropy = divergences(log_probs, p, process, shape, times, n=500)
    ignorance = -np.sum(p.weights * np.log(p.weights)) - entropy
    assert np.all(found < 0.05) and np.all(found[:2] < 0.1 * ignorance[:2])
