"""The words that every other module uses.

x is one example (no batch axis) and t in [0, 1] is a scalar time, 0 clean and 1 noise.
Batches are made by `jax.vmap`, devices by `jax.pmap`, each in one place.

Shapes stand in the annotations (jaxtyping): Float[Array, "N D"], one name for one length within
a signature, *shape for any number of axes, "" for none. In normal use nothing checks them and
they cost nothing; tests/test_shapes.py runs with all of them checked.
"""

from collections.abc import Callable

import jax
import jaxtyping
import numpy as np
from jaxtyping import Float, Int, Real

Array = jax.Array
Given = jax.Array | np.ndarray  # an array that is handed in, of JAX or of NumPy
Key = jaxtyping.Key[Array, ""]  # a typed PRNG key, jax.random.key(seed)
Scalar = Real[Array, ""] | np.floating | float | int
Integer = Int[Array, ""] | np.integer | int
Times = Real[Given, "*t"] | np.floating | float | int  # a time, or an array of them, each by itself
Example = Float[Given, "*shape"]  # one x, of whatever shape the data have
# (x, t) -> grad_x log p_t(x)
ScoreFn = Callable[[Float[Array, "*shape"], Scalar], Float[Array, "*shape"]]
