"""Convolutions and products as XLA does them best where they run.

On a CPU four things are done otherwise than XLA would, with the same result up to rounding: the
gradient of a kernel is a matrix product for each of its pixels, that of its input is a convolution
that goes forward, one of repeated pixels is four of the pixels themselves, and one of an image
smaller than the kernel is a matrix product. Elsewhere all are XLA's own. `convolve` and
`convolve_repeated` are what `nn.Conv` takes as `conv_general_dilated`, and `multiply` what
`nn.Dense` takes as `dot_general`.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from score_jax.types import Array

WIDE = 32  # channels, from which our gradients are as fast as XLA's or faster (jax 0.10.2)
ONE, SAME = ((0, 0), (0, 0)), ((1, 1), (1, 1))  # zeros around the image that keep its size

Padding = tuple[tuple[int, int], tuple[int, int]]


def on_cpu() -> bool:
    """Whether what is traced now will run on a CPU: the one place that chooses."""
    return jax.default_backend() == "cpu"


def convolve(x: Array, kernel: Array, strides, padding, **options) -> Array:
    """`lax.conv_general_dilated`, where that is a wide 3x3 on a CPU, or one of an image smaller
    than itself, as `correlate`.

    x [B, H, W, C], kernel [h, w, C, D].
    """
    plain = tuple(strides) == (1, 1) and padding == "SAME" and kernel.shape[:2] == (3, 3)
    if on_cpu() and plain and (min(kernel.shape[2:]) >= WIDE or _larger(kernel, x)):
        return correlate(x, kernel, SAME)
    return lax.conv_general_dilated(x, kernel, strides, padding, **options)


def multiply(x: Array, matrix: Array, dimensions, **options) -> Array:
    """`lax.dot_general`, where that is x [..., C] times a wide [C, D] on a CPU as `correlate`."""
    if on_cpu() and min(matrix.shape) >= WIDE:
        y = correlate(x.reshape(1, -1, 1, x.shape[-1]), matrix[None, None], ONE)
        return y.reshape(*x.shape[:-1], matrix.shape[1])
    return lax.dot_general(x, matrix, dimensions, **options)


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
        [correlate(x, quarter, (above, left)) for quarter, left in zip(_halves(half, 1), ends)]
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


def correlate(x: Array, kernel: Array, padding: Padding) -> Array:
    """y = Σ_ij x_ij K_ij: [B, H, W, C] and [h, w, C, D] to [B, H', W', D].

    x_ij [B, H', W', C] is the part of x, with `padding` zeros above and below, left and right, that
    begins at (i, j), and K_ij [C, D] a matrix. The gradients are Σ x_ijᵀ ȳ for K_ij, as matrix
    products, and for x the same kind of thing of ȳ, with the kernel turned round. On a CPU the
    first is faster than XLA's by up to 1.4 times where there are 128 channels (jax 0.10.2, one
    core), and XLA's own of either are slowed down much where they stand in a loop: not these.
    """
    return _correlate_p.bind(x, kernel, padding=padding)


def _forward(x, kernel, *, padding):
    if kernel.shape[:2] == (1, 1) and padding == ONE:
        return x @ kernel[0, 0]
    if _larger(kernel, x):
        return _by_one_matrix(x, kernel, padding)
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _shape_of(x, kernel, padding):
    of = lambda n, size, ends: n + sum(ends) - size + 1
    return x.shape[0], *map(of, x.shape[1:3], kernel.shape[:2], padding), kernel.shape[3]


def _larger(kernel, x):
    """Whether a kernel is larger than the image."""
    return kernel.shape[0] > x.shape[1] and kernel.shape[1] > x.shape[2]


def _by_one_matrix(x, kernel, padding):
    """`correlate`, as x [B, H W C] times a matrix, since every pixel of y sees all those of x.

    XLA exchanges an image and a kernel that is larger, and then takes 12 to 28 times as long for
    3x3 on 2x2 with 64 and 128 channels (jax 0.10.2, one core).
    """
    b, h, w, _ = x.shape
    y = _shape_of(x, kernel, padding)
    # the weight of x's pixel p in y's pixel i is K_{p - i + before}, and 0 beyond the kernel
    ends = [
        (max(0, n - 1 - before), max(0, before + side - size))
        for n, (before, _), side, size in zip(y[1:3], padding, (h, w), kernel.shape)
    ]
    (above, _), (left, _) = ends
    kernel = jnp.pad(kernel, (*ends, (0, 0), (0, 0)))
    rows = [above + padding[0][0] - i for i in range(y[1])]
    columns = [left + padding[1][0] - j for j in range(y[2])]
    parts = [kernel[i : i + h, j : j + w].reshape(-1, y[3]) for i in rows for j in columns]
    return (x.reshape(b, -1) @ jnp.concatenate(parts, axis=1)).reshape(y)


# A primitive, since its two derivatives are to be ours in every mode: forward, reverse, twice.
_correlate_p = Primitive("correlate")
_correlate_p.def_impl(jax.jit(_forward, static_argnames="padding"))


@_correlate_p.def_abstract_eval
def _abstract(x, kernel, *, padding):
    return x.update(shape=_shape_of(x, kernel, padding))


mlir.register_lowering(_correlate_p, mlir.lower_fun(_forward, multiple_results=False))


def _turned(shape, padding) -> Padding:
    """The padding by which a correlation with a kernel of this shape is undone."""
    (above, below), (left, right) = padding
    h, w = shape[0] - 1, shape[1] - 1
    return (h - above, h - below), (w - left, w - right)


def _transposed(x):
    return x.reshape(-1, x.shape[-1]).T


def _flipped(kernel):
    return jnp.flip(kernel, (0, 1))


@functools.partial(jax.jit, static_argnames="turn")
def _after(y, turn, x):
    """turn(x), once y is known. XLA would otherwise make ready for all gradients before the first
    one, and hold it all: 265 MB of the 787 that an update of ddpm_cifar took.

    A branch has kernels of its own. Only one that does nothing but transpose is fast: fused with
    anything it takes four times as long, as it does where XLA chooses how the result lies.
    """
    known = jnp.signbit(y[0, 0, 0, 0]).astype(jnp.int32) < 2  # true, which it cannot see
    nothing = jnp.zeros_like(jax.eval_shape(turn, x))
    rows = Layout(tuple(range(nothing.ndim)))
    return lax.cond(
        known,
        lambda x: with_layout_constraint(turn(x), rows),
        lambda x: with_layout_constraint(nothing, rows),
        x,
    )


@functools.partial(jax.jit, static_argnames=("shape", "padding"))  # traced once for each shape
def _gradient_of_kernel(y, x, shape, padding):
    """[h, w, C, D] of ȳ [B, H', W', D] and x [B, H, W, C]: xᵀ times ȳ moved the other way.

    With xᵀ made once, the products are of the form that XLA's libraries do best on a CPU.
    """
    h, w, c, d = shape
    turned = _after(y, _transposed, x)
    padded = jnp.pad(y, ((0, 0), *_turned(shape, padding), (0, 0)))

    def part(ij):  # one after the other: each needs a copy of ȳ
        start = (0, h - 1 - ij // w, w - 1 - ij % w, 0)
        moved = lax.dynamic_slice(padded, start, (*x.shape[:-1], d))
        return turned @ moved.reshape(-1, d)

    parts = jnp.broadcast_to(part(0), (h * w, c, d))
    parts = lax.fori_loop(1, h * w, lambda ij, parts: parts.at[ij].set(part(ij)), parts)
    return parts.reshape(h, w, c, d)


def _transpose(y, x, kernel, *, padding):
    if ad.is_undefined_primal(x):
        back = _after(y, _flipped, kernel).swapaxes(2, 3)
        return correlate(y, back, _turned(kernel.shape, padding)), None
    return None, _gradient_of_kernel(y, x, kernel.aval.shape, padding)


ad.primitive_transposes[_correlate_p] = _transpose


def _jvp(primals, tangents, *, padding):
    (x, kernel), (dx, dkernel) = primals, tangents
    parts = [] if type(dx) is ad.Zero else [correlate(dx, kernel, padding)]
    parts += [] if type(dkernel) is ad.Zero else [correlate(x, dkernel, padding)]
    return correlate(x, kernel, padding), sum(parts[1:], parts[0])


ad.primitive_jvps[_correlate_p] = _jvp


def _batched(arguments, axes, *, padding):
    (x, kernel), (of_x, of_kernel) = arguments, axes
    if of_kernel is not None:
        each = lambda x, kernel: _forward(x, kernel, padding=padding)
        return jax.vmap(each, (of_x, of_kernel))(x, kernel), 0
    x = jnp.moveaxis(x, of_x, 0)
    y = correlate(x.reshape(-1, *x.shape[2:]), kernel, padding)
    return y.reshape(*x.shape[:2], *y.shape[1:]), 0


batching.primitive_batchers[_correlate_p] = _batched
