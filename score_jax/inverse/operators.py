"""Linear operators, as functions of one x: what is observed of an image, or of a point.

    forward = downsample(4)
    observation = observe(forward(x), forward, noise=0.05, shape=x.shape)

Each factory returns A: x -> y, which raises UserError for an x that does not fit. A Aᵀ is a
multiple of the identity for all but `blur`, so that A⁺ = Aᵀ up to a factor. Any other linear
function serves as well, such as `lambda x: matrix @ x` for points.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from score_jax.errors import UserError
from score_jax.limits import check_memory
from score_jax.types import Array, Example, Given

Operator = Callable[[Example], Float[Array, "..."]]

LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601


def mask(known: ArrayLike) -> Operator:
    """x -> its known entries, in x's order, [n]: inpainting.

    known: booleans (or 0 and 1) of x's shape, or without its last axis: one for each pixel. On
    the host, since n is y's shape.

    y holds the known entries and nothing else, so that A Aᵀ = I: were it x * known, A Aᵀ would be
    singular, nothing without noise could be divided by it, and a y with noise everywhere would
    say of the unknown entries that they are observed to be 0.
    Raises UserError for other values.
    """
    known = np.asarray(known)
    if known.dtype != bool and not np.all((known == 0) | (known == 1)):
        raise UserError("mask needs booleans, or 0 for unknown and 1 for known")
    known = known.astype(bool)

    def forward(x: Example) -> Float[Array, " known"]:
        if known.shape not in (x.shape, x.shape[:-1]):
            raise UserError(
                f"a mask of shape {known.shape} does not fit x of shape {x.shape}; it must have "
                "x's shape, or that without the last axis"
            )
        each = known if known.shape == x.shape else known[..., None]
        return jnp.asarray(x).ravel()[np.flatnonzero(np.broadcast_to(each, x.shape))]

    return forward


def gray(weights: tuple[float, float, float] = LUMINANCE) -> Operator:
    """x [H, W, 3] -> [H, W, 1], the weighted mean of its channels, Σ_c w_c x_c: colorization.

    weights: of red, green and blue, made to sum to 1; luminance by default.
    Raises UserError unless there are three, not negative and not all 0.
    """
    given = np.asarray(weights, np.float64)
    if given.shape != (3,) or not np.all(given >= 0) or not 0 < given.sum() < np.inf:
        raise UserError(f"gray needs three weights, not negative and not all 0, got {weights}")
    given = given / given.sum()

    def forward(x: Float[Given, "H W C"]) -> Float[Array, "H W 1"]:
        _check_image("gray", x)
        if x.shape[-1] != 3:
            raise UserError(f"gray needs images of 3 channels, got shape {x.shape}")
        return (x * jnp.asarray(given, x.dtype)).sum(-1, keepdims=True)

    return forward


def downsample(factor: int) -> Operator:
    """x [H, W, C] -> [H/factor, W/factor, C], the mean of each block: super-resolution.

    Raises UserError unless factor is at least 1, and for an x that it does not divide.
    """
    if not factor >= 1:
        raise UserError(f"downsample.factor must be at least 1, got {factor}")

    def forward(x: Float[Given, "H W C"]) -> Float[Array, "h w C"]:
        _check_image("downsample", x)
        h, w, c = x.shape
        if h % factor or w % factor:
            raise UserError(
                f"downsample.factor = {factor} does not divide the {h} x {w} pixels of x"
            )
        return jnp.asarray(x).reshape(h // factor, factor, w // factor, factor, c).mean((1, 3))

    return forward


def blur(width: float) -> Operator:
    """x [H, W, C] -> [H, W, C], convolved with a normal density: deblurring.

    width: its standard deviation in pixels. Beyond its edges the image is its own mirror, so that
    no brightness is lost and nothing comes in from the opposite side. A is symmetric and
    positive, of norm 1; what varies over fewer than about 2 width pixels is lost to rounding,
    and A⁺ enlarges what noise is left there: give the observation its noise.
    Raises UserError unless width > 0.
    """
    if not 0.0 < width < np.inf:
        raise UserError(f"blur.width must be positive, got {width}")

    def forward(x: Float[Given, "H W C"]) -> Float[Array, "H W C"]:
        _check_image("blur", x)
        rows, columns = (jnp.asarray(_mirrored(n, width), x.dtype) for n in x.shape[:2])
        return jnp.einsum("ih,jw,hwc->ijc", rows, columns, x, precision="highest")

    return forward


def random_projection(seed: int, measurements: int, shape: tuple[int, ...]) -> Operator:
    """x [shape] -> Q x [measurements], Q of orthonormal random rows: compressed sensing.

    Its rows span a uniformly random subspace, that of Gaussian rows, and Q Qᵀ = I.
    Raises UserError unless there are 1 to as many measurements as x has numbers, and where Q
    does not fit into memory.
    """
    shape = tuple(shape)
    size = int(np.prod(shape))
    if not 1 <= measurements <= size:
        raise UserError(
            f"random_projection.measurements must lie in 1 .. {size}, the numbers of x of shape "
            f"{shape}, got {measurements}"
        )
    needed = 3 * 8 * size * measurements  # the Gaussian rows, Q, and what QR works in
    check_memory(f"random_projection: {measurements} rows of {size}", needed, "take fewer")
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, measurements)))

    def forward(x: Example) -> Float[Array, " measurements"]:
        if x.shape != shape:
            raise UserError(f"this random_projection is of shape {shape}, got x of {x.shape}")
        return jnp.matmul(x.ravel(), jnp.asarray(q, x.dtype), precision="highest")

    return forward


def _check_image(name, x):
    if x.ndim != 3:
        raise UserError(f"{name} needs an image [H, W, C], got shape {x.shape}")


def _mirrored(n: int, width: float) -> np.ndarray:
    """[n, n]: the normal kernel on n pixels and their mirror images, -1 - j beside j."""
    images = int(np.ceil(10.0 * width / (2 * n))) + 1
    shifts = 2 * n * np.arange(-images, images + 1)
    i, j = np.mgrid[:n, :n][..., None]
    kernel = lambda d: np.exp(-0.5 * (d / width) ** 2).sum(-1)
    matrix = kernel(i - j + shifts) + kernel(i + j + 1 + shifts)
    return matrix / matrix.sum(1, keepdims=True)
