"""The seam between networks, which are batched, and everything else, which is not.

What asks a module with examples of a shape raises UserError where they do not fit it.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from score_jax.models.initializers import announced, draw
from score_jax.predictions import Net
from score_jax.types import Array, Key

Params = Any

EXACT = ("frequencies", "phases")  # parameters whose digits become an angle
DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}  # what a network may compute in


def as_net(
    module: nn.Module,
    params: Params,
    *,
    label: Array | None = None,
    condition: Array | None = None,
    dropout_key: Key | None = None,
    dtype: str = "float32",
) -> Net:
    """(x, c) -> y for one example x, c a scalar. With a dropout_key in training mode.

    label: the example's class, an int32 scalar, for a network that `is_conditional`; None or -1
    says nothing of it. condition: what the network sees beside x, see `beside`; only the outputs
    that are for x come back.
    dtype: what it computes in, one of DTYPES: parameters and x are cast to it on the way in, y
    back to x's type on the way out. c, a number in the hundreds perhaps, is not, nor are the
    frequencies that multiply it (EXACT); a network casts what it makes of c.
    """
    low = DTYPES[dtype]
    cast = lambda x: x if low is None else x.astype(low)
    exact = lambda path: path[-1].key in EXACT
    parts = jax.tree_util.tree_map_with_path(lambda p, w: w if exact(p) else cast(w), params)
    told: dict[str, Any] = {} if label is None else {"label": jnp.asarray(label)[None]}

    def net(x, c):
        seen = x if condition is None else beside(x, condition)
        y = module.apply(
            {"params": parts},
            cast(seen)[None],
            jnp.asarray(c)[None],
            train=dropout_key is not None,
            **told,
            rngs=None if dropout_key is None else {"dropout": dropout_key},
        )
        y = y[0] if condition is None else _for(x, y[0], seen)
        return y.astype(x.dtype)

    return net


def beside(x: Array, condition: Array) -> Array:
    """x [..., C] with what is told of it as further channels: [..., C + K + 1].

    condition: a vector [K], then a constant on every channel, or of x's size [..., K]; the last
    channel is 1, or 0 where nothing is told: where the condition holds NaN. Saharia et al. 2021
    (SR3, arXiv 2104.07636), section 2.4, with the last channel for label dropout.
    """
    told = ~jnp.isnan(condition).any()
    planes = jnp.broadcast_to(condition, (*x.shape[:-1], condition.shape[-1]))
    flag = jnp.ones((*x.shape[:-1], 1), x.dtype)
    planes = jnp.concatenate([planes.astype(x.dtype), flag], axis=-1)
    return jnp.concatenate([x, jnp.where(told, planes, 0.0)], axis=-1)


def beside_shape(shape: tuple[int, ...], condition: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of `beside(x, condition)`."""
    return (*shape[:-1], shape[-1] + condition[-1] + 1)


def _for(x, y, seen):
    """Of the outputs y, each with the channels of `seen`, those for x."""
    each = y.reshape(*y.shape[:-1], -1, seen.shape[-1])[..., : x.shape[-1]]
    return each.reshape(*y.shape[:-1], -1)


def is_conditional(module: nn.Module) -> bool:
    """Whether the network is told the classes of what it sees."""
    return getattr(module, "classes", 0) > 0


def init_params(module: nn.Module, key: Key, shape: tuple[int, ...]) -> Params:
    """Initial parameters for examples of this shape, as float32 NumPy arrays."""
    return draw(key, _announced(module, shape)[1])


def output_shape(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the module's output for an example of this shape; computes nothing."""
    return _announced(module, shape)[0].shape[1:]


def count(module: nn.Module, shape: tuple[int, ...]) -> int:
    """The number of the module's parameters for examples of this shape; computes nothing."""
    leaves = jax.tree.leaves(_announced(module, shape)[1])
    return sum(int(np.prod(leaf.shape)) for leaf in leaves)


@functools.cache
def _announced(module, shape):
    return announced(module, jnp.zeros((1, *shape)), jnp.zeros((1,)))
