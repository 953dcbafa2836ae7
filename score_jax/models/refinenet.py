"""NCSN's network: a RefineNet with conditional instance norm++ (Song & Ermon 2019, appendix A).

A residual network at two resolutions, dilated instead of subsampled thereafter, whose four
stages are fused from the last to the first. Every convolution is preceded by an instance
norm conditioned on the noise level, and ELU is the nonlinearity throughout.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_jax.errors import UserError
from score_jax.models.initializers import drawn, fan_in_uniform, zeros


def conv(features: int, size: int = 3, dilation: int = 1, bias: bool = True):
    return nn.Conv(
        features,
        (size, size),
        kernel_dilation=dilation,
        use_bias=bias,
        kernel_init=fan_in_uniform,
        bias_init=zeros,
    )


def halved(x):
    """Mean over 2x2 blocks."""
    return nn.avg_pool(x, (2, 2), (2, 2))


class InstanceNorm(nn.Module):
    """Conditional instance norm++: γ[c,k] ((x_k - μ_k)/s_k + α[c,k] (μ_k - m)/v) + β[c,k].

    μ_k, s_k: mean and std of channel k over the pixels; m, v: mean and std of the μ_k.
    γ, α ~ N(1, 0.02²), β = 0 at first. Song & Ermon 2019, appendix A.1, where γ does not
    multiply the last term; we follow the authors' code, where it does.
    """

    levels: int

    @nn.compact
    def __call__(self, x, c):
        shape = (self.levels, x.shape[-1])
        near_one = drawn(1.0, 0.02, "normal")
        gamma, alpha, beta = (
            jnp.take(self.param(name, init, shape), c, axis=0)[:, None, None, :]
            for name, init in (("gamma", near_one), ("alpha", near_one), ("beta", zeros))
        )
        given, x = x.dtype, x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean = x.mean((1, 2), keepdims=True)
        centered = mean - mean.mean(-1, keepdims=True)
        spread = centered * jax.lax.rsqrt(mean.var(-1, keepdims=True, ddof=1) + 1e-5)
        h = (x - mean) * jax.lax.rsqrt(x.var((1, 2), keepdims=True) + 1e-5)
        return (gamma * (h + alpha * spread) + beta).astype(given)


class ResidualBlock(nn.Module):
    """norm, ELU, conv; norm, ELU, conv; plus the input.

    enter: the first block of a later stage: the second convolution sets the channels and
    the input is projected, by 1x1 with halving of the resolution, or dilated.
    """

    features: int
    levels: int
    enter: bool = False
    dilation: int = 1

    @nn.compact
    def __call__(self, x, c):
        h = nn.elu(InstanceNorm(self.levels)(x, c))
        h = conv(x.shape[-1], dilation=self.dilation)(h)
        h = nn.elu(InstanceNorm(self.levels)(h, c))
        h = conv(self.features, dilation=self.dilation)(h)
        if not self.enter:
            return x + h
        if self.dilation > 1:
            return conv(self.features, dilation=self.dilation)(x) + h
        return halved(conv(self.features, size=1)(x) + h)


class ConvUnit(nn.Module):
    """RefineNet's residual conv unit: `blocks` times two of norm, ELU, conv, plus the input."""

    blocks: int
    levels: int

    @nn.compact
    def __call__(self, x, c):
        for _ in range(self.blocks):
            h = x
            for _ in range(2):
                h = nn.elu(InstanceNorm(self.levels)(h, c))
                h = conv(x.shape[-1], bias=False)(h)
            x = x + h
        return x


class ChainedPooling(nn.Module):
    """RefineNet's chained residual pooling, with mean for max: two of norm, pool 5x5, conv."""

    levels: int

    @nn.compact
    def __call__(self, x, c):
        x = path = nn.elu(x)
        for _ in range(2):
            path = InstanceNorm(self.levels)(path, c)
            path = nn.avg_pool(path, (5, 5), padding="SAME")
            path = conv(x.shape[-1], bias=False)(path)
            x = x + path
        return x


class RefineBlock(nn.Module):
    """Fuses features of several resolutions into `features` channels at the finest of them."""

    features: int
    levels: int
    last: bool = False

    @nn.compact
    def __call__(self, xs, c):
        shape = xs[0].shape
        hs = [ConvUnit(2, self.levels)(x, c) for x in xs]
        if len(hs) > 1:
            hs = [conv(self.features)(InstanceNorm(self.levels)(h, c)) for h in hs]
            hs = [enlarged(h, shape[1:3]) for h in hs]
        h = ChainedPooling(self.levels)(functools.reduce(jnp.add, hs), c)
        return ConvUnit(3 if self.last else 1, self.levels)(h, c)


def enlarged(x, size):
    """Bilinear interpolation to size (H, W) that maps corners to corners."""
    if x.shape[1:3] == tuple(size):
        return x
    weights = (_corner_weights(old, new) for old, new in zip(x.shape[1:3], size))
    rows, columns = (w.astype(x.dtype) for w in weights)
    return jnp.einsum("hi,wj,bijc->bhwc", rows, columns, x)


def _corner_weights(old: int, new: int):
    position = jnp.linspace(0.0, old - 1.0, new)
    return jnp.maximum(0.0, 1.0 - jnp.abs(position[:, None] - jnp.arange(old)))


class RefineNet(nn.Module):
    """NCSN's score network for images in [0, 1]; Song & Ermon's CIFAR-10 net is the default.

    features: channels of the first stage; the others have twice as many. levels: number
    of noise levels L; c is the level's index 0 .. L-1 and is rounded to the nearest. remat: what
    lies within a block is computed again for the gradient instead of being kept.

    Needs images with even sides. 34,428,675 parameters at L = 10 with three channels.
    """

    features: int = 128
    levels: int = 10
    remat: bool = False

    @nn.compact
    def __call__(self, x, c, train=False):
        self.check(x.shape[1:])
        c = jnp.clip(jnp.round(c).astype(int), 0, self.levels - 1)
        narrow, wide = self.features, 2 * self.features

        def call(block, h):
            run = lambda block, h: block(h, c)
            return (nn.remat(run) if self.remat else run)(block, h)

        def residual(h, features, **options):
            return call(ResidualBlock(features, self.levels, **options), h)

        h = conv(narrow)(2.0 * x - 1.0)
        stage1 = residual(residual(h, narrow), narrow)
        stage2 = residual(residual(stage1, wide, enter=True), wide)
        stage3 = residual(stage2, wide, enter=True, dilation=2)
        stage3 = residual(stage3, wide, dilation=2)
        stage4 = residual(stage3, wide, enter=True, dilation=4)
        stage4 = residual(stage4, wide, dilation=4)

        def refine(xs, features, **options):
            return call(RefineBlock(features, self.levels, **options), xs)

        h = refine([stage4], wide)
        h = refine([stage3, h], wide)
        h = refine([stage2, h], wide)
        h = refine([stage1, h], narrow, last=True)
        h = nn.elu(InstanceNorm(self.levels)(h, c))
        return conv(x.shape[-1])(h)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises UserError unless images of this shape [H, W, C] fit the network."""
        for name, least in (("features", 2), ("levels", 1)):  # a norm over the channels needs 2
            if getattr(self, name) < least:
                raise UserError(f"model.{name} must be at least {least}, got {getattr(self, name)}")
        if len(shape) != 3 or shape[0] % 2 or shape[1] % 2:
            raise UserError(
                f"model refinenet needs images [H, W, C] with even sides, got {tuple(shape)}; "
                "set data.size"
            )
