"""What the U-Nets are made of: convolutions, blocks, attention, resampling."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_jax.models.convolutions import convolve, convolve_repeated, multiply
from score_jax.models.initializers import fan_avg_uniform, zeros
from score_jax.models.norms import Norm
from score_jax.types import Array


def conv(
    features: int,
    size: int = 3,
    stride: int = 1,
    init=fan_avg_uniform,
    name=None,
    by=convolve,
    **options,
):
    """size x size, its bias 0 at first; it keeps the image's size at stride 1, unless `padding` is
    given. by: what convolves, see `convolutions`."""
    return nn.Conv(
        features,
        (size, size),
        (stride, stride),
        kernel_init=init,
        bias_init=zeros,
        conv_general_dilated=by,
        name=name,
        **options,
    )


def dense(features: int, init=fan_avg_uniform, name=None, **options):
    """A matrix and a bias that begins at zero."""
    return nn.Dense(features, kernel_init=init, bias_init=zeros, name=name, **options)


def pointwise(features: int, init=fan_avg_uniform, name=None, **options):
    """`dense` for every pixel."""
    return dense(features, init, name, dot_general=multiply, **options)


class ResidualBlock(nn.Module):
    """Norm, swish, conv; plus the embedding; norm, swish, dropout, conv (zero at first).

    resample: "up" or "down" changes the resolution before the first convolution and on the
    shortcut, as in BigGAN (Brock et al. 2019, arXiv 1809.11096); the shortcut is projected where
    the channels change or the resolution does. fir: with `fir_up` and `fir_down` instead of
    repeated pixels and means. rescale: the sum is divided by √2.
    """

    features: int
    dropout: float
    norm: Norm = Norm()
    resample: str | None = None
    fir: bool = False
    rescale: bool = False

    @nn.compact
    def __call__(self, x, embedding, train):
        h = self.norm(x.shape[-1], "norm_0", swish=True)(x)
        if self.resample is not None:
            change = RESAMPLE[self.resample, self.fir]
            h, x = change(h), change(x)
        h = conv(self.features, name="conv_0")(h)
        if embedding is not None:
            h = h + dense(self.features, name="embed")(nn.swish(embedding))[:, None, None, :]
        h = self.norm(self.features, "norm_1", swish=True)(h)
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = conv(self.features, init=zeros, name="conv_1")(h)
        if x.shape[-1] != self.features or self.resample is not None:
            x = pointwise(self.features, name="shortcut")(x)
        return residual_sum(x, h, self.rescale)


class Attention(nn.Module):
    """Self-attention over the pixels, residual (zero at first).

    heads: of channels/heads channels each. rescale: the sum is divided by √2.
    """

    heads: int = 1
    norm: Norm = Norm()
    rescale: bool = False

    @nn.compact
    def __call__(self, x):
        batch, height, width, channels = x.shape
        h = self.norm(channels, "norm")(x).reshape(batch, height * width, channels)
        shape = (batch, height * width, self.heads, channels // self.heads)
        query, key, value = (
            pointwise(channels, name=name)(h).reshape(shape) for name in ("query", "key", "value")
        )
        h = jax.nn.dot_product_attention(query, key, value).reshape(x.shape)
        return residual_sum(x, pointwise(channels, init=zeros, name="out")(h), self.rescale)


class Resample(nn.Module):
    """Half or twice the resolution, with a 3x3 convolution unless features is None.

    way: "up" or "down". fir: the filter of `fir_up` joins the convolution. Without, "up" is a
    convolution of repeated pixels and "down" one of stride 2, whose padding is at the end only
    (`symmetric`: on both sides); or, without a convolution, a mean.
    """

    way: str
    features: int | None
    fir: bool = False
    symmetric: bool = False

    @nn.compact
    def __call__(self, x):
        if self.features is None:
            return RESAMPLE[self.way, self.fir](x)
        if self.way == "up":
            if self.fir:  # nothing between filter and convolution is cut off at the border
                return conv(self.features, name="conv", padding="VALID")(fir_up(x, margin=1))
            return conv(self.features, name="conv", by=convolve_repeated)(x)
        if self.fir:
            return conv(self.features, stride=2, name="conv", padding="VALID")(fir_smooth(x))
        padding = [(1, 1)] * 2 if self.symmetric else [(0, 1)] * 2
        return conv(self.features, stride=2, name="conv", padding=padding)(x)


def residual_sum(x: Array, h: Array, rescale: bool) -> Array:
    """x + h, divided by √2 if rescale: then a sum of two like variances keeps it."""
    return (x + h) * 2**-0.5 if rescale else x + h


def repeated(x: Array) -> Array:
    """[B, H, W, C] -> [B, 2H, 2W, C], every pixel four times."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


def halved(x: Array) -> Array:
    """[B, H, W, C] -> [B, H/2, W/2, C], the mean over 2x2 blocks."""
    return nn.avg_pool(x, (2, 2), (2, 2))


def fir_up(x: Array, margin: int = 0) -> Array:
    """[B, H, W, C] -> [B, 2H, 2W, C]: zeros between the pixels, then the filter [1, 3, 3, 1].

    Zhang 2019 (arXiv 1904.11486), as in StyleGAN2 and NCSN++. The filter's sum is 2 for each
    axis, so that a constant stays what it is away from the border, beyond which there are zeros.
    margin: so many pixels more on every side.
    """
    return functools.reduce(lambda x, axis: _fir_up(x, axis, margin), (1, 2), x)


def fir_down(x: Array) -> Array:
    """[B, H, W, C] -> [B, H/2, W/2, C]: the filter [1, 3, 3, 1]/8, then every other pixel."""
    return functools.reduce(lambda x, axis: _every_other(_fir(x, axis, 1), axis), (1, 2), x)


def fir_smooth(x: Array) -> Array:
    """[B, H, W, C] -> [B, H + 1, W + 1, C]: the filter [1, 3, 3, 1]/8 on every 4 neighbours."""
    return functools.reduce(lambda x, axis: _fir(x, axis, 2), (1, 2), x)


def _fir(x, axis, pad):
    n = x.shape[axis] + 2 * pad - 3
    x = _padded(x, axis, pad)
    part = lambda i: jax.lax.slice_in_dim(x, i, i + n, axis=axis)
    return (part(0) + 3.0 * part(1) + 3.0 * part(2) + part(3)) / 8.0


def _every_other(x, axis):
    return jax.lax.slice_in_dim(x, 0, None, 2, axis)


def _fir_up(x, axis, margin):
    n = x.shape[axis]
    x = _padded(x, axis, 2)
    part = lambda i: jax.lax.slice_in_dim(x, i, i + n + 2, axis=axis)
    even, odd = (part(0) + 3.0 * part(1)) / 4.0, (3.0 * part(1) + part(2)) / 4.0
    both = jnp.stack([even, odd], axis + 1)
    both = both.reshape(*x.shape[:axis], 2 * (n + 2), *x.shape[axis + 1 :])
    return jax.lax.slice_in_dim(both, 2 - margin, 2 * n + 2 + margin, axis=axis)


def _padded(x, axis, pad):
    return jnp.pad(x, [(pad, pad) if i == axis else (0, 0) for i in range(x.ndim)])


RESAMPLE = {
    ("up", False): repeated,
    ("up", True): fir_up,
    ("down", False): halved,
    ("down", True): fir_down,
}
