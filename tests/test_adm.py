"""ADM: the originals' answers for the same weights, sizes, classes, options."""

import jax
import numpy as np
import pytest
from flax import traverse_util
from goldens import cases, golden, relative_error

from score_jax.errors import UserError
from score_jax.interop import edm
from score_jax.interop.mapping import convert, shapes
from score_jax.models.adm import ADM
from score_jax.models.base import as_net, count, init_params

pytestmark = pytest.mark.usefixtures("quick_compile")

# ---- the names of the tensors in the originals, and what they are here


def same(array):
    return array


def linear(array):
    """[out, in, 1 ...] -> [in, out]."""
    return array.reshape(array.shape[:2]).T


def kernel(array):
    """[out, in, height, width] -> [height, width, in, out]."""
    return array.transpose(2, 3, 1, 0)


def sines_first(array):
    """The originals' embedding of the timestep has its cosines first."""
    return np.concatenate(np.split(array.T, 2)[::-1])


def _layer(theirs, ours, change):
    yield f"{theirs}.weight", f"{ours}/kernel", change
    yield f"{theirs}.bias", f"{ours}/bias", same


def _norm(theirs, ours):
    yield f"{theirs}.weight", f"{ours}/scale", same
    yield f"{theirs}.bias", f"{ours}/bias", same


def _attention(theirs, ours, norm, qkv, out, part):
    """part(i, array): queries (0), keys (1) or values (2) of their one array, all heads'."""
    yield from _norm(f"{theirs}.{norm}", f"{ours}/norm")
    for i, name in enumerate(("query", "key", "value")):
        one = lambda array, i=i: part(i, array)
        yield f"{theirs}.{qkv}.weight", f"{ours}/{name}/kernel", lambda a, one=one: linear(one(a))
        yield f"{theirs}.{qkv}.bias", f"{ours}/{name}/bias", one
    yield from _layer(f"{theirs}.{out}", f"{ours}/out", linear)


def _heads(module, channels):
    return channels // module.head_channels if module.head_channels else module.heads


def _walk(module, side):
    """(way, level, i, channels in, channels out, whether attention follows) of the blocks in
    their order, but for the middle. i is None for what changes the resolution, after a level."""
    levels = [
        (level, multiplier * module.features, side >> level in module.attention)
        for level, multiplier in enumerate(module.multipliers)
    ]
    width = module.multipliers[0] * module.features
    skips = [width]
    for level, out, attends in levels:
        if level > 0:
            yield "down", level - 1, None, width, width, False
            skips.append(width)
        for i in range(module.blocks):
            yield "down", level, i, width, out, attends
            width = out
            skips.append(width)
    for level, out, attends in reversed(levels):
        for i in range(module.blocks + 1):
            yield "up", level, i, width + skips.pop(), out, attends
            width = out
        if level > 0:
            yield "up", level, None, width, width, False


def guided_diffusion_tensors(module: ADM, side: int, new_order: bool):
    """(their name, our path, what to do to the array) of openai/guided-diffusion's UNetModel.

    side: the images' height in pixels. new_order: their use_new_attention_order, whether queries,
    keys and values are told apart before the heads are.
    """

    def residual(theirs, ours, narrow, wide):
        yield from _norm(f"{theirs}.in_layers.0", f"{ours}/norm_0")
        yield from _layer(f"{theirs}.in_layers.2", f"{ours}/conv_0", kernel)
        yield from _layer(f"{theirs}.emb_layers.1", f"{ours}/embed", linear)
        yield from _norm(f"{theirs}.out_layers.0", f"{ours}/norm_1")
        yield from _layer(f"{theirs}.out_layers.3", f"{ours}/conv_1", kernel)
        if narrow != wide:
            yield from _layer(f"{theirs}.skip_connection", f"{ours}/shortcut", linear)

    def attention(theirs, ours, channels):
        heads = 1 if new_order else _heads(module, channels)

        def part(i, array):
            rest = array.shape[1:]
            return array.reshape(heads, 3, -1, *rest)[:, i].reshape(-1, *rest)

        yield from _attention(theirs, ours, "norm", "qkv", "proj_out", part)

    def resampled(theirs, ours, way, channels):
        if module.resample == "block":
            yield from residual(theirs, ours, channels, channels)
        if module.resample == "conv":
            inner = "op" if way == "down" else "conv"
            yield from _layer(f"{theirs}.{inner}", ours, kernel)

    entries = [
        *_layer("time_embed.0", "embed_0", sines_first),
        *_layer("time_embed.2", "embed_1", linear),
        *_layer("input_blocks.0.0", "stem", kernel),
        *_norm("out.0", "out_norm"),
        *_layer("out.2", "out", kernel),
    ]
    if module.classes:
        entries.append(("label_emb.weight", "label/table", same))

    seen, last = {"down": 0, "up": -1}, None
    for way, level, i, narrow, wide, attends in _walk(module, side):
        if i is None and way == "up":  # a module of the block before it
            theirs = f"output_blocks.{seen['up']}.{last}"
        else:
            seen[way] += 1
            theirs = f"{'input' if way == 'down' else 'output'}_blocks.{seen[way]}"
        if i is None:
            theirs = f"{theirs}.0" if way == "down" else theirs
            entries += resampled(theirs, f"{way}_{level}_resample", way, wide)
            continue
        entries += residual(f"{theirs}.0", f"{way}_{level}_block_{i}", narrow, wide)
        if attends:
            entries += attention(f"{theirs}.1", f"{way}_{level}_attention_{i}", wide)
        last = 1 + attends

    middle = module.multipliers[-1] * module.features
    entries += residual("middle_block.0", "middle_block_0", middle, middle)
    entries += attention("middle_block.1", "middle_attention", middle)
    entries += residual("middle_block.2", "middle_block_1", middle, middle)
    return entries


def converted(entries, tensors):
    """Our parameters, of the original's tensors, all of which must be used."""
    assert {theirs for theirs, _, _ in entries} == set(tensors)
    flat = {ours: change(tensors[theirs]) for theirs, ours, change in entries}
    assert len(flat) == len(entries)
    return traverse_util.unflatten_dict(flat, sep="/")


# ---- the tests


def of_guided_diffusion(options, side):
    """ADM as the arguments of guided-diffusion's UNetModel ask for it, and its mapping."""
    resample = "conv" if options.get("conv_resample", True) else "plain"
    module = ADM(
        features=options["model_channels"],
        multipliers=tuple(options["channel_mult"]),
        blocks=options["num_res_blocks"],
        attention=tuple(side // rate for rate in options["attention_resolutions"]),
        head_channels=options.get("num_head_channels", 0),
        heads=options.get("num_heads", 1),
        classes=options.get("num_classes", 0),
        outputs=options["out_channels"] // options["in_channels"],
        scale_shift=options["use_scale_shift_norm"],
        resample="block" if options["resblock_updown"] else resample,
    )
    return module, guided_diffusion_tensors(module, side, options["use_new_attention_order"])


def of_edm(options):
    """ADM as the arguments of EDM's DhariwalUNet ask for it."""
    return ADM(
        features=options["model_channels"],
        multipliers=tuple(options["channel_mult"]),
        blocks=options["num_blocks"],
        attention=tuple(options["attn_resolutions"]),
        classes=options["label_dim"],
    )


SMALL = ADM(
    features=8,
    multipliers=(1, 2),
    blocks=1,
    attention=(),
    head_channels=0,
    heads=2,
    dropout=0.0,
    classes=3,
    label_dropout=0.5,
)
SHAPE = (4, 4, 1)


@pytest.fixture(scope="module")
def trained():
    """SMALL's parameters, moved off their zeros: a trained network is not zero."""
    rng = np.random.default_rng(0)
    params = init_params(SMALL, jax.random.key(0), SHAPE)
    return jax.tree.map(lambda p: p + 0.2 * rng.standard_normal(p.shape, np.float32), params)


@pytest.fixture(scope="module")
def ask(trained):
    """(label, keys or None) -> the answers to one and the same question, in training if keys."""
    x = jax.random.normal(jax.random.key(1), SHAPE)

    @jax.jit
    def answer(label, key=None):
        net = as_net(SMALL, trained, label=label, dropout_key=key)
        return net(x, 321.5)

    @jax.jit
    def answers(label, keys):
        return jax.vmap(lambda key: answer(label, key))(keys)

    return lambda label, keys=None: np.asarray(
        answer(label) if keys is None else answers(label, keys)
    )


def imported(case, known):
    """(our network, its parameters) of a golden."""
    shape = known.x.shape[1:]
    if case.startswith("edm"):
        module = of_edm(known.options)
        parameters = shapes(module, shape)
        return module, convert(edm.rules(module, shape, parameters), known.tensors, parameters)
    module, entries = of_guided_diffusion(known.options, shape[0])
    params = converted(entries, known.tensors)
    initial = init_params(module, jax.random.key(0), shape)
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, initial)
    return module, params


@pytest.mark.parametrize("case", cases("adm"))
def test_the_answer_is_the_original_networks(case):
    known = golden("adm", case)
    module, params = imported(case, known)
    apply = jax.jit(
        lambda params, x: module.apply({"params": params}, x, known.c, False, known.label)
    )
    assert relative_error(apply(params, known.x), known.y) < 1e-5


IMAGENET = dict(features=256, blocks=2, outputs=2)


@pytest.mark.parametrize(
    ("module", "side", "parameters"),
    [
        (ADM(classes=1000, outputs=2), 64, 295_904_454),
        (ADM(classes=1000), 64, 295_899_267),  # EDM's
        (
            ADM(multipliers=(1, 1, 2, 3, 4), head_channels=0, heads=4, classes=1000, **IMAGENET),
            128,
            421_529_606,
        ),
        (ADM(multipliers=(1, 1, 2, 2, 4, 4), classes=1000, **IMAGENET), 256, 553_838_086),
        (ADM(multipliers=(1, 1, 2, 2, 4, 4), **IMAGENET), 256, 552_814_086),
    ],
)
def test_a_published_network_has_its_number_of_parameters(module, side, parameters):
    """Dhariwal & Nichol 2021: 296, 422 and 554 million; to the digit the original's."""
    assert count(module, (side, side, 3)) == parameters


def test_every_branch_and_the_answer_are_zero_at_first():
    params = init_params(SMALL, jax.random.key(0), SHAPE)
    last = {
        name: layer.get("conv_1") or layer["out"]
        for name, layer in params.items()
        if "block" in name or "resample" in name or "attention" in name
    }
    assert len(last) == 11
    for layer in (params["out"], *last.values()):
        assert not np.any(layer["kernel"]) and not np.any(layer["bias"])


def test_initial_parameters_are_pytorchs():
    """U(±1/√fan_in), kernels and biases; the classes' vectors are standard normal."""
    params = init_params(SMALL.clone(features=32), jax.random.key(0), SHAPE)
    block = params["down_1_block_0"]
    for layer, fan_in in (
        (block["conv_0"], 9 * 32),
        (block["embed"], 128),
        (block["shortcut"], 32),
    ):
        for leaf in layer.values():
            assert 0.9 * fan_in**-0.5 < np.abs(leaf).max() <= fan_in**-0.5
    np.testing.assert_allclose(params["label"]["table"].std(), 1.0, rtol=0.15)


def test_classes_and_the_lack_of_one_change_the_answer(ask):
    a, b, none = ask(0), ask(1), ask(-1)
    assert min(np.abs(a - b).max(), np.abs(a - none).max(), np.abs(b - none).max()) > 1e-2
    assert np.array_equal(none, ask(None))


def test_a_class_is_left_out_in_training_as_often_as_asked(ask):
    keys = jax.random.split(jax.random.key(2), 40)
    told, none = ask(1), ask(-1)
    dropped = [np.allclose(y, none, atol=1e-4) for y in ask(1, keys)]
    kept = [np.allclose(y, told, atol=1e-4) for y in ask(1, keys)]
    assert np.array_equal(dropped, np.logical_not(kept))
    assert 10 <= sum(dropped) <= 30
    assert all(np.allclose(y, none, atol=1e-4) for y in ask(-1, keys))


def test_every_residual_block_can_be_computed_again(trained):
    x = jax.random.normal(jax.random.key(1), SHAPE)
    again = SMALL.clone(remat=True)
    program = jax.make_jaxpr(as_net(again, trained))(x, 1.0)
    blocks = [e.params["jaxpr"] for e in program.eqns if e.params.get("name") == "_shared"]
    again_made = [e for block in blocks for e in block.eqns if "remat" in str(e.primitive)]
    assert sum("conv" in str(equation.params) for equation in again_made) == 10  # not a norm alone
    answers = (jax.jit(as_net(module, trained))(x, 1.0) for module in (SMALL, again))
    np.testing.assert_allclose(*answers, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_near_float32(trained, ask):
    x = jax.random.normal(jax.random.key(1), SHAPE)
    low = jax.jit(as_net(SMALL, trained, label=1, dtype="bfloat16"))(x, 321.5)
    assert np.linalg.norm(low - ask(1)) < 0.1 * np.linalg.norm(ask(1))


@pytest.mark.parametrize(
    ("options", "shape", "words"),
    [
        (dict(), (60, 60, 3), "model adm with 4 multipliers .* divide by 8, got"),
        (dict(resample="pool"), (64, 64, 3), "unknown model.resample 'pool'; known: block, conv"),
        (dict(head_channels=100), (64, 64, 3), "head_channels = 100 must divide the 384 channels"),
        (dict(head_channels=0, heads=5), (64, 64, 3), "heads must divide model.features = 192"),
        (dict(head_channels=0, heads=0), (64, 64, 3), "heads must divide model.features = 192"),
        (dict(classes=-1), (64, 64, 3), "classes must be at least 0, got -1"),
        (dict(dropout=1.0), (64, 64, 3), "dropout must lie in"),
        (dict(label_dropout=-0.1), (64, 64, 3), "label_dropout must lie in"),
        (dict(multipliers=()), (64, 64, 3), "multipliers must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(options, shape, words):
    with pytest.raises(UserError, match=words):
        ADM(**options).check(shape)
