"""Where every random number comes from.

    key = stream(seed, "samples")

One seed feeds several purposes; each has a stream of its own, so that samples share no draw
with the training, nor the parameters with the data. Keys are folded on from there by step
and example.
"""

import jax

from score_jax.threefry import unrolled
from score_jax.types import Key

PURPOSES = {"parameters": 0, "steps": 1, "samples": 2, "data": 3, "calibration": 4, "likelihood": 5}
PURPOSES |= {"held_out": 6, "bound": 7, "observation": 8}


def stream(seed: int, purpose: str) -> Key:
    """The key of one purpose, one of PURPOSES, under a seed."""
    return jax.random.fold_in(unrolled(jax.random.key(seed)), PURPOSES[purpose])
