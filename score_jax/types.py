"""The words that every other module uses.

x is one example (no batch axis) and t in [0, 1] is a scalar time, 0 clean and 1 noise.
Batches are made by `jax.vmap`, devices by `jax.pmap`, each in one place.
"""

from collections.abc import Callable

import jax

Array = jax.Array
Key = jax.Array  # a typed PRNG key, jax.random.key(seed)
Scalar = jax.Array | float
ScoreFn = Callable[[Array, Scalar], Array]  # (x, t) -> grad_x log p_t(x)
