"""What a CPU computes otherwise than XLA would is the same convolution, in every derivative."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from score_jax.models import convolutions
from score_jax.models.convolutions import SAME, convolve, convolve_repeated, correlate, multiply
from score_jax.models.initializers import initialize
from score_jax.models.layers import Resample, ResidualBlock

AS_IS = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"))


def plain(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", **AS_IS)


def repeated(x, kernel):
    return plain(x.repeat(2, axis=1).repeat(2, axis=2), kernel)


def of_repeated(x, kernel):
    return convolve_repeated(x, kernel, (1, 1), "SAME", **AS_IS)


def same(x, kernel):
    return correlate(x, kernel, SAME)


def product(x, kernel):
    return x @ kernel[1, 2]


def our_product(x, kernel):
    return multiply(x, kernel[1, 2], (((3,), (0,)), ((), ())))


def uneven(x, kernel):
    return correlate(x, kernel[:2], ((1, 0), (2, 1)))


def plain_uneven(x, kernel):
    return lax.conv_general_dilated(x, kernel[:2], (1, 1), ((1, 0), (2, 1)), **AS_IS)


PAIRS = [(same, plain), (of_repeated, repeated), (our_product, product), (uneven, plain_uneven)]


@pytest.fixture(params=PAIRS, ids=["3x3", "repeated", "product", "2x3"])
def pair(request, x64, monkeypatch):
    monkeypatch.setattr(convolutions, "WIDE", 1)
    return request.param


@pytest.fixture(params=[(8, 6), (2, 2), (2, 1), (1, 1)], ids=["8x6", "2x2", "2x1", "1x1"])
def arrays(request, x64):
    """x [2, H, W, 5] and a kernel [3, 3, 5, 4], larger than most of these images."""
    return (
        jax.random.normal(jax.random.key(0), (2, *request.param, 5)),
        jax.random.normal(jax.random.key(1), (3, 3, 5, 4)),
    )


def close(ours, theirs):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), ours, theirs
    )


def test_it_is_the_convolution(pair, arrays):
    ours, theirs = pair
    close(ours(*arrays), theirs(*arrays))


def test_its_gradients_are_the_convolution_s(pair, arrays):
    results = []
    for f in pair:
        y, back = jax.vjp(f, *arrays)
        results.append(back(jnp.sin(jnp.arange(y.size)).reshape(y.shape)))
    close(*results)


def test_forward_mode_is_the_convolution_s(pair, arrays):
    x, kernel = arrays
    for tangents in ((x**2, kernel**2), (x**2, 0 * kernel), (0 * x, kernel**2)):
        close(*(jax.jvp(f, arrays, tangents) for f in pair))


def test_a_gradient_of_a_gradient_is_the_convolution_s(pair, arrays):
    """As a loss on an energy's score needs it."""

    def loss(f):
        score = lambda x, kernel: jax.grad(lambda x: jnp.sum(jnp.sin(f(x[None], kernel))))(x)
        return lambda x, kernel: jnp.sum(jax.vmap(score, (0, None))(x, kernel) ** 2)

    close(*(jax.grad(loss(f), (0, 1))(*arrays) for f in pair))


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (2, 3)])
def test_it_can_be_mapped_over_whatever_has_another_axis(pair, arrays, axes):
    more = [
        array if axis is None else jnp.stack([array, 2.0 * array + 1.0], axis)
        for array, axis in zip(arrays, axes)
    ]
    close(*(jax.vmap(f, axes)(*more) for f in pair))


def primitives(f, *arguments):
    return {equation.primitive.name for equation in jax.make_jaxpr(f)(*arguments).eqns}


def test_wide_kernels_on_a_cpu_are_ours_and_all_others_xla_s(monkeypatch):
    def asked(*shapes):
        call = lambda x, kernel: convolve(x, kernel, (1, 1), "SAME", **AS_IS)
        return primitives(call, *map(jnp.zeros, shapes))

    wide, narrow = ((1, 4, 4, 128), (3, 3, 128, 128)), ((1, 4, 4, 16), (3, 3, 16, 128))
    small = (1, 2, 2, 16), (3, 3, 16, 16)
    assert asked(*wide) == {"correlate"} and asked(*narrow) == {"conv_general_dilated"}
    assert asked(*small) == {"correlate"}
    monkeypatch.setattr(convolutions, "on_cpu", lambda: False)
    assert asked(*wide) == asked(*small) == {"conv_general_dilated"}


@pytest.mark.parametrize("side", [1, 2])
def test_no_convolution_is_left_to_xla_where_the_kernel_is_larger_than_the_image(side):
    """It would exchange the two, which is slow."""
    arrays = jnp.ones((2, side, side, 8)), jnp.ones((3, 3, 8, 8))
    compiled = jax.jit(jax.grad(lambda x, k: jnp.sum(same(x, k) ** 2), (0, 1))).lower(*arrays)
    assert "convolution" not in compiled.as_text()


def test_layers_have_the_gradients_on_a_cpu_that_they_have_elsewhere(monkeypatch, x64):
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 128))

    class Layers(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Resample("up", 128)(ResidualBlock(128, 0.0)(x, None, False))

    params = initialize(Layers(), jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: leaf.astype(float) + 0.01, params)  # no layer is zero

    def gradient():
        loss = lambda params: jnp.mean(Layers().apply({"params": params}, x) ** 2)
        return jax.jit(jax.grad(loss))(params)

    ours = gradient()
    monkeypatch.setattr(convolutions, "on_cpu", lambda: False)
    close(ours, gradient())
