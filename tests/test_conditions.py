"""Networks that are told a vector or an image beside x: from the data to the samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny_config, tiny_images

from score_jax.build import build
from score_jax.data.arrays import digits
from score_jax.errors import UserError
from score_jax.models.base import as_net, beside, beside_shape
from score_jax.parallel import update_step
from score_jax.sampling import make_draw
from score_jax.training.loop import Batches
from score_jax.training.state import create, make_example_loss, make_update, step_key

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def of_digits(condition="coarse", *, model=(), **changes):
    config = tiny_images(**changes)
    config["data"] = dict(name="digits", condition=condition)
    config["model"] |= dict(concat_condition=True, dropout=0.0) | dict(model)
    return config


def trained_away(params):
    """Parameters off their zeros, as if trained."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: p + 0.2 * rng.standard_normal(p.shape, np.float32), params)


@pytest.mark.parametrize("shape", [(3,), (4, 5, 1), (4, 5, 3)])
def test_what_is_told_stands_beside_x(shape):
    """x is first, a vector is constant over the pixels, the last channel says that it is told."""
    x, vector = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape), jnp.array([7.0, -2.0])
    seen = beside(x, vector)
    assert seen.shape == beside_shape(shape, (2,))
    np.testing.assert_array_equal(seen[..., : shape[-1]], x)
    np.testing.assert_array_equal(seen[..., shape[-1]], jnp.full(shape[:-1], 7.0))
    np.testing.assert_array_equal(seen[..., -2], jnp.full(shape[:-1], -2.0))
    assert np.all(seen[..., -1] == 1.0)
    silent = beside(x, jnp.full(2, jnp.nan))
    assert np.all(silent[..., shape[-1] :] == 0.0)


def test_an_image_stands_pixel_by_pixel():
    x, image = jnp.zeros((4, 5, 1)), jnp.arange(20.0).reshape(4, 5, 1)
    np.testing.assert_array_equal(beside(x, image)[..., 1:2], image)


def test_only_the_outputs_for_x_come_back():
    """With two outputs for each channel: the first of each, in their order."""

    class Counting:
        def apply(self, variables, x, c, train, rngs):
            return jnp.broadcast_to(jnp.arange(2.0 * x.shape[-1]), (*x.shape[:-1], 2 * x.shape[-1]))

    net = as_net(Counting(), {}, condition=jnp.zeros(2))
    y = net(jnp.zeros((4, 4, 3)), 0.0)  # it sees 3 + 2 + 1 channels
    np.testing.assert_array_equal(y[0, 0], [0, 1, 2, 6, 7, 8])


def test_a_digit_in_coarse_pixels_is_the_mean_of_its_own():
    data = digits(condition="coarse")
    image = data.examples[5, ..., 0] / 127.5 - 1.0
    assert data.conditions.shape == (1797, 8, 8, 1)
    np.testing.assert_allclose(data.conditions[5, 2:4, 6:8, 0], image[2:4, 6:8].mean(), rtol=1e-6)
    ink = digits(split="test", condition="ink").conditions
    brightness = digits(split="test").examples.mean((1, 2, 3))
    assert np.corrcoef(ink[:, 0], brightness)[0, 1] > 1 - 1e-6


@pytest.mark.parametrize("condition", ["coarse", "ink"])
def test_a_batch_brings_each_examples_own_condition(condition):
    experiment = build(of_digits(condition))
    examples, conditions, _ = Batches(experiment)(0, 1)
    assert conditions.shape[:3] == examples.shape[:3]
    for x, c in zip(examples[0, 0], conditions[0, 0]):
        (i,) = np.flatnonzero((experiment.data.examples == x).all((1, 2, 3)))[:1]
        np.testing.assert_array_equal(c, experiment.data.conditions[i])


def test_what_it_is_told_changes_what_it_says_and_forgetting_is_being_told_nothing():
    forgetful = build(of_digits(model=dict(condition_dropout=1.0 - 1e-6)))
    params = trained_away(create(forgetful).params)
    x = jax.random.normal(jax.random.key(1), forgetful.data.shape)
    told = [jnp.asarray(c) for c in forgetful.data.conditions[:2]]

    def answer(label, dropout_key=None):
        return jax.jit(forgetful.net(params, label=label, dropout_key=dropout_key))(x, 3.0)

    none = answer(jnp.full_like(told[0], jnp.nan))
    assert np.abs(answer(told[0]) - answer(told[1])).max() > 1e-3
    assert np.abs(answer(told[0]) - none).max() > 1e-3
    np.testing.assert_array_equal(answer(told[0], jax.random.key(2)), none)
    loss = jax.jit(make_example_loss(forgetful))
    key = step_key(forgetful.training, 0)
    lost = [float(loss(params, key, 0, forgetful.data.examples[0], c)[0]) for c in told]
    assert lost[0] == lost[1]


def test_sample_i_is_told_the_condition_of_test_example_i():
    config = of_digits()
    config["data"] |= dict(split="train")
    config["test"] = dict(split="test")
    experiment = build(config)
    n = len(experiment.test.examples)
    indices = np.array([0, 5, n + 2])
    np.testing.assert_array_equal(experiment.labels(indices), experiment.test.conditions[[0, 5, 2]])
    asked = experiment._replace(evaluation=build(of_digits(evaluation=dict(label=7))).evaluation)
    np.testing.assert_array_equal(asked.labels(indices)[1], experiment.test.conditions[7])
    nothing = experiment._replace(evaluation=build(of_digits(evaluation=dict(label=-1))).evaluation)
    assert np.isnan(nothing.labels(indices)).all()


def test_a_sample_depends_on_its_condition_and_index_alone():
    experiment = build(of_digits(sampler=dict(steps=4)))
    params = trained_away(create(experiment).params)
    seven = make_draw(experiment, 7)(params, range(7)).samples
    np.testing.assert_array_equal(make_draw(experiment, 2)(params, range(4, 7)).samples, seven[4:])


def test_points_are_told_vectors():
    """A linear-Gaussian pair: the network learns where y says that x is."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(2000, 1)).astype(np.float32)
    np.savez("pairs.npz", x=np.hstack([y, -y]) + 0.1 * rng.normal(size=(2000, 2)), conditions=y)
    config = tiny_config(
        data=dict(name="array", path="pairs.npz"),
        process=dict(name="flow"),
        model=dict(width=64, concat_condition=True),
        parameterization=dict(view="velocity", condition="time"),
        loss=dict(name="denoising", view="velocity"),
        sampler=dict(name="heun", steps=8),
        training=dict(steps=600, batch_size=256, learning_rate=3e-3, ema=0.98),
        evaluation=dict(samples=200, batch_size=200),
    )
    config["loss"].pop("law", None)
    experiment = build(config)
    update, batches = update_step(make_update(experiment)), Batches(experiment)
    state = create(experiment)
    for step in range(600):
        state, _ = update(state, batches(step, 1))
    x = make_draw(experiment, 200)(state.ema, range(200)).samples
    told = experiment.labels(np.arange(200))
    error = x - np.hstack([told, -told])
    assert np.abs(error.mean(0)).max() < 0.06 and np.abs(error.std(0) - 0.1).max() < 0.06


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: of_digits("none"), "the data digits have no conditions: give them"),
        (lambda: of_digits("inc"), "unknown data.condition 'inc'.*Did you mean 'ink'"),
        (lambda: of_digits(model=dict(classes=10)), "a network is told one or the other"),
        (lambda: of_digits(model=dict(condition_dropout=1.0)), r"must lie in \[0, 1\), got 1.0"),
        (
            lambda: of_digits(model=dict(concat_condition=False, condition_dropout=0.1)),
            "needs config.model.concat_condition = True",
        ),
        (
            lambda: of_digits(evaluation=dict(label=2000)),
            "one of the 1797 conditions, which are those of the test data",
        ),
    ],
)
def test_what_does_not_fit_the_conditions_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        build(make())


def test_mirrored_images_beside_conditions_that_are_not_are_refused():
    config = of_digits()
    config["data"]["flip"] = True
    with pytest.raises(UserError, match="would mirror the images and not the conditions"):
        build(config)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (np.zeros((5, 2)), "conditions must be .N, K."),
        (np.zeros((6, 4, 4, 1)), None),
        (np.zeros((6, 4, 5, 1)), "conditions must be .N, K. or, of the images' size"),
        (np.full((6, 2), np.nan), "the conditions of 6 of 6 examples hold NaN"),
        (np.zeros((6, 2), np.int64), "conditions must be floats .N, K. or"),
        (np.zeros((6, 4, 4), np.uint8), None),
        (np.zeros((6, 0)), "conditions must be"),
    ],
)
def test_conditions_in_a_file_are_checked(conditions, message):
    np.savez("own.npz", x=np.zeros((6, 4, 4, 1), np.uint8), conditions=conditions)
    config = of_digits()
    config["data"] = dict(name="array", path="own.npz")
    if message is None:
        assert build(config).input_shape == (4, 4, 3)
        return
    with pytest.raises(UserError, match=message):
        build(config)
