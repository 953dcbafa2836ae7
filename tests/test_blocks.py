"""A block that is traced once is what the block itself is."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.models.adm import ADM
from score_jax.models.base import as_net, init_params
from score_jax.models.blocks import shared
from score_jax.models.dit import DiT
from score_jax.models.edm2 import EDM2
from score_jax.models.ncsnpp import NCSNpp
from score_jax.models.ncsnv2 import NCSNv2
from score_jax.models.refinenet import RefineNet
from score_jax.models.unet import UNet

SHAPE = (8, 8, 3)
U = dict(features=8, multipliers=(1, 2), blocks=1, attention=(4,))
NETWORKS = {
    "unet": UNet(**U),
    "ncsnpp": NCSNpp(**U),
    "adm": ADM(**(U | dict(features=32, head_channels=16))),
    "edm2": EDM2(**(U | dict(features=32, head_channels=16))),
    "dit": DiT(patch=2, width=16, depth=3, heads=2),
    "refinenet": RefineNet(features=4, levels=3),
    "ncsnv2": NCSNv2(features=4),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_answers_as_with_its_blocks_called_one_by_one(name):
    """What looks into a network calls its blocks as Flax does: the oracle."""
    module = NETWORKS[name]
    params = init_params(module, jax.random.key(0), SHAPE)
    params = jax.tree.map(lambda w: w + 0.1 * np.cos(np.arange(w.size)).reshape(w.shape), params)
    x = jax.random.uniform(jax.random.key(1), (1, *SHAPE))

    def one_by_one(params, x):
        return module.apply({"params": params}, x, jnp.ones(1), capture_intermediates=True)[0]

    def once(params, x):
        return module.apply({"params": params}, x, jnp.ones(1))

    assert "_shared" not in str(jax.make_jaxpr(one_by_one)(params, x))
    of = lambda net: jax.jit(jax.value_and_grad(lambda params: jnp.sum(net(params, x) ** 2)))
    (y, gradient), (expected, expected_gradient) = of(once)(params), of(one_by_one)(params)
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    leaves = jax.tree.leaves(expected_gradient)
    most = max(np.abs(leaf).max() for leaf in leaves)
    for a, b in zip(jax.tree.leaves(gradient), leaves, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * most)


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_alike_are_one_program(name):
    module = NETWORKS[name]
    module = module.clone(blocks=2) if hasattr(module, "blocks") else module
    net = as_net(module, init_params(module, jax.random.key(0), SHAPE))
    program = jax.make_jaxpr(net)(jnp.ones(SHAPE), 1.0)
    blocks = [e.params["jaxpr"] for e in program.eqns if e.params.get("name") == "_shared"]
    assert len({id(block) for block in blocks}) < len(blocks)


class Pair(nn.Module):
    """Two blocks that are alike, of different parameters."""

    @nn.compact
    def __call__(self, x, train):
        for name in ("a", "b"):
            x = shared(Block(name=name), x, train=train)
        return x


class Block(nn.Module):
    """x + w, of which half is dropped."""

    @nn.compact
    def __call__(self, x, train):
        w = self.param("w", nn.initializers.normal(), x.shape)
        return nn.Dropout(0.5, deterministic=not train)(x + w)


def test_blocks_alike_have_their_own_parameters_and_drop_their_own_numbers():
    x = jnp.ones(1_000)
    params = Pair().init(jax.random.key(0), x, train=False)["params"]
    a, b = params["a"]["w"], params["b"]["w"]
    call = lambda train: Pair().apply(
        {"params": params}, x, train=train, rngs={"dropout": jax.random.key(1)}
    )
    np.testing.assert_allclose(call(False), x + a + b, rtol=1e-6)
    kept_by_both = np.isclose(call(True), 4.0 * (x + a) + 2.0 * b, rtol=1e-5)
    assert 180 <= kept_by_both.sum() <= 320  # a quarter, where the two are independent
