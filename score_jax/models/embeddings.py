"""Embeddings of the noise level."""

import jax.numpy as jnp

from score_jax.types import Array


def sinusoidal(c: Array, width: int, max_period: float = 10_000.0) -> Array:
    """[B] -> [B, width]: sin and cos of c at width/2 frequencies from 1 to 1/max_period.

    Vaswani et al. 2017, section 3.5, in the form of Ho et al. 2020's code: all sines, then
    all cosines.
    """
    half = width // 2
    frequencies = jnp.exp(-jnp.log(max_period) * jnp.arange(half) / (half - 1))
    angles = c[:, None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
