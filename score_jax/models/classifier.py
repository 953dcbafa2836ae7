"""Classifiers of noised examples, told how noisy they are: log p(c | x_t) for guidance.

Networks of the same form as the others, module(x, c, train) with c the noise level, but for their
output: logits [B, classes]. They are trained by `losses.cross_entropy`.
"""

import flax.linen as nn

from score_jax.errors import UserError
from score_jax.models.embeddings import sinusoidal
from score_jax.models.initializers import fan_in_uniform, zeros
from score_jax.models.layers import Attention, Resample, ResidualBlock, conv, dense
from score_jax.models.norms import Norm
from score_jax.models.unet import check_unet


class Classifier(nn.Module):
    """Of images: the way down of `UNet` and its middle, the mean over the pixels, K logits.

    The options are those of `UNet`, and so are the defaults. Dhariwal & Nichol 2021 (arXiv
    2105.05233), section 4.3, pool by attention; here attention in the middle lets the pixels know
    of each other, and their mean is taken after it. The logits are 0 at first: all classes are as
    likely.

    Needs images whose sides divide by 2^(len(multipliers) - 1). 13,414,794 parameters at 32x32x3
    with 10 classes and the defaults.
    """

    classes: int
    features: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (16,)
    dropout: float = 0.1
    centered: bool = True

    label_dropout, outputs = 0.0, 1  # no options: what `check_unet` asks of a U-Net besides

    @nn.compact
    def __call__(self, x, c, train=False):
        self.check(x.shape[1:])
        norm, width = Norm(), 4 * self.features
        embedding = dense(width, name="embed_0")(sinusoidal(c, self.features).astype(x.dtype))
        embedding = dense(width, name="embed_1")(nn.swish(embedding))

        def residual(h, features, name):
            return ResidualBlock(features, self.dropout, norm, name=name)(h, embedding, train)

        h = conv(self.features, name="stem")(x if self.centered else 2.0 * x - 1.0)
        for level, multiplier in enumerate(self.multipliers):
            if level > 0:
                h = Resample("down", h.shape[-1], name=f"down_{level - 1}_resample")(h)
            for i in range(self.blocks):
                h = residual(h, multiplier * self.features, f"down_{level}_block_{i}")
                if h.shape[1] in self.attention:
                    h = Attention(norm=norm, name=f"down_{level}_attention_{i}")(h)

        h = residual(h, h.shape[-1], "middle_block_0")
        h = Attention(norm=norm, name="middle_attention")(h)
        h = residual(h, h.shape[-1], "middle_block_1")

        h = norm(h.shape[-1], "out_norm", swish=True)(h).mean((1, 2))
        return dense(self.classes, init=zeros, name="logits")(h)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises UserError unless images of this shape [H, W, C] fit the network."""
        check_unet("classifier", self, shape)
        _check_classes(self.classes)


class PointClassifier(nn.Module):
    """Of points [D]: `MLP`, but for its last layer, which puts out K logits, 0 at first.

    width, depth, scale: as in `MLP`.
    """

    classes: int
    width: int = 128
    depth: int = 3
    scale: float = 1.0

    @nn.compact
    def __call__(self, x, c, train=False):
        self.check(x.shape[1:])

        def hidden(h):
            return nn.Dense(self.width, kernel_init=fan_in_uniform, bias_init=zeros)(h)

        h = hidden(x) + hidden(sinusoidal(self.scale * c, self.width).astype(x.dtype))
        for _ in range(self.depth):
            h = hidden(nn.swish(h))
        return dense(self.classes, init=zeros, name="logits")(nn.swish(h))

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises UserError unless points of this shape [D] fit the network."""
        if len(shape) != 1:
            raise UserError(
                f"a classifier of points needs them as [D], got examples {tuple(shape)}; use "
                "Classifier for images"
            )
        if self.width < 4 or self.width % 2:
            raise UserError(f"model.width must be even and at least 4, got {self.width}")
        if self.depth < 0:
            raise UserError(f"model.depth must be at least 0, got {self.depth}")
        _check_classes(self.classes)


def _check_classes(classes):
    if classes < 2:
        raise UserError(f"a classifier needs at least 2 classes to choose from, got {classes}")
