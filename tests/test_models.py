"""Networks: parameter counts of the papers, what is conditioned on what, initial parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.errors import UserError
from score_jax.models import ADM, EDM2, MLP, MODELS, DiT, NCSNpp, NCSNv2, RefineNet, UNet
from score_jax.models.base import as_net, count, init_params, output_shape
from score_jax.models.embeddings import sinusoidal
from score_jax.models.initializers import fan_in_uniform, initialize, zeros
from score_jax.models.layers import Attention
from score_jax.models.refinenet import InstanceNorm, ResidualBlock, enlarged

SMALL = {
    "mlp": (MLP(width=16, depth=2), (3,)),
    "ncsnpp": (
        NCSNpp(features=8, multipliers=(1, 2), blocks=1, attention=(4,), fourier_scale=0.1),
        (8, 8, 1),
    ),
    "adm": (
        ADM(features=8, multipliers=(1, 2), blocks=1, attention=(4,), head_channels=8),
        (8, 8, 1),
    ),
    "ncsnv2": (NCSNv2(features=4), (8, 8, 1)),
    "dit": (DiT(width=16, depth=2, heads=2, label_dropout=0.0), (8, 8, 1)),
    "edm2": (
        EDM2(features=8, multipliers=(1, 2), blocks=1, attention=(4,), head_channels=8),
        (8, 8, 1),
    ),
    "refinenet": (RefineNet(features=4, levels=5), (8, 8, 1)),
    "unet": (
        UNet(features=8, multipliers=(1, 2), blocks=1, attention=(4,), dropout=0.5),
        (8, 8, 1),
    ),
}


@pytest.fixture(scope="module", params=sorted(SMALL))
def small(request):
    """(module, parameters moved off their zeros, shape): a trained network is not zero."""
    module, shape = SMALL[request.param]
    params = init_params(module, jax.random.key(0), shape)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape, np.float32), params)
    return module, params, shape


def test_every_model_has_a_small_example():
    assert set(SMALL) == set(MODELS)


LSUN_DDPM, FFHQ = (1, 1, 2, 2, 4, 4), (1, 2, 4, 8, 16, 32, 32, 32)
DDPMPP = dict(embedding="positional", fir=False, progressive_input="none")
SKIPS = dict(progressive="output_skip", progressive_input="input_skip")


@pytest.mark.parametrize(
    ("module", "shape", "parameters"),
    [
        (UNet(), (32, 32, 3), 35_746_307),  # Ho et al. 2020: 35.7 M
        (UNet(up_attention="level"), (32, 32, 3), 35_218_947),  # score_sde's DDPM
        (UNet(up_attention="level", conditional=False), (32, 32, 3), 32_329_347),
        (UNet(up_attention="level", multipliers=LSUN_DDPM), (256, 256, 3), 111_569_923),
        (NCSNpp(), (32, 32, 3), 62_758_915),  # from here on score_sde's
        (NCSNpp(blocks=8), (32, 32, 3), 107_587_075),
        (NCSNpp(embedding="positional"), (32, 32, 3), 62_693_251),
        (NCSNpp(embedding="positional", blocks=8), (32, 32, 3), 107_521_411),
        (NCSNpp(**DDPMPP), (32, 32, 3), 61_804_419),
        (NCSNpp(**DDPMPP, blocks=8), (32, 32, 3), 106_632_579),
        (NCSNpp(**SKIPS, multipliers=(1, 1, 2, 2, 2, 2, 2), blocks=2), (256, 256, 3), 65_574_549),
        (NCSNpp(**SKIPS, features=16, multipliers=FFHQ, blocks=1), (1024, 1024, 3), 105_785_896),
        # EDM's, which leave out the fixed frequencies of the Fourier features
        (NCSNpp(**DDPMPP, multipliers=(2, 2, 2)), (32, 32, 3), 55_732_739),
        (NCSNpp(multipliers=(2, 2, 2)), (32, 32, 3), 56_395_523 + 128),
        (RefineNet(levels=10), (32, 32, 3), 34_428_675),  # score_sde's NCSN
        (RefineNet(levels=232), (32, 32, 3), 44_828_931),
        (RefineNet(levels=500), (64, 64, 3), 57_384_195),
    ],
)
def test_a_published_network_has_its_number_of_parameters(module, shape, parameters):
    assert count(module, shape) == parameters


def test_a_batch_is_its_examples_one_by_one(small):
    module, params, shape = small
    x = jax.random.normal(jax.random.key(1), (3, *shape))
    c = jnp.array([0.0, 1.0, 4.0])
    batch = jax.jit(module.apply)({"params": params}, x, c)
    single = jax.jit(jax.vmap(as_net(module, params)))(x, c)
    np.testing.assert_allclose(single, batch, rtol=2e-4, atol=2e-4)
    assert float(jnp.abs(batch).max()) > 0.01


def test_the_answer_depends_on_the_noise_level(small):
    """But for NCSNv2's, whose answer is divided by σ afterwards."""
    module, params, shape = small
    x = jax.random.normal(jax.random.key(1), shape)
    net = jax.jit(as_net(module, params))
    told = not isinstance(module, NCSNv2)
    assert (float(jnp.abs(net(x, 0.0) - net(x, 3.0)).max()) > 1e-3) == told


def test_an_answer_does_not_depend_on_the_batch_mates(small):
    module, params, shape = small
    x = jax.random.normal(jax.random.key(1), (2, *shape))
    other = x.at[1].set(7.0)
    apply = jax.jit(lambda x: module.apply({"params": params}, x, jnp.array([1.0, 1.0]))[0])
    np.testing.assert_allclose(apply(x), apply(other), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [*SMALL, "fourier"])
def test_in_bfloat16_it_answers_the_same_to_bfloat16s_precision(name):
    """Also at c = -4.6, log of σ = 0.01, where 2π W c turns hundreds of times."""
    module, shape = SMALL.get(name, (None, (8, 8, 1)))
    if name == "fourier":
        module = NCSNpp(features=8, multipliers=(1,), blocks=1, attention=(), fourier_scale=16.0)
    params = init_params(module, jax.random.key(0), shape)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape, np.float32), params)
    x = jax.random.normal(jax.random.key(1), shape)
    full, half = (
        jax.jit(as_net(module, params, dtype=dtype))(x, -4.6) for dtype in ("float32", "bfloat16")
    )
    assert half.dtype == jnp.float32
    assert 1e-5 < float(jnp.linalg.norm(full - half) / jnp.linalg.norm(full)) < 0.05


def test_dropout_follows_its_key_and_is_off_without_one():
    module, shape = SMALL["unet"]
    params = init_params(module, jax.random.key(0), shape)
    params = jax.tree.map(lambda p: p + 0.1, params)
    x, answer = jax.random.normal(jax.random.key(1), shape), {}
    for name, key in (("none", None), ("a", 0), ("a again", 0), ("b", 1)):
        key = None if key is None else jax.random.key(key)
        net = jax.jit(as_net(module, params, dropout_key=key))
        answer[name] = np.asarray(net(x, 1.0))
    assert np.array_equal(answer["a"], answer["a again"])
    assert not np.allclose(answer["a"], answer["b"])
    assert not np.allclose(answer["a"], answer["none"])


def test_the_unet_starts_at_zero():
    """Ho et al. 2020: the last convolution of every block, and of the network, starts at zero."""
    module, shape = SMALL["unet"]
    params = init_params(module, jax.random.key(0), shape)
    assert not np.any(as_net(module, params)(jax.random.normal(jax.random.key(1), shape), 2.0))


def test_initialization_follows_what_its_initializers_announce():
    """Each leaf's spread is the published one; every leaf is drawn anew; the key decides."""
    module = nn.Dense(300, kernel_init=fan_in_uniform, bias_init=zeros)
    draw = lambda seed: initialize(module, jax.random.key(seed), jnp.zeros((1, 200)))["kernel"]
    kernel = draw(0)
    bound = 200**-0.5
    assert np.abs(kernel).max() <= bound and np.abs(kernel).max() > 0.99 * bound
    np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.02)
    assert abs(kernel.mean()) < 4 * bound / np.sqrt(3 * kernel.size)
    assert np.array_equal(kernel, draw(0))
    assert not np.array_equal(kernel, draw(1))


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (ResidualBlock(features=24, levels=10), (np.zeros((1, 4, 4, 24)), np.zeros(1, int))),
        (Attention(), (np.zeros((1, 4, 4, 64)),)),
    ],
)
def test_fast_and_plain_initialization_agree_in_distribution(module, inputs):
    """The flat draw and Flax's own init give every leaf the same mean and spread."""
    fast = initialize(module, jax.random.key(0), *inputs)
    plain = nn.meta.unbox(jax.jit(module.init)(jax.random.key(1), *inputs))["params"]
    assert jax.tree.structure(fast) == jax.tree.structure(plain)
    for a, b in zip(jax.tree.leaves(fast), jax.tree.leaves(plain)):
        assert a.shape == b.shape and a.dtype == b.dtype
        spread = b.std()
        assert abs(a.std() - spread) <= 5 * spread / np.sqrt(a.size)
        assert abs(a.mean() - b.mean()) <= 6 * spread / np.sqrt(a.size)


def test_a_module_is_traced_once_for_all_that_is_asked_of_it_before_it_runs():
    traces = []

    class Traced(nn.Module):
        @nn.compact
        def __call__(self, x, c):
            traces.append(x.shape)
            return nn.Dense(3, kernel_init=fan_in_uniform, bias_init=zeros)(x)

    assert count(Traced(), (2,)) == 9 and output_shape(Traced(), (2,)) == (3,)
    init_params(Traced(), jax.random.key(0), (2,))
    assert traces == [(1, 2)]


def test_no_two_leaves_share_their_draw():
    params = init_params(
        UNet(features=8, multipliers=(1,), attention=()), jax.random.key(0), (8, 8, 1)
    )
    firsts = [leaf.ravel()[0] / leaf.std() for leaf in jax.tree.leaves(params) if leaf.std() > 0]
    assert len(set(firsts)) == len(firsts)


def test_sinusoidal_embedding_turns_shifts_into_rotations(x64):
    """Each pair (sin, cos) of c + d is that of c turned by the angle of d."""
    width, c, d = 32, jnp.array([3.0]), jnp.array([11.5])
    (s_c, c_c), (s_d, c_d) = (jnp.split(sinusoidal(v, width)[0], 2) for v in (c, d))
    s_sum, c_sum = jnp.split(sinusoidal(c + d, width)[0], 2)
    np.testing.assert_allclose(s_sum, s_c * c_d + c_c * s_d, rtol=1e-9)
    np.testing.assert_allclose(c_sum, c_c * c_d - s_c * s_d, rtol=1e-9)


def test_enlarging_maps_corners_to_corners_and_keeps_ramps():
    """Bilinear with aligned corners reproduces every affine function exactly."""
    ramp = lambda n: jnp.linspace(-1.0, 3.0, n)[None, :, None, None] * jnp.ones((1, 1, n, 1))
    np.testing.assert_allclose(enlarged(ramp(4), (7, 7)), ramp(7), atol=1e-6)


def test_instance_norm_removes_scale_and_shift_but_keeps_the_means_relative_order():
    """With γ = α = 1, β = 0: each channel has variance 1, and its mean says how its own mean
    stands among the channels' (the ++ of instance norm++)."""
    x = jax.random.normal(jax.random.key(0), (1, 16, 16, 6)) * jnp.arange(1, 7) + jnp.arange(6)
    module = InstanceNorm(levels=3)
    level = jnp.array([1])
    variables = nn.meta.unbox(module.init(jax.random.key(0), x, level))
    variables = jax.tree.map(lambda p: jnp.round(p), variables)  # γ = α = 1, β = 0
    y = module.apply(variables, x, level)
    np.testing.assert_allclose(y.var((1, 2)), 1.0, rtol=1e-3)
    mean = x.mean((1, 2))
    relative = (mean - mean.mean()) / mean.std(ddof=1)
    np.testing.assert_allclose(y.mean((1, 2)), relative, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("module", "shape", "words"),
    [
        (UNet(multipliers=(1, 2, 2)), (30, 30, 1), "divide by 4, got \\(30, 30, 1\\)"),
        (
            UNet(attention=(7,)),
            (32, 32, 3),
            r"\(7,\) .* 7 is none of .* choose of 32, 16, 8, 4, or \(\)",
        ),
        (UNet(), (64,), "divide by 8, got \\(64,\\)"),
        (RefineNet(), (7, 8, 1), "even sides, got \\(7, 8, 1\\)"),
    ],
)
def test_an_image_that_does_not_fit_is_refused(module, shape, words):
    with pytest.raises(UserError, match=words):
        module.check(shape)
