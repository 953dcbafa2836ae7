"""A multilayer perceptron for points [D] in low dimension."""

import flax.linen as nn

from score_jax.errors import UserError
from score_jax.models.embeddings import sinusoidal
from score_jax.models.initializers import fan_in_uniform, zeros


class MLP(nn.Module):
    """h = A x + B e(scale c), then `depth` times h ← W swish(h), and out C swish(h).

    e: the sinusoidal embedding [width] of the noise level; every matrix has a bias.
    width: of h, even and at least 4, for the embedding.
    outputs: how many numbers are put out for each of x: 2 with learned variances, else 1.
    """

    width: int = 128
    depth: int = 3
    scale: float = 1.0
    outputs: int = 1

    @nn.compact
    def __call__(self, x, c, train=False):
        self.check(x.shape[1:])

        def dense(width):
            return nn.Dense(width, kernel_init=fan_in_uniform, bias_init=zeros)

        embedding = sinusoidal(self.scale * c, self.width).astype(x.dtype)
        h = dense(self.width)(x) + dense(self.width)(embedding)
        for _ in range(self.depth):
            h = dense(self.width)(nn.swish(h))
        return dense(self.outputs * x.shape[-1])(nn.swish(h))

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises UserError unless points of this shape [D] fit the network."""
        if len(shape) != 1:
            raise UserError(
                f"model mlp needs points [D], got examples {tuple(shape)}; "
                "use refinenet or unet for images"
            )
        if self.width < 4 or self.width % 2:
            raise UserError(f"model.width must be even and at least 4, got {self.width}")
        if self.depth < 0:
            raise UserError(f"model.depth must be at least 0, got {self.depth}")
        if self.outputs < 1:
            raise UserError(f"model.outputs must be at least 1, got {self.outputs}")
