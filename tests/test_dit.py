"""DiT: the original's answers, the paper's sizes, classes and the lack of one."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from goldens import cases, golden

from score_jax.errors import UserError
from score_jax.models.base import count, init_params
from score_jax.models.dit import DiT

pytestmark = pytest.mark.usefixtures("quick_compile")

SMALL = DiT(width=16, depth=1, heads=2, classes=3, label_dropout=0.5)
SHAPE = (8, 8, 3)


def ours(options):
    """DiT as the original's arguments ask for it."""
    return DiT(
        width=options["hidden_size"],
        depth=options["depth"],
        heads=options["num_heads"],
        patch=options["patch_size"],
        mlp_ratio=options.get("mlp_ratio", 4.0),
        classes=options["num_classes"],
        label_dropout=options["class_dropout_prob"],
        outputs=1 + options["learn_sigma"],
    )


def linear(weight):
    return weight.T


def patches(weight):
    """A convolution's [out, in, height, width] as the matrix of a flattened patch."""
    return weight.transpose(2, 3, 1, 0).reshape(-1, len(weight))


def sines_first(weight):
    """The original's embedding of the timestep has its cosines first."""
    return np.concatenate(np.split(weight.T, 2)[::-1])


def same(array):
    return array


def mapping(depth):
    """(the original's name, our path, what makes our array of theirs) of every parameter."""
    layers = [
        ("x_embedder.proj", "patches", patches),
        ("t_embedder.mlp.0", "time_1", sines_first),
        ("t_embedder.mlp.2", "time_2", linear),
        ("final_layer.adaLN_modulation.1", "out_modulation", linear),
        ("final_layer.linear", "out", linear),
    ]
    for i in range(depth):
        for theirs, name in (
            ("adaLN_modulation.1", "modulation"),
            ("attn.qkv", "qkv"),
            ("attn.proj", "attention_out"),
            ("mlp.fc1", "mlp_1"),
            ("mlp.fc2", "mlp_2"),
        ):
            layers.append((f"blocks.{i}.{theirs}", f"block_{i}/{name}", linear))
    return [
        ("y_embedder.embedding_table.weight", "label/table", same),
        *((f"{theirs}.weight", f"{name}/kernel", change) for theirs, name, change in layers),
        *((f"{theirs}.bias", f"{name}/bias", same) for theirs, name, _ in layers),
    ]


def imported(tensors, depth):
    rows = mapping(depth)
    assert {theirs for theirs, _, _ in rows} == set(tensors)
    flat = {path: change(tensors[theirs]) for theirs, path, change in rows}
    return flax.traverse_util.unflatten_dict(flat, sep="/")


@pytest.fixture(scope="module")
def trained():
    """SMALL's parameters, moved off their zeros: a trained network is not zero."""
    rng = np.random.default_rng(0)
    params = init_params(SMALL, jax.random.key(0), SHAPE)
    return jax.tree.map(lambda p: p + 0.2 * rng.standard_normal(p.shape, np.float32), params)


def ask(module, params, label, **options):
    """The answers to one and the same three questions."""
    x = jax.random.normal(jax.random.key(1), (3, *SHAPE))
    c = jnp.array([0.0, 500.5, 999.0])
    apply = jax.jit(lambda params: module.apply({"params": params}, x, c, label=label, **options))
    return np.asarray(apply(params))


@pytest.mark.parametrize("case", cases("dit"))
def test_the_answer_is_the_original_networks(case):
    theirs = golden("dit", case)
    module = ours(theirs.options)
    params = imported(theirs.tensors, module.depth)
    apply = jax.jit(
        lambda params: module.apply({"params": params}, theirs.x, theirs.c, label=theirs.label)
    )
    y = np.asarray(apply(params))
    assert y.shape == theirs.y.shape
    assert np.linalg.norm(y - theirs.y) < 1e-5 * np.linalg.norm(theirs.y)


@pytest.mark.parametrize(
    ("width", "depth", "heads", "parameters"),
    [
        (384, 12, 6, 32_865_056),  # S, 33 M
        (768, 12, 12, 130_315_808),  # B, 130 M
        (1024, 24, 16, 457_840_672),  # L, 458 M
        (1152, 28, 16, 674_834_720),  # XL, 675 M
    ],
)
def test_a_published_network_has_its_number_of_parameters(width, depth, heads, parameters):
    """Peebles & Xie 2023; to the digit the original's trainable ones."""
    module = DiT(width=width, depth=depth, heads=heads, patch=2, classes=1000, outputs=2)
    assert count(module, (32, 32, 4)) == parameters


def test_the_default_is_the_largest_and_starts_at_zero():
    assert DiT() == DiT(width=1152, depth=28, heads=16, patch=2)
    params = init_params(SMALL, jax.random.key(0), SHAPE)
    assert not np.any(ask(SMALL, params, jnp.array([0, 1, -1])))


def test_initial_parameters_are_the_papers():
    """Glorot's uniform law for all but embeddings, normal with 0.02, and what starts at zero."""
    params = init_params(DiT(width=64, depth=1, heads=4, classes=90), jax.random.key(0), SHAPE)
    bound = lambda rows, columns: np.sqrt(6 / (rows + columns))
    for name, expected in (("qkv", bound(64, 192)), ("mlp_1", bound(64, 256))):
        kernel = params["block_0"][name]["kernel"]
        assert 0.99 * expected < np.abs(kernel).max() <= expected
    assert 0.95 * bound(12, 64) < np.abs(params["patches"]["kernel"]).max() <= bound(12, 64)
    for kernel in (params["label"]["table"], *(params[f"time_{i}"]["kernel"] for i in (1, 2))):
        np.testing.assert_allclose(kernel.std(), 0.02, rtol=0.05)
    for layer in (params["block_0"]["modulation"], params["out_modulation"], params["out"]):
        assert not np.any(layer["kernel"])


def test_classes_and_the_lack_of_one_change_the_answer(trained):
    a, b, none = (ask(SMALL, trained, jnp.full(3, label)) for label in (0, 1, -1))
    assert min(np.abs(a - b).max(), np.abs(a - none).max()) > 1e-2
    np.testing.assert_array_equal(ask(SMALL, trained, None), none)


def test_forgetting_every_class_in_training_is_to_have_none(trained):
    module = SMALL.clone(label_dropout=1.0 - 1e-7)
    rngs = {"dropout": jax.random.key(0)}
    forgotten = ask(module, trained, jnp.array([0, 1, 2]), train=True, rngs=rngs)
    np.testing.assert_allclose(forgotten, ask(module, trained, None), rtol=1e-5, atol=1e-5)
    assert np.abs(forgotten - ask(module, trained, jnp.array([0, 1, 2]))).max() > 1e-2


def test_without_classes_a_label_is_ignored(trained):
    """And a network that never forgets takes no class for the vector of zeros."""
    params = {name: value for name, value in trained.items() if name != "label"}
    table = trained["label"]["table"][:3]
    unconditional = ask(SMALL.clone(classes=0), params, jnp.array([0, 1, 2]))
    never = ask(SMALL.clone(label_dropout=0.0), params | {"label": {"table": table}}, None)
    np.testing.assert_allclose(never, unconditional, rtol=1e-5, atol=1e-5)


def test_remat_changes_nothing_but_memory(trained):
    def gradient(module):
        loss = lambda params: jnp.sum(module.apply({"params": params}, *inputs) ** 2)
        return jax.jit(jax.grad(loss))(trained)

    inputs = jnp.ones((1, *SHAPE)), jnp.array([3.0])
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    jax.tree.map(close, gradient(SMALL), gradient(SMALL.clone(remat=True)))


@pytest.mark.parametrize(
    ("module", "shape", "words"),
    [
        (DiT(patch=4), (30, 32, 3), "divide by 4, got \\(30, 32, 3\\)"),
        (DiT(), (64,), "divide by 2, got \\(64,\\)"),
        (DiT(width=30, heads=2), SHAPE, "width must divide by 4"),
        (DiT(width=32, heads=5), SHAPE, "heads must divide model.width = 32, got 5"),
        (DiT(depth=0), SHAPE, "depth must be at least 1"),
        (DiT(mlp_ratio=0.0), SHAPE, "mlp_ratio must leave"),
        (DiT(classes=-1), SHAPE, "classes must be at least 0"),
        (DiT(label_dropout=1.0), SHAPE, "label_dropout must lie in"),
    ],
)
def test_what_cannot_be_is_refused(module, shape, words):
    with pytest.raises(UserError, match=words):
        module.check(shape)


def test_images_need_not_be_square(trained):
    x = jnp.ones((1, 4, 10, 3))
    apply = jax.jit(lambda params: SMALL.apply({"params": params}, x, jnp.zeros(1)))
    assert apply(trained).shape == x.shape


def test_bfloat16_is_the_same_answer_but_for_its_digits(trained):
    low = jax.tree.map(lambda p: p.astype(jnp.bfloat16), trained)
    x = jax.random.normal(jax.random.key(1), (1, *SHAPE))
    apply = jax.jit(lambda params, x: SMALL.apply({"params": params}, x, jnp.array([321.5])))
    y, rough = apply(trained, x), apply(low, x.astype(jnp.bfloat16))
    assert rough.dtype == jnp.bfloat16
    assert jnp.linalg.norm(rough.astype(jnp.float32) - y) < 0.05 * jnp.linalg.norm(y)
