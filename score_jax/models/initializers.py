"""Initial parameters without compiling one random draw per leaf.

`jax.jit(module.init)` compiles a random draw for every leaf: 40 CPU-seconds for a small
U-Net. Here an initializer *announces* its distribution in a box around the value (Flax's
own metadata mechanism); `initialize` reads the announcements under `jax.eval_shape`,
which computes nothing, and cuts all leaves out of one flat draw.

    params = initialize(module, key, x, c)     # seconds become tenths of them

The same initializers work under plain `module.init` too.
"""

import dataclasses
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from score_jax.types import Key


@flax.struct.dataclass
class Drawn(nn.meta.AxisMetadata):
    """A leaf that is mean + scale * u, with u uniform on [-1, 1] or standard normal."""

    value: Any
    mean: float = flax.struct.field(pytree_node=False)
    scale: float = flax.struct.field(pytree_node=False)
    law: str = flax.struct.field(pytree_node=False)  # "uniform" or "normal"

    def unbox(self):
        """The value, for flax."""
        return self.value

    def replace_boxed(self, val):
        """The same with another value, for flax."""
        return dataclasses.replace(self, value=val)

    def add_axis(self, index, params):
        """Itself: its axes have no names."""
        return self

    def remove_axis(self, index, params):
        """Itself: its axes have no names."""
        return self


def _draw(law: str, key: Key, shape: tuple[int, ...]) -> jax.Array:
    if law == "uniform":
        return jax.random.uniform(key, shape, minval=-1.0)
    return jax.random.normal(key, shape)


def drawn(mean: float, scale: float, law: str):
    """The initializer of mean + scale * u, u of the law "uniform" or "normal", see `Drawn`."""

    def init(key, shape, dtype=jnp.float32):
        value = mean + scale * _draw(law, key, shape) if scale else jnp.full(shape, mean)
        return Drawn(value.astype(dtype), mean, scale, law)

    return init


zeros = drawn(0.0, 0.0, "uniform")
ones = drawn(1.0, 0.0, "uniform")


def fan_in_uniform(key, shape, dtype=jnp.float32):
    """U(±1/√fan_in), PyTorch's default and so NCSN's. shape: [..., in, out]."""
    return drawn(0.0, float(np.prod(shape[:-1])) ** -0.5, "uniform")(key, shape, dtype)


def fan_avg_uniform(key, shape, dtype=jnp.float32):
    """U(±√(3/fan_avg)), DDPM's (Ho et al. 2020, code). shape: [..., in, out]."""
    fan_avg = np.prod(shape[:-2]) * (shape[-2] + shape[-1]) / 2
    return drawn(0.0, float(np.sqrt(3.0 / fan_avg)), "uniform")(key, shape, dtype)


def announced(module: nn.Module, *inputs) -> tuple[Any, dict]:
    """(the shapes of what the module says, those of its parameters in their `Drawn`), for inputs of
    these shapes; computes nothing.

    Raises TypeError where a parameter of the module has an initializer not from this file.
    """
    init = lambda: module.init_with_output(jax.random.key(0), *inputs)
    output, variables = jax.eval_shape(init)
    leaves = jax.tree.leaves(variables["params"], is_leaf=_is_drawn)
    if not all(map(_is_drawn, leaves)):
        raise TypeError(f"{type(module).__name__} has a parameter not initialized by this file")
    return output, variables["params"]


def initialize(module: nn.Module, key: Key, *inputs) -> dict:
    """The module's parameters, a dict of float32 NumPy arrays, for inputs of these shapes.

    Raises TypeError as `announced` does.
    """
    return draw(key, announced(module, *inputs)[1])


def draw(key: Key, parameters: dict) -> dict:
    """The values of what was `announced`."""
    leaves, tree = jax.tree.flatten(parameters, is_leaf=_is_drawn)
    return jax.tree.unflatten(tree, _cut(key, leaves))


def _is_drawn(leaf):
    return isinstance(leaf, Drawn)


def _cut(key, leaves):
    """The leaves' values, taken in order from one draw for each law."""
    pools = {}
    for i, law in enumerate(("uniform", "normal")):
        n = sum(leaf.value.size for leaf in leaves if leaf.scale and leaf.law == law)
        pools[law] = np.asarray(_draw(law, jax.random.fold_in(key, i), (n,)))
    values = []
    for leaf in leaves:
        u = np.zeros(leaf.value.size, np.float32)
        if leaf.scale:
            u, pools[leaf.law] = np.split(pools[leaf.law], [leaf.value.size])
        value = leaf.mean + leaf.scale * u.reshape(leaf.value.shape)
        values.append(value.astype(leaf.value.dtype))
    return values
