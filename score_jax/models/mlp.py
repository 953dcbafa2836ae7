"""A multilayer perceptron for points [D] in low dimension."""

import flax.linen as nn
import jax.numpy as jnp

from score_jax.models.embeddings import sinusoidal
from score_jax.models.initializers import fan_in_uniform, zeros


class MLP(nn.Module):
    """x and an embedding of c, through `depth` hidden layers of `width` with swish.

    scale: what c is multiplied with before its sinusoidal embedding.
    """

    width: int = 128
    depth: int = 3
    scale: float = 1.0

    @nn.compact
    def __call__(self, x, c, label=None, train=False):
        def dense(width):
            return nn.Dense(width, kernel_init=fan_in_uniform, bias_init=zeros)

        h = dense(self.width)(x) + dense(self.width)(sinusoidal(self.scale * c, self.width))
        for _ in range(self.depth):
            h = dense(self.width)(nn.swish(h))
        return dense(x.shape[-1])(nn.swish(h))
