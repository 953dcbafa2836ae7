"""Group normalization is Flax's, of one example as of many, and keeps no more than it was given."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.models.norms import GroupNorm, Norm

GROUPS, CHANNELS = 4, 12


@pytest.fixture
def x(x64):
    return 3.0 + 2.0 * jax.random.normal(jax.random.key(0), (3, 6, 5, CHANNELS))


@pytest.fixture
def params(x64):
    scale, bias = jax.random.normal(jax.random.key(1), (2, CHANNELS))
    return {"params": {"scale": scale, "bias": bias}}


def plain(params, x, swish):
    y = nn.GroupNorm(GROUPS, epsilon=1e-3).apply(params, x)
    return nn.swish(y) if swish else y


def ours(params, x, swish, **more):
    return GroupNorm(GROUPS, 1e-3, swish).apply(params, x, **more)


def close(a, b):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), a, b)


@pytest.mark.parametrize("swish", [False, True])
def test_it_is_flax_s_with_its_gradients_forward_and_back(x, params, swish):

    def seen(norm):
        loss = lambda params, x: jnp.sum(jnp.sin(norm(params, x, swish)))
        tangents = jax.tree.map(jnp.cos, (params, x))
        tangent = jax.jvp(lambda *given: norm(*given, swish), (params, x), tangents)
        return norm(params, x, swish), jax.grad(loss, (0, 1))(params, x), tangent

    close(seen(ours), seen(plain))


def test_each_example_is_normalized_by_itself(x, params):
    whole = ours(params, x, True)
    close(whole, jnp.concatenate([ours(params, one[None], True) for one in x]))
    close(whole, jax.vmap(lambda one: ours(params, one[None], True)[0])(x))


def test_what_is_told_scales_and_shifts_what_the_norm_says(x, params):
    a, b = jax.random.normal(jax.random.key(2), (2, len(x), CHANNELS))
    each = lambda v: v[:, None, None]
    expected = nn.swish(plain(params, x, False) * (1.0 + each(a)) + each(b))
    close(ours(params, x, True, told=(a, b)), expected)
    close(ours(params, x[:1], True, told=(a[:1], b[:1])), expected[:1])


def test_the_gradient_keeps_nothing_of_the_size_of_x_but_x(x, params):
    def large(norm):
        _, back = jax.vjp(lambda x: norm(params, x, True), x)
        return sum(leaf.size >= x.size for leaf in jax.tree.leaves(back))

    assert large(ours) == 1 < large(plain)


def test_moments_are_taken_in_float32_of_bfloat16():
    x = 100.0 + jax.random.normal(jax.random.key(0), (1, 16, 16, 8))
    params = GroupNorm(2, 1e-6).init(jax.random.key(0), x)
    low = GroupNorm(2, 1e-6).apply(params, x.astype(jnp.bfloat16))
    rounded = GroupNorm(2, 1e-6).apply(params, x.astype(jnp.bfloat16).astype(jnp.float32))
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.astype(np.float32), rounded, rtol=2**-8, atol=2**-8)


@pytest.mark.parametrize("channels, groups", [(128, 32), (32, 8), (6, 1), (96, 24), (3, 1)])
def test_there_are_as_many_groups_as_divide_the_channels(channels, groups):
    assert Norm()(channels).groups == groups
