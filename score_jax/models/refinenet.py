"""NCSN's network: a RefineNet with conditional instance norm++ (Song & Ermon 2019, appendix A).

A residual network at two resolutions, dilated instead of subsampled thereafter, whose four
stages are fused from the last to the first. Every convolution is preceded by an instance
norm conditioned on the noise level, and ELU is the nonlinearity throughout. NCSNv2's network
is made of the same blocks (`ncsnv2.py`), those of the fusion without norms.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_jax.errors import UserError, unknown
from score_jax.models.blocks import shared
from score_jax.models.initializers import drawn, fan_in_uniform, zeros


def conv(features: int, size: int = 3, dilation: int = 1, bias: bool = True, name=None):
    """size x size, with PyTorch's initial weights, but for biases, which begin at zero."""
    return nn.Conv(
        features,
        (size, size),
        kernel_dilation=dilation,
        use_bias=bias,
        kernel_init=fan_in_uniform,
        bias_init=zeros,
        name=name,
    )


def halved(x):
    """[B, H, W, C] -> [B, H/2, W/2, C], the mean over 2x2 blocks."""
    return nn.avg_pool(x, (2, 2), (2, 2))


class InstanceNorm(nn.Module):
    """Conditional instance norm++: γ[c,k] ((x_k - μ_k)/s_k + α[c,k] (μ_k - m)/v) + β[c,k].

    μ_k, s_k: mean and std of channel k over the pixels; m, v: mean and std of the μ_k.
    c: [B] int, which of `levels`. γ, α ~ N(1, 0.02²), β = 0 at first. Song & Ermon 2019,
    appendix A.1, where γ does not multiply the last term; we follow the authors' code, where it
    does. unbiased: whether v² divides by one less than there are channels, or by as many.
    """

    levels: int
    unbiased: bool = True

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
        variance = mean.var(-1, keepdims=True, ddof=int(self.unbiased))
        spread = centered * jax.lax.rsqrt(variance + 1e-5)
        h = (x - mean) * jax.lax.rsqrt(x.var((1, 2), keepdims=True) + 1e-5)
        return (gamma * (h + alpha * spread) + beta).astype(given)


def normalized(block: nn.Module, x, c):
    """x after an instance norm of this block; x itself where it has no levels."""
    return InstanceNorm(block.levels, block.unbiased)(x, c) if block.levels else x


class ResidualBlock(nn.Module):
    """norm, ELU, conv; norm, ELU, conv; plus the input.

    enter: the first block of a later stage: the second convolution sets the channels and
    the input is projected, by 1x1 with halving of the resolution, or dilated.
    """

    features: int
    levels: int
    enter: bool = False
    dilation: int = 1
    unbiased: bool = True

    @nn.compact
    def __call__(self, x, c):
        h = nn.elu(normalized(self, x, c))
        h = conv(x.shape[-1], dilation=self.dilation)(h)
        h = nn.elu(normalized(self, h, c))
        h = conv(self.features, dilation=self.dilation)(h)
        if not self.enter:
            return x + h
        if self.dilation > 1:
            return conv(self.features, dilation=self.dilation)(x) + h
        return halved(conv(self.features, size=1)(x) + h)


class ConvUnit(nn.Module):
    """RefineNet's residual conv unit: `blocks` times two of norm, ELU, conv, plus the input.

    levels: 0 for no norms.
    """

    blocks: int
    levels: int
    unbiased: bool = True

    @nn.compact
    def __call__(self, x, c):
        for _ in range(self.blocks):
            h = x
            for _ in range(2):
                h = nn.elu(normalized(self, h, c))
                h = conv(x.shape[-1], bias=False)(h)
            x = x + h
        return x


class ChainedPooling(nn.Module):
    """RefineNet's chained residual pooling: two of norm, pool 5x5, conv.

    The mean is pooled (NCSN), or, where levels is 0 and there are no norms, the maximum (NCSNv2).
    """

    levels: int
    unbiased: bool = True

    @nn.compact
    def __call__(self, x, c):
        x = path = nn.elu(x)
        for _ in range(2):
            pool = nn.avg_pool if self.levels else nn.max_pool
            path = pool(normalized(self, path, c), (5, 5), padding="SAME")
            path = conv(x.shape[-1], bias=False)(path)
            x = x + path
        return x


class RefineBlock(nn.Module):
    """Fuses features of several resolutions into `features` channels at the finest of them.

    levels: 0 for no norms. last: three conv units at the end instead of one. corners: how the
    coarser ones are `enlarged`.
    """

    features: int
    levels: int
    last: bool = False
    corners: bool = True
    unbiased: bool = True

    @nn.compact
    def __call__(self, xs, c):
        shape, norm = xs[0].shape, (self.levels, self.unbiased)
        hs = [ConvUnit(2, *norm)(x, c) for x in xs]
        if len(hs) > 1:
            hs = [conv(self.features)(normalized(self, h, c)) for h in hs]
            hs = [enlarged(h, shape[1:3], self.corners) for h in hs]
        h = ChainedPooling(*norm)(functools.reduce(jnp.add, hs), c)
        return ConvUnit(3 if self.last else 1, *norm)(h, c)


def enlarged(x, size, corners: bool = True):
    """x [B, h, w, C] -> [B, H, W, C], size (H, W), by bilinear interpolation.

    corners: whether the centers of the corner pixels map to each other; else the areas of pixels
    do, and beyond the outermost centers their values go on.
    """
    if x.shape[1:3] == tuple(size):
        return x
    weights = (_weights(old, new, corners) for old, new in zip(x.shape[1:3], size))
    rows, columns = (w.astype(x.dtype) for w in weights)
    return jnp.einsum("hi,wj,bijc->bhwc", rows, columns, x)


def _weights(old: int, new: int, corners: bool):
    if corners:
        position = jnp.linspace(0.0, old - 1.0, new)
    else:
        position = jnp.clip((jnp.arange(new) + 0.5) * old / new - 0.5, 0.0, old - 1.0)
    return jnp.maximum(0.0, 1.0 - jnp.abs(position[:, None] - jnp.arange(old)))


# Two codes differ in details. "authors": the last fusion but one puts out the first stage's
# channels; interpolation maps the centers of the corner pixels to each other; instance norm++'s
# variance over the channels divides by one less than there are. "score_sde": the second stage's
# channels (in the networks of four stages); the corners of the images; by their number.
CODES = ("authors", "score_sde")


def check_code(code: str) -> None:
    """Raises UserError for a code that is not known."""
    if code not in CODES:
        raise unknown("model.code", code, CODES)


class RefineNet(nn.Module):
    """NCSN's score network for images in [0, 1]; Song & Ermon's CIFAR-10 net is the default.

    features: channels of the first stage; the others have twice as many. levels: number
    of noise levels L; c is the level's index 0 .. L-1 and is rounded to the nearest. code: whose
    network it is to the last detail, see CODES. remat: what lies within a block is computed again
    for the gradient instead of being kept.

    Needs images with even sides. At L = 10, with three channels, 34,428,675 parameters in
    score_sde's code, 30,117,635 in the authors'.
    """

    features: int = 128
    levels: int = 10
    code: str = "score_sde"
    remat: bool = False

    @nn.compact
    def __call__(self, x, c, train=False):
        self.check(x.shape[1:])
        c = jnp.clip(jnp.round(c).astype(int), 0, self.levels - 1)
        narrow, wide = self.features, 2 * self.features

        def call(block, h):
            return shared(block, h, c, remat=self.remat)

        authors = self.code == "authors"
        norm: dict[str, Any] = dict(levels=self.levels, unbiased=authors)

        def residual(h, features, **options):
            return call(ResidualBlock(features, **norm, **options), h)

        h = conv(narrow)(2.0 * x - 1.0)
        stage1 = residual(residual(h, narrow), narrow)
        stage2 = residual(residual(stage1, wide, enter=True), wide)
        stage3 = residual(stage2, wide, enter=True, dilation=2)
        stage3 = residual(stage3, wide, dilation=2)
        stage4 = residual(stage3, wide, enter=True, dilation=4)
        stage4 = residual(stage4, wide, dilation=4)

        def refine(xs, features, **options):
            return call(RefineBlock(features, corners=authors, **norm, **options), xs)

        h = refine([stage4], wide)
        h = refine([stage3, h], wide)
        h = refine([stage2, h], narrow if authors else wide)
        h = refine([stage1, h], narrow, last=True)
        h = nn.elu(InstanceNorm(**norm)(h, c))
        return conv(x.shape[-1])(h)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises UserError unless images of this shape [H, W, C] fit the network."""
        for name, least in (("features", 2), ("levels", 1)):  # a norm over the channels needs 2
            if getattr(self, name) < least:
                raise UserError(f"model.{name} must be at least {least}, got {getattr(self, name)}")
        check_code(self.code)
        if len(shape) != 3 or shape[0] % 2 or shape[1] % 2:
            raise UserError(
                f"model refinenet needs images [H, W, C] with even sides, got {tuple(shape)}; "
                "set data.size"
            )
