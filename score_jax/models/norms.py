"""Group normalization with what follows it, forgotten by the forward pass.

What its gradient needs is made again from what came in: on a CPU this takes half of the time and
half of the memory of the same with everything kept (see docs/speed.md).
"""

import functools
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from score_jax.models.initializers import ones, zeros
from score_jax.types import Array


class GroupNorm(nn.Module):
    """y = swish(γ (x - m)/s + β), m and s of x's channels in groups. Wu & He 2018.

    Called with x [B, ..., C]; and with (a, b), each [B, C], where something is told to the norm:
    then γ and β are (1 + a) γ and (1 + a) β + b (adaptive, Dhariwal & Nichol 2021, section 3.1).
    swish: without, y is the argument above. epsilon: added to the variance s².
    """

    groups: int
    epsilon: float
    swish: bool = False

    @nn.compact
    def __call__(self, x, told=None):
        scale = self.param("scale", ones, (x.shape[-1],))
        bias = self.param("bias", zeros, (x.shape[-1],))
        if told is not None:
            a, b = told
            scale, bias = scale * (1.0 + a), bias * (1.0 + a) + b
        norm = _forgetful(self.groups, self.epsilon, self.swish)
        if len(x) == 1:  # with a dimension less XLA's sums on a CPU are ten times as fast
            return norm(x[0], scale.reshape(-1), bias.reshape(-1))[None]
        told_each = None if told is None else 0
        return jax.vmap(norm, (0, told_each, told_each))(x, scale, bias)


@functools.cache  # so that JAX knows it again, and need not trace it again
def _forgetful(groups, epsilon, swish):
    options: dict[str, Any] = dict(groups=groups, epsilon=epsilon, swish=swish)
    return jax.checkpoint(functools.partial(group_norm, **options))


def group_norm(
    x: Array, scale: Array, bias: Array, *, groups: int, epsilon: float, swish: bool
) -> Array:
    """`GroupNorm` of one example as a function: x [..., C], scale and bias [C].

    It computes in float32 or better, whatever x is, and says y in x's type.
    """
    pixels = x.reshape(-1, x.shape[-1])
    pixels = pixels.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean_of = lambda v: v.sum(0).reshape(groups, -1).sum(-1, keepdims=True) / (x.size // groups)
    mean = mean_of(pixels)
    variance = mean_of(pixels * pixels) - mean**2
    slope = scale.reshape(groups, -1) * lax.rsqrt(jnp.maximum(variance, 0.0) + epsilon)
    offset = bias.reshape(groups, -1) - mean * slope
    y = pixels * slope.reshape(-1) + offset.reshape(-1)
    return (nn.swish(y) if swish else y).reshape(x.shape).astype(x.dtype)


@dataclass(frozen=True)
class Norm:
    """GroupNorm of as many groups as divide the channels, at most `groups`, of `least` channels or
    more each. epsilon: added to the variance.
    """

    groups: int = 32
    least: int = 4
    epsilon: float = 1e-6

    def __call__(self, channels: int, name: str | None = None, swish: bool = False) -> GroupNorm:
        most = min(self.groups, max(channels // self.least, 1))
        groups = max(n for n in range(1, most + 1) if channels % n == 0)
        return GroupNorm(groups, self.epsilon, swish, name=name)
