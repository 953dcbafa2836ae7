"""DDPM's U-Net (Ho et al. 2020, appendix B)."""

import flax.linen as nn
import jax.numpy as jnp

from score_jax.errors import UserError, unknown
from score_jax.models.blocks import shared
from score_jax.models.embeddings import LabelEmbedding, no_class, sinusoidal
from score_jax.models.initializers import zeros
from score_jax.models.layers import Attention, Resample, ResidualBlock, conv, dense
from score_jax.models.norms import Norm

UP_ATTENTION = ("block", "level")


class UNet(nn.Module):
    """The U-Net of Ho et al. 2020, predicting any view; their CIFAR-10 net is the default.

    features: channels at full resolution. multipliers: channels of each resolution, in
    features; the resolution halves between them. blocks: residual blocks a resolution
    (one more on the way up). attention: the resolutions (pixels a side) with self-attention after
    every block. up_attention: on the way up, after every "block" (Ho et al.) or once a "level",
    after its last (score_sde). head_channels: of a head of the attention; 0 for one head.
    resample_conv: whether a convolution halves and doubles the resolution, or the mean of 2x2
    blocks and repeated pixels. dropout: its rate. conditional: whether the network is told the
    noise level. classes: how many there are, if it is to be told the class as well;
    label_dropout: how often the class is left out in training. centered: whether the images lie
    in [-1, 1]; those in [0, 1] are made so first. outputs: how many numbers are put out for each
    of x: 2 with learned variances, else 1. remat: what lies within a residual block is computed
    again for the gradient instead of being kept.

    For weights from elsewhere: groups, group_size, epsilon: at most so many groups of the group
    norms, of at least so many channels each, and what is added to the variance. endpoint: see
    `sinusoidal`. symmetric: the padding of the convolutions that halve the resolution.

    Needs images whose sides divide by 2^(len(multipliers) - 1). 35,746,307 parameters at
    32x32x3 with the defaults, the paper's 35.7 M; 35,218,947 with up_attention = "level".
    """

    features: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (16,)
    up_attention: str = "block"
    head_channels: int = 0
    resample_conv: bool = True
    dropout: float = 0.1
    conditional: bool = True
    classes: int = 0
    label_dropout: float = 0.0
    centered: bool = True
    groups: int = 32
    group_size: int = 4
    epsilon: float = 1e-6
    endpoint: bool = True
    symmetric: bool = False
    outputs: int = 1
    remat: bool = False

    @nn.compact
    def __call__(self, x, c, train=False, label=None):
        self.check(x.shape[1:])
        channels = x.shape[-1]
        norm = Norm(self.groups, self.group_size, self.epsilon)
        embedding = self.embed(x, c, label, train)

        def residual(h, features, name):
            block = ResidualBlock(features, self.dropout, norm, name=name)
            return shared(block, h, embedding, remat=self.remat, train=train)

        def attend(h, name):
            heads = h.shape[-1] // self.head_channels if self.head_channels else 1
            return shared(Attention(heads, norm, name=name), h)

        def resample(h, way, name):
            width = h.shape[-1] if self.resample_conv else None
            return Resample(way, width, symmetric=self.symmetric, name=name)(h)

        h = conv(self.features, name="stem")(x if self.centered else 2.0 * x - 1.0)
        skips = [h]
        for level, multiplier in enumerate(self.multipliers):
            if level > 0:
                h = resample(h, "down", f"down_{level - 1}_resample")
                skips.append(h)
            for i in range(self.blocks):
                h = residual(h, multiplier * self.features, f"down_{level}_block_{i}")
                if h.shape[1] in self.attention:
                    h = attend(h, f"down_{level}_attention_{i}")
                skips.append(h)

        h = residual(h, h.shape[-1], "middle_block_0")
        h = attend(h, "middle_attention")
        h = residual(h, h.shape[-1], "middle_block_1")

        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            for i in range(self.blocks + 1):
                h = jnp.concatenate([h, skips.pop()], -1)
                h = residual(h, multiplier * self.features, f"up_{level}_block_{i}")
                here = self.up_attention == "block" or i == self.blocks
                if here and h.shape[1] in self.attention:
                    h = attend(h, f"up_{level}_attention_{i}")
            if level > 0:
                h = resample(h, "up", f"up_{level}_resample")

        h = norm(h.shape[-1], "out_norm", swish=True)(h)
        return conv(self.outputs * channels, init=zeros, name="out")(h)

    @property
    def is_told(self) -> bool:
        """Whether the residual blocks are told anything."""
        return self.conditional or self.classes > 0

    def embed(self, x, c, label, train):
        """[B, 4 features] that the residual blocks are told of noise level and class, or None."""
        width, told = 4 * self.features, []
        if self.conditional:
            h = sinusoidal(c, self.features, endpoint=self.endpoint).astype(x.dtype)
            h = dense(width, name="embed_0")(h)
            told.append(dense(width, name="embed_1")(nn.swish(h)))
        if self.classes:
            label = no_class(x) if label is None else label
            table = LabelEmbedding(self.classes, width, self.label_dropout, name="label")
            told.append(table(label, train))
        return sum(told) if told else None

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises UserError unless images of this shape [H, W, C] fit the network."""
        check_unet("unet", self, shape)
        check_heads(self, shape)
        for name in ("groups", "group_size"):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name} must be at least 1, got {getattr(self, name)}")
        if not self.epsilon > 0:
            raise UserError(f"model.epsilon must be positive, got {self.epsilon}")
        if self.up_attention not in UP_ATTENTION:
            raise unknown("model.up_attention", self.up_attention, UP_ATTENTION)


def check_unet(name: str, module: nn.Module, shape: tuple[int, ...]) -> None:
    """Raises UserError unless the options that all U-Nets have, and the images, can be."""
    if module.features < 4 or module.features % 2:
        raise UserError(f"model.features must be even and at least 4, got {module.features}")
    for option, values in (
        ("multipliers", module.multipliers),
        ("blocks", (module.blocks,)),
        ("outputs", (module.outputs,)),
    ):
        if not values or min(values) < 1:
            raise UserError(f"model.{option} must be at least 1, got {getattr(module, option)}")
    for option in ("dropout", "label_dropout"):
        if not 0.0 <= getattr(module, option) < 1.0:
            raise UserError(f"model.{option} must lie in [0, 1), got {getattr(module, option)}")
    if module.classes < 0:
        raise UserError(f"model.classes must be at least 0, got {module.classes}")
    factor = 2 ** (len(module.multipliers) - 1)
    if len(shape) != 3 or shape[0] % factor or shape[1] % factor:
        raise UserError(
            f"model {name} with {len(module.multipliers)} multipliers needs images [H, W, C] "
            f"whose sides divide by {factor}, got {tuple(shape)}; use fewer multipliers, "
            "or set data.size"
        )
    check_attention(module, shape)


def check_attention(module: nn.Module, shape: tuple[int, ...]) -> None:
    """Raises UserError for a resolution of attention that images of this shape never have."""
    sides = [shape[0] >> level for level in range(len(module.multipliers))]
    absent = [side for side in module.attention if side not in sides]
    if absent:
        raise UserError(
            f"model.attention = {tuple(module.attention)} names resolutions, and {absent[0]} is "
            f"none of an image of {shape[0]} pixels with {len(sides)} multipliers; choose of "
            f"{', '.join(map(str, sides))}, or () for attention in the middle alone"
        )


def check_heads(module: nn.Module, shape: tuple[int, ...]) -> None:
    """Raises UserError unless all attention, also that in the middle, divides into heads."""
    if module.head_channels < 0:
        raise UserError(f"model.head_channels must be at least 0, got {module.head_channels}")
    last = len(module.multipliers) - 1
    for level, multiplier in enumerate(module.multipliers):
        attends = level == last or shape[0] >> level in module.attention
        channels = multiplier * module.features
        if attends and module.head_channels and channels % module.head_channels:
            raise UserError(
                f"model.head_channels = {module.head_channels} must divide the {channels} channels "
                f"of the attention at {shape[0] >> level} pixels"
            )
