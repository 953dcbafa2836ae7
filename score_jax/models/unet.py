"""DDPM's U-Net (Ho et al. 2020, appendix B)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_jax.errors import UserError
from score_jax.models.embeddings import sinusoidal
from score_jax.models.initializers import fan_avg_uniform, ones, zeros


def conv(features: int, size: int = 3, stride: int = 1, init=fan_avg_uniform, name=None):
    return nn.Conv(
        features, (size, size), (stride, stride), kernel_init=init, bias_init=zeros, name=name
    )


def dense(features: int, init=fan_avg_uniform, name=None):
    return nn.Dense(features, kernel_init=init, bias_init=zeros, name=name)


def group_norm(channels: int, name=None):
    most = min(32, max(channels // 4, 1))
    groups = max(n for n in range(1, most + 1) if channels % n == 0)
    return nn.GroupNorm(groups, epsilon=1e-6, scale_init=ones, bias_init=zeros, name=name)


class ResidualBlock(nn.Module):
    """GroupNorm, swish, conv; plus the time; GroupNorm, swish, dropout, conv (zero at first)."""

    features: int
    dropout: float

    @nn.compact
    def __call__(self, x, embedding, train):
        h = conv(self.features)(nn.swish(group_norm(x.shape[-1])(x)))
        h = h + dense(self.features)(nn.swish(embedding))[:, None, None, :]
        h = nn.swish(group_norm(self.features)(h))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = conv(self.features, init=zeros)(h)
        if x.shape[-1] != self.features:
            x = dense(self.features, name="shortcut")(x)
        return x + h


class Attention(nn.Module):
    """Self-attention over the pixels, one head, residual (zero at first)."""

    @nn.compact
    def __call__(self, x):
        batch, height, width, channels = x.shape
        h = group_norm(channels)(x).reshape(batch, height * width, 1, channels)
        query, key, value = (dense(channels, name=name)(h) for name in ("query", "key", "value"))
        h = jax.nn.dot_product_attention(query, key, value).reshape(x.shape)
        return x + dense(channels, init=zeros, name="out")(h)


class UNet(nn.Module):
    """The U-Net of Ho et al. 2020, predicting any view; their CIFAR-10 net is the default.

    features: channels at full resolution. multipliers: channels of each resolution, in
    features; the resolution halves between them. blocks: residual blocks a resolution
    (one more on the way up). attention: the resolutions (pixels a side) with
    self-attention after every block, on both ways. dropout: its rate. outputs: how many
    numbers are put out for each of x: 2 with learned variances, else 1. remat: what lies within
    a residual block is computed again for the gradient instead of being kept.

    Needs images whose sides divide by 2^(len(multipliers) - 1). 35,746,307 parameters at
    32x32x3 with the defaults, the paper's 35.7 M.
    """

    features: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (16,)
    dropout: float = 0.1
    outputs: int = 1
    remat: bool = False

    @nn.compact
    def __call__(self, x, c, train=False):
        self.check(x.shape[1:])
        embedding = sinusoidal(c, self.features).astype(x.dtype)
        embedding = dense(4 * self.features)(embedding)
        embedding = dense(4 * self.features)(nn.swish(embedding))

        def residual(h, features, name=None):
            block = ResidualBlock(features, self.dropout, name=name)
            call = lambda block, h, embedding: block(h, embedding, train)
            return (nn.remat(call) if self.remat else call)(block, h, embedding)

        def block(h, features):
            h = residual(h, features)
            return Attention()(h) if h.shape[1] in self.attention else h

        h = conv(self.features)(x)
        skips = [h]
        for level, multiplier in enumerate(self.multipliers):
            if level > 0:
                h = conv(h.shape[-1], stride=2, name=f"down_{level}")(h)
                skips.append(h)
            for _ in range(self.blocks):
                h = block(h, multiplier * self.features)
                skips.append(h)

        h = residual(h, h.shape[-1], name="middle_1")
        h = Attention(name="middle_attention")(h)
        h = residual(h, h.shape[-1], name="middle_2")

        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            for _ in range(self.blocks + 1):
                h = block(jnp.concatenate([h, skips.pop()], -1), multiplier * self.features)
            if level > 0:
                h = h.repeat(2, axis=1).repeat(2, axis=2)
                h = conv(h.shape[-1], name=f"up_{level}")(h)

        h = nn.swish(group_norm(h.shape[-1])(h))
        return conv(self.outputs * x.shape[-1], init=zeros, name="out")(h)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises UserError unless images of this shape [H, W, C] fit the network."""
        if self.features < 4 or self.features % 2:
            raise UserError(f"model.features must be even and at least 4, got {self.features}")
        for name, values in (
            ("multipliers", self.multipliers),
            ("blocks", (self.blocks,)),
            ("outputs", (self.outputs,)),
        ):
            if not values or min(values) < 1:
                raise UserError(f"model.{name} must be at least 1, got {getattr(self, name)}")
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"model.dropout must lie in [0, 1), got {self.dropout}")
        factor = 2 ** (len(self.multipliers) - 1)
        if len(shape) != 3 or shape[0] % factor or shape[1] % factor:
            raise UserError(
                f"model unet with {len(self.multipliers)} multipliers needs images [H, W, C] "
                f"whose sides divide by {factor}, got {tuple(shape)}; use fewer multipliers, "
                "or set data.size"
            )
