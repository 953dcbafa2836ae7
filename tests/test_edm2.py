"""EDM2: the original's answers, the paper's sizes, magnitudes that stay, weights of no scale."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from goldens import cases, golden, relative_error

from score_jax.errors import UserError
from score_jax.interop import edm
from score_jax.interop.mapping import convert, shapes
from score_jax.models.base import count, init_params
from score_jax.models.edm2 import EDM2, Fourier, mp_cat, mp_silu, mp_sum

pytestmark = pytest.mark.usefixtures("quick_compile")

SMALL = EDM2(features=16, multipliers=(1,), blocks=1, attention=(), head_channels=8, classes=3)
SHAPE = (4, 4, 3)


def ours(options):
    """EDM2 as the original's arguments ask for it."""
    return EDM2(
        features=options["model_channels"],
        multipliers=tuple(options["channel_mult"]),
        blocks=options["num_blocks"],
        attention=tuple(options["attn_resolutions"]),
        head_channels=options["channels_per_head"],
        classes=options["label_dim"],
    )


def imported(tensors, module, shape):
    parameters = shapes(module, shape)
    return convert(edm.rules(module, shape, parameters), tensors, parameters)


def is_kernel(path):
    return path[-1].key == "kernel"


def scaled(params, low, high):
    """The parameters with the weights of every output multiplied by a number of its own."""
    rng = np.random.default_rng(1)
    scale = lambda leaf: leaf * rng.uniform(low, high, leaf.shape[-1]).astype(np.float32)
    change = lambda path, leaf: scale(leaf) if is_kernel(path) else leaf
    return jax.tree_util.tree_map_with_path(change, params)


@pytest.fixture(scope="module")
def trained():
    """SMALL's parameters, the gains moved off their zeros: a trained network is not zero."""
    params = init_params(SMALL, jax.random.key(0), SHAPE)
    change = lambda path, leaf: leaf + 0.7 if "gain" in path[-1].key else leaf
    return jax.tree_util.tree_map_with_path(change, params)


def ask(module, params, label=None, **options):
    """The answers to one and the same three questions."""
    x = jax.random.normal(jax.random.key(1), (3, *SHAPE))
    c = jnp.array([-1.5, 0.0, 1.0])
    apply = jax.jit(lambda params: module.apply({"params": params}, x, c, label=label, **options))
    return np.asarray(apply(params))


def magnitude(x):
    return float(np.sqrt(np.mean(np.square(x))))


@pytest.mark.parametrize("case", cases("edm2"))
def test_the_answer_is_the_original_networks(case):
    theirs = golden("edm2", case)
    module = ours(theirs.options)
    params = imported(theirs.tensors, module, theirs.x.shape[1:])
    apply = jax.jit(
        lambda params: module.apply({"params": params}, theirs.x, theirs.c, label=theirs.label)
    )
    assert relative_error(np.asarray(apply(params)), theirs.y) < 1e-5


@pytest.mark.parametrize(
    ("features", "shape", "parameters"),
    [
        (192, (64, 64, 3), 280_209_637),  # ImageNet-64: S, 280.2 M
        (256, (64, 64, 3), 497_803_557),  # M, 497.8 M
        (384, (64, 64, 3), 1_119_277_477),  # XL, 1119.3 M
        (128, (64, 64, 4), 124_713_381),  # ImageNet-512: XS, 124.7 M
    ],
)
def test_a_published_network_has_its_number_of_parameters(features, shape, parameters):
    """Karras et al. 2024, table 6; to the digit the original's, its constants counted."""
    assert count(EDM2(features=features, classes=1000), shape) == parameters


def test_it_starts_at_zero():
    params = init_params(SMALL, jax.random.key(0), SHAPE)
    assert not np.any(ask(SMALL, params, jnp.array([0, 1, -1])))


def test_magnitudes_stay_what_they_are():
    """Section 2.5: what is made of inputs of unit magnitude has about unit magnitude, in every
    block of a new network; and in the middle of them there is no trend."""
    module = EDM2(features=32, multipliers=(1, 2), blocks=2, attention=(8,), head_channels=16)
    shape = (16, 16, 3)
    params = init_params(module, jax.random.key(0), shape) | {"out_gain": np.ones(1, np.float32)}
    x, c = jax.random.normal(jax.random.key(1), (4, *shape)), jnp.array([-2.0, -1.0, 0.0, 1.0])
    apply = jax.jit(
        lambda params: module.apply({"params": params}, x, c, capture_intermediates=True)
    )
    y, state = apply(params)
    inside = flax.traverse_util.flatten_dict(state["intermediates"])
    found = {path[0]: magnitude(value[0]) for path, value in inside.items() if len(path) == 2}
    blocks = [value for name, value in found.items() if name.startswith(("down", "middle", "up"))]
    assert len(blocks) == 2 * 2 + 1 + 2 + 2 * 3 + 1
    assert all(0.75 < value < 1.35 for value in found.values()), found
    assert 0.9 < np.mean(blocks) < 1.15
    assert 0.75 < magnitude(y) < 1.35


def test_sums_and_concatenations_and_what_stands_alone_keep_magnitudes():
    a, b = np.random.default_rng(0).standard_normal((2, 400, 300))
    for t in (0.3, 0.5):
        assert abs(magnitude(mp_sum(a, b, t)) - 1.0) < 0.01
        both = np.asarray(mp_cat(a, b[:, :50], t))
        assert abs(magnitude(both) - 1.0) < 0.01
        shares = [np.linalg.norm(part) for part in np.split(both, [300], axis=1)]
        np.testing.assert_allclose(shares[1] / shares[0], t / (1 - t), rtol=0.02)
    assert abs(magnitude(mp_silu(a)) - 1.0) < 0.01
    fourier, c = Fourier(features=3000), jnp.linspace(-2.0, 2.0, 40)
    variables = flax.linen.meta.unbox(fourier.init(jax.random.key(0), c))
    assert abs(magnitude(fourier.apply(variables, c)) - 1.0) < 0.02


def test_the_scale_of_weights_is_without_effect(trained):
    """Equation 47; the weights are large here so that its ε is nothing."""
    large = scaled(trained, 1e4, 1e4)
    other = scaled(large, 0.1, 10.0)
    y = ask(SMALL, large)
    assert relative_error(ask(SMALL, other), y) < 1e-5
    assert relative_error(ask(SMALL, trained), y) < 1e-2


def test_forced_normalization_changes_weights_and_not_the_answer(trained):
    """Section 2.3: every output's weights have unit magnitude then, all else is as it was."""
    grown = scaled(trained, 1.0, 30.0)
    forced = EDM2.normalized(grown)
    assert relative_error(ask(SMALL, forced), ask(SMALL, grown)) < 5e-3
    before = dict(jax.tree_util.tree_leaves_with_path(grown))
    for path, leaf in jax.tree_util.tree_leaves_with_path(forced):
        if is_kernel(path):
            size = np.sqrt(np.mean(np.square(leaf), axis=tuple(range(leaf.ndim - 1))))
            np.testing.assert_allclose(size, 1.0, atol=1e-3)
        else:
            np.testing.assert_array_equal(leaf, before[path])


def test_gradients_are_at_right_angles_to_weights_and_remat_changes_nothing(trained):
    """Equation 59: no update lengthens a weight vector to first order. And the frequencies are
    never trained."""
    x, label = jax.random.normal(jax.random.key(1), (2, *SHAPE)), jnp.array([0, 2])

    def gradient(module):
        loss = lambda params: jnp.sum(
            module.apply({"params": params}, x, jnp.array([0.3, -1.0]), label=label) ** 2
        )
        return jax.jit(jax.grad(loss))(trained)

    slopes = gradient(SMALL)
    flat = dict(jax.tree_util.tree_leaves_with_path(trained))
    for path, slope in jax.tree_util.tree_leaves_with_path(slopes):
        if is_kernel(path):
            axes, weight = tuple(range(slope.ndim - 1)), flat[path]
            along = np.abs(np.sum(slope * weight, axes))
            lengths = np.sqrt(np.sum(slope**2, axes) * np.sum(weight**2, axes))
            assert np.all(along <= 1e-3 * lengths + 1e-5), path
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slopes["fourier"]))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    jax.tree.map(close, slopes, gradient(SMALL.clone(remat=True)))


def test_classes_and_the_lack_of_one_change_the_answer(trained):
    a, b, none = (ask(SMALL, trained, jnp.full(3, label)) for label in (0, 1, -1))
    assert min(relative_error(b, a), relative_error(none, a)) > 1e-2
    np.testing.assert_array_equal(ask(SMALL, trained, None), none)


def test_forgetting_every_class_in_training_is_to_have_none(trained):
    module = SMALL.clone(label_dropout=1.0 - 1e-7)
    label, rngs = jnp.array([0, 1, 2]), {"dropout": jax.random.key(0)}
    forgotten = ask(module, trained, label, train=True, rngs=rngs)
    assert relative_error(forgotten, ask(module, trained, None)) < 1e-5
    assert relative_error(forgotten, ask(module, trained, label)) > 1e-2


def test_without_classes_a_label_is_ignored(trained):
    params = {name: value for name, value in trained.items() if name != "label"}
    module = SMALL.clone(classes=0)
    y = ask(module, params, jnp.array([0, 1, 2]))
    np.testing.assert_array_equal(y, ask(module, params, None))


def test_bfloat16_is_the_same_answer_but_for_its_digits(trained):
    low = jax.tree.map(lambda p: p.astype(jnp.bfloat16), trained)
    x = jax.random.normal(jax.random.key(1), (1, *SHAPE))
    apply = jax.jit(lambda params, x: SMALL.apply({"params": params}, x, jnp.array([-0.4])))
    rough = apply(low, x.astype(jnp.bfloat16))
    assert rough.dtype == jnp.bfloat16
    assert relative_error(rough.astype(jnp.float32), apply(trained, x)) < 0.1


@pytest.mark.parametrize(
    ("module", "shape", "words"),
    [
        (EDM2(), (60, 64, 3), "divide by 8, got \\(60, 64, 3\\)"),
        (EDM2(), (64,), "divide by 8, got \\(64,\\)"),
        (EDM2(features=48), (64, 64, 3), "head_channels = 64 must divide .* 144 is one"),
        (EDM2(features=16, multipliers=(1, 2), attention=()), (8, 8, 3), "32 is one such number"),
        (EDM2(multipliers=()), (64, 64, 3), "multipliers must be at least 1"),
        (EDM2(blocks=0), (64, 64, 3), "blocks must be at least 1"),
        (EDM2(classes=-1), SHAPE, "classes must be at least 0"),
        (EDM2(label_dropout=1.0), SHAPE, "label_dropout must lie in"),
        (EDM2(dropout=-0.1), SHAPE, "model.dropout must lie in"),
    ],
)
def test_what_cannot_be_is_refused(module, shape, words):
    with pytest.raises(UserError, match=words):
        module.check(shape)
