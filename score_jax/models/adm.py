"""ADM, the ablated diffusion model's U-Net (Dhariwal & Nichol 2021, arXiv 2105.05233)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_jax.errors import UserError, unknown
from score_jax.models.blocks import shared
from score_jax.models.embeddings import LabelEmbedding, no_class, sinusoidal
from score_jax.models.initializers import drawn
from score_jax.models.layers import halved, repeated
from score_jax.models.norms import Norm
from score_jax.models.unet import check_heads, check_unet

RESAMPLE = ("block", "conv", "plain")
CHANGE = {"up": repeated, "down": halved, None: lambda x: x}
norm = Norm(epsilon=1e-5)


def pytorch_uniform(fan_in: int, scale: float):
    """U(±scale/√fan_in), for kernel and bias alike: with scale 1, PyTorch's default."""
    return drawn(0.0, scale * fan_in**-0.5, "uniform")


def conv(x, features: int, name: str, scale: float = 1.0, **options):
    """3x3, with PyTorch's initial weights times `scale`."""
    law = pytorch_uniform(9 * x.shape[-1], scale)
    return nn.Conv(features, (3, 3), kernel_init=law, bias_init=law, name=name, **options)(x)


def dense(x, features: int, name: str, scale: float = 1.0):
    """A matrix, with PyTorch's initial weights times `scale`."""
    law = pytorch_uniform(x.shape[-1], scale)
    return nn.Dense(features, kernel_init=law, bias_init=law, name=name)(x)


class ResidualBlock(nn.Module):
    """Norm, swish, conv; norm, told the embedding; swish, dropout, conv (zero at first).

    scale_shift: the embedding scales and shifts what the second norm puts out (adaptive group
    norm, section 3.1); else it is added to what the norm is given. resample: "up" or "down" changes
    the resolution before the first convolution and on the shortcut (section 3).
    """

    features: int
    dropout: float
    scale_shift: bool
    resample: str | None = None

    @nn.compact
    def __call__(self, x, embedding, train):
        change = CHANGE[self.resample]
        h = norm(x.shape[-1], "norm_0", swish=True)(x)
        h = conv(change(h), self.features, "conv_0")
        told = dense(nn.swish(embedding), (1 + self.scale_shift) * self.features, "embed")
        norm_1 = norm(self.features, "norm_1", swish=True)
        if self.scale_shift:
            h = norm_1(h, jnp.split(told, 2, axis=-1))
        else:
            h = norm_1(h + told[:, None, None, :])
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = conv(h, self.features, "conv_1", scale=0.0)
        x = change(x)
        return h + (x if x.shape[-1] == self.features else dense(x, self.features, "shortcut"))


class Attention(nn.Module):
    """Self-attention over the pixels, residual (zero at first). heads: of channels/heads each."""

    heads: int

    @nn.compact
    def __call__(self, x):
        batch, height, width, channels = x.shape
        h = norm(channels, "norm")(x).reshape(batch, height * width, channels)
        shape = (batch, height * width, self.heads, channels // self.heads)
        parts = (dense(h, channels, name).reshape(shape) for name in ("query", "key", "value"))
        h = jax.nn.dot_product_attention(*parts).reshape(x.shape)
        return x + dense(h, channels, "out", scale=0.0)


class ADM(nn.Module):
    """The U-Net of Dhariwal & Nichol 2021, section 3; that for ImageNet 64x64 is the default.

    Adaptive group norm, attention of many heads at several resolutions, BigGAN's residual blocks
    that change the resolution. c is the timestep 0 .. 999, fractional between steps, as published;
    any number on that scale will do, and log(σ)/4 is what EDM's ADM is told.

    features: channels that multipliers count in; the embedding has 4 of them. multipliers:
    channels of each resolution, in features; the resolution halves between them. blocks: residual
    blocks a resolution (one more on the way up). attention: the resolutions (pixels a side) with
    self-attention after every block; there is one in the middle in any case. head_channels: of a
    head of the attention; 0 for so many `heads` everywhere. dropout: its rate. classes: how many
    there are, if the network is to be told the class as well; label_dropout: how often the class
    is left out in training. outputs: how many numbers are put out for each of x: 2 with learned
    variances, as published, else 1. scale_shift: whether the embedding scales and shifts the
    second norm of a block, or is added before it. resample: the resolution is changed by a
    residual "block", a "conv" (of stride 2, or after repeated pixels), or a "plain" mean and
    repetition. remat: what lies within a residual block is computed again for the gradient instead
    of being kept.

    Takes images as they are given, in [-1, 1] as published, whose sides divide by
    2^(len(multipliers) - 1). 295,904,454 parameters at
    64x64x3 with 1,000 classes and outputs = 2.
    """

    features: int = 192
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    blocks: int = 3
    attention: tuple[int, ...] = (32, 16, 8)
    head_channels: int = 64
    heads: int = 1
    dropout: float = 0.1
    classes: int = 0
    label_dropout: float = 0.0
    outputs: int = 1
    scale_shift: bool = True
    resample: str = "block"
    remat: bool = False

    @nn.compact
    def __call__(self, x, c, train=False, label=None):
        self.check(x.shape[1:])
        channels = x.shape[-1]
        embedding = self.embed(x, c, label, train)

        def residual(h, features, name, resample=None):
            block = ResidualBlock(features, self.dropout, self.scale_shift, resample, name=name)
            return shared(block, h, embedding, remat=self.remat, train=train)

        def attend(h, name):
            heads = h.shape[-1] // self.head_channels if self.head_channels else self.heads
            return shared(Attention(heads, name=name), h)

        def block(h, features, way, level, i):
            h = residual(h, features, f"{way}_{level}_block_{i}")
            return attend(h, f"{way}_{level}_attention_{i}") if h.shape[1] in self.attention else h

        def resampled(h, way, name):
            if self.resample == "block":
                return residual(h, h.shape[-1], name, way)
            if self.resample == "plain":
                return CHANGE[way](h)
            if way == "up":
                return conv(repeated(h), h.shape[-1], name)
            return conv(h, h.shape[-1], name, strides=2, padding=[(1, 1)] * 2)

        widths = [multiplier * self.features for multiplier in self.multipliers]
        h = conv(x, widths[0], "stem")
        skips = [h]
        for level, features in enumerate(widths):
            if level > 0:
                h = resampled(h, "down", f"down_{level - 1}_resample")
                skips.append(h)
            for i in range(self.blocks):
                h = block(h, features, "down", level, i)
                skips.append(h)

        h = residual(h, h.shape[-1], "middle_block_0")
        h = attend(h, "middle_attention")
        h = residual(h, h.shape[-1], "middle_block_1")

        for level, features in reversed(list(enumerate(widths))):
            for i in range(self.blocks + 1):
                h = block(jnp.concatenate([h, skips.pop()], -1), features, "up", level, i)
            if level > 0:
                h = resampled(h, "up", f"up_{level}_resample")

        h = norm(h.shape[-1], "out_norm", swish=True)(h)
        return conv(h, self.outputs * channels, "out", scale=0.0)

    def embed(self, x, c, label, train):
        """[B, 4 features] that the residual blocks are told: the noise level and any class."""
        width = 4 * self.features
        h = sinusoidal(c, self.features, endpoint=False).astype(x.dtype)
        h = dense(nn.swish(dense(h, width, "embed_0")), width, "embed_1")
        if self.classes:
            normal = drawn(0.0, 1.0, "normal")
            table = LabelEmbedding(self.classes, width, self.label_dropout, normal, name="label")
            h = h + table(no_class(x) if label is None else label, train)
        return h

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises UserError unless images of this shape [H, W, C] fit the network."""
        check_unet("adm", self, shape)
        check_heads(self, shape)
        if self.resample not in RESAMPLE:
            raise unknown("model.resample", self.resample, RESAMPLE)
        if self.head_channels == 0 and (self.heads < 1 or self.features % self.heads):
            raise UserError(
                f"model.heads must divide model.features = {self.features}, got {self.heads}"
            )
