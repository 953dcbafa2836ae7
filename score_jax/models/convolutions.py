"""Convolutions as XLA does them best where they run.

On a CPU three things are done otherwise than XLA would, with the same result up to rounding: the
gradient of a wide 3x3 kernel is nine matrix products, that of its input is a convolution that goes
forward, and a convolution of repeated pixels is four of the pixels themselves. Elsewhere all are
XLA's own. `convolve` and `convolve_repeated` are what `nn.Conv` takes as `conv_general_dilated`.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from score_jax.types import Array

WIDE = 128  # channels, from which the nine products are faster (measured, jax 0.10.2)


def on_cpu() -> bool:
    """Whether what is traced now will run on a CPU: the one place that chooses."""
    return jax.default_backend() == "cpu"


def convolve(x: Array, kernel: Array, strides, padding, **options) -> Array:
    """`lax.conv_general_dilated`, where that is a wide 3x3 on a CPU as `convolve_3x3`.

    x [B, H, W, C], kernel [h, w, C, D].
    """
    plain = tuple(strides) == (1, 1) and padding == "SAME" and kernel.shape[:2] == (3, 3)
    if on_cpu() and plain and min(kernel.shape[2:]) >= WIDE:
        return convolve_3x3(x, kernel)
    return lax.conv_general_dilated(x, kernel, strides, padding, **options)


def convolve_3x3(x: Array, kernel: Array) -> Array:
    """y = Σ_ij x_ij K_ij: [B, H, W, C] and [3, 3, C, D] to [B, H, W, D].

    x_ij [B, H, W, C] is x moved by (i - 1, j - 1), with zeros beyond the image, and K_ij [C, D] a
    matrix. The gradients are Σ x_ijᵀ ȳ for K_ij, as matrix products, and for x the same kind of
    convolution of ȳ, with the kernel turned round. On a CPU the first is faster than XLA's by up to
    four times, for images of 16 pixels and more by 1.8 or more (jax 0.10.2, one core); and XLA's
    own of either are slowed down much where they stand in a loop, which these are not.
    """
    return _convolve_p.bind(x, kernel)


def convolve_repeated(x: Array, kernel: Array, strides, padding, **options) -> Array:
    """The 3x3 convolution of x with every pixel four times: [B, H, W, C] to [B, 2H, 2W, D].

    Of the nine pixels under the kernel some are the same: their weights are added first. An even
    row of the result sees the rows i - 1 and i of x with K_0 and K_1 + K_2, an odd one i and i + 1
    with K_0 + K_1 and K_2; so do columns. That is 4/9 of the products.
    """
    if not on_cpu():
        x = x.repeat(2, axis=1).repeat(2, axis=2)
        return convolve(x, kernel, strides, padding, **options)
    ends = ((1, 0), (0, 1))  # what is beyond the image, before and after
    rows = [
        [_conv(x, quarter, (above, left)) for quarter, left in zip(_halves(half, 1), ends)]
        for half, above in zip(_halves(kernel, 0), ends)
    ]
    both = jnp.stack([jnp.stack(row, axis=3) for row in rows], axis=2)  # [B, H, 2, W, 2, D]
    b, h, _, w, _, d = both.shape
    return both.reshape(b, 2 * h, 2 * w, d)


def _halves(kernel, axis):
    first, middle, last = (lax.slice_in_dim(kernel, i, i + 1, axis=axis) for i in range(3))
    return (
        jnp.concatenate([first, middle + last], axis),
        jnp.concatenate([first + middle, last], axis),
    )


def _conv(x, kernel, padding="SAME"):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


# A primitive, since its two derivatives are to be ours in every mode: forward, reverse, twice.
_convolve_p = Primitive("convolve_3x3")
_convolve_p.def_impl(jax.jit(_conv))
_convolve_p.def_abstract_eval(lambda x, kernel: x.update(shape=(*x.shape[:-1], kernel.shape[-1])))
mlir.register_lowering(_convolve_p, mlir.lower_fun(_conv, multiple_results=False))


def _gradient_of_kernel(y, x):
    """[3, 3, C, D] of ȳ [B, H, W, D] and x [B, H, W, C]."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    flat = lambda v: v.reshape(-1, v.shape[-1])

    def part(ij):  # one after the other: each needs a copy of x
        moved = lax.dynamic_slice(padded, (0, ij // 3, ij % 3, 0), x.shape)
        return flat(moved).T @ flat(y)

    parts = lax.map(part, jnp.arange(9))
    return parts.reshape(3, 3, *parts.shape[1:])


def _transpose(y, x, kernel):
    if ad.is_undefined_primal(x):
        return convolve_3x3(y, jnp.flip(kernel, (0, 1)).swapaxes(2, 3)), None
    return None, _gradient_of_kernel(y, x)


ad.primitive_transposes[_convolve_p] = _transpose


def _jvp(primals, tangents):
    (x, kernel), (dx, dkernel) = primals, tangents
    parts = [] if type(dx) is ad.Zero else [convolve_3x3(dx, kernel)]
    parts += [] if type(dkernel) is ad.Zero else [convolve_3x3(x, dkernel)]
    return convolve_3x3(x, kernel), sum(parts[1:], parts[0])


ad.primitive_jvps[_convolve_p] = _jvp


def _batched(arguments, axes):
    (x, kernel), (of_x, of_kernel) = arguments, axes
    if of_kernel is not None:
        return jax.vmap(_conv, (of_x, of_kernel))(x, kernel), 0
    x = jnp.moveaxis(x, of_x, 0)
    y = convolve_3x3(x.reshape(-1, *x.shape[2:]), kernel)
    return y.reshape(*x.shape[:2], *y.shape[1:]), 0


batching.primitive_batchers[_convolve_p] = _batched
