"""What numbers a network sees for the bytes of an image, and back."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.types import Given, Key


class Encoding(NamedTuple):
    """Images 0 .. 255 as numbers; points pass unchanged.

    centered: to [-1, 1] (DDPM), else to [0, 1] (NCSN).
    flip: mirror each image left to right with probability one half, in training.
    dequantize: the level p becomes (p + u) 255/256 first, u ~ U[0, 1), in training (NCSN's code).
    """

    centered: bool = True
    flip: bool = False
    dequantize: bool = False

    @property
    def low(self) -> float:
        """Black, as the network sees it: -1 or 0; white is 1."""
        return -1.0 if self.centered else 0.0

    def encode(self, key: Key, x: Given) -> Given:
        """One training example: uint8 [H, W, C] -> float32 in [low, 1], or [D] unchanged."""
        if x.ndim == 1:
            return x
        flip_key, noise_key = jax.random.split(key)
        x = x.astype(jnp.float32)
        if self.flip:
            x = jnp.where(jax.random.bernoulli(flip_key), x[:, ::-1], x)
        if self.dequantize:
            x = (x + jax.random.uniform(noise_key, x.shape)) * (255.0 / 256.0)
        return self.low + x * ((1.0 - self.low) / 255.0)

    def decode(self, x: np.ndarray) -> np.ndarray:
        """Samples [N, H, W, C] -> uint8, clipped and rounded to the nearest; [N, D] unchanged."""
        if x.ndim == 2:
            return x
        return np.round(255.0 * np.clip((x - self.low) / (1.0 - self.low), 0, 1)).astype(np.uint8)
