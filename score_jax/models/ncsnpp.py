"""NCSN++ and DDPM++ (Song et al. 2021, arXiv 2011.13456, section 4.1 and appendix H)."""

import flax.linen as nn
import jax.numpy as jnp

from score_jax.errors import UserError, unknown
from score_jax.models.blocks import shared
from score_jax.models.embeddings import FourierFeatures, LabelEmbedding, no_class, sinusoidal
from score_jax.models.initializers import fan_avg_uniform, zeros
from score_jax.models.layers import (
    RESAMPLE,
    Attention,
    Resample,
    ResidualBlock,
    conv,
    dense,
    residual_sum,
)
from score_jax.models.norms import Norm
from score_jax.models.unet import check_unet
from score_jax.types import Array

CHOICES = {
    "block": ("biggan", "ddpm"),
    "embedding": ("fourier", "positional", "none"),
    "progressive_input": ("none", "input_skip", "residual"),
    "progressive": ("none", "output_skip", "residual"),
    "combine": ("sum", "cat"),
}


class NCSNpp(nn.Module):
    """A U-Net with the improvements of Song et al. 2021; NCSN++ for CIFAR-10 is the default.

    features, multipliers, blocks, attention, dropout, centered, outputs, remat: as in UNet;
    attention on the way up is once a level. block: residual blocks of "biggan", which also change
    the resolution, or of "ddpm", beside which convolutions do (means and repeated pixels where
    not resample_conv). fir: resolutions change through the filter [1, 3, 3, 1]. rescale: sums
    of two branches are divided by √2 (skip_rescale).
    progressive_input: the image at each lower resolution enters as well: "input_skip", halved
    and joined to the features by `combine` ("sum" or "cat"), or "residual", through convolutions
    that carry the features on. progressive: each resolution adds to the image on the way out:
    "output_skip", or "residual", through convolutions.
    embedding: how the noise level is told: "fourier", random features of it at the scale
    fourier_scale, "positional", or "none". classes, label_dropout: as in UNet; the class joins
    the noise level's features before their two layers (Karras et al. 2022, appendix F).

    NCSN++: the defaults, c = log σ: 62,758,915 parameters, 128 of which are the fixed random
    frequencies; deep: blocks = 8. DDPM++: embedding = "positional", fir = False,
    progressive_input = "none". Karras et al. 2022 take multipliers = (2, 2, 2) for both.
    The paper's division by σ is the parameterization's view = "scaled_score".
    Needs images whose sides divide by 2^(len(multipliers) - 1).
    """

    features: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 4
    attention: tuple[int, ...] = (16,)
    dropout: float = 0.1
    block: str = "biggan"
    resample_conv: bool = True
    fir: bool = True
    rescale: bool = True
    progressive_input: str = "residual"
    progressive: str = "none"
    combine: str = "sum"
    embedding: str = "fourier"
    fourier_scale: float = 16.0
    classes: int = 0
    label_dropout: float = 0.0
    centered: bool = True
    outputs: int = 1
    remat: bool = False

    @nn.compact
    def __call__(self, x, c, train=False, label=None):
        self.check(x.shape[1:])
        channels, last = self.outputs * x.shape[-1], len(self.multipliers) - 1
        embedding = self.embed(x, c, label, train)

        def residual(h, features, name, resample=None):
            options = dict(resample=resample, fir=self.fir, rescale=self.rescale)
            block = ResidualBlock(features, self.dropout, name=name, **options)
            return shared(block, h, embedding, remat=self.remat, train=train)

        def attend(h, name):
            return shared(Attention(rescale=self.rescale, name=name), h)

        def resample(h, way, name):
            if self.block == "biggan":
                return residual(h, h.shape[-1], name, way)
            return Resample(way, h.shape[-1] if self.resample_conv else None, self.fir, name=name)(
                h
            )

        image = x if self.centered else 2.0 * x - 1.0
        h = conv(self.features, name="stem")(image)
        skips = [h]
        for level, multiplier in enumerate(self.multipliers):
            for i in range(self.blocks):
                h = residual(h, multiplier * self.features, f"down_{level}_block_{i}")
                if h.shape[1] in self.attention:
                    h = attend(h, f"down_{level}_attention_{i}")
                skips.append(h)
            if level < last:
                h = resample(h, "down", f"down_{level}_resample")
                image, h = self.take_in(image, h, level)
                skips.append(h)

        h = residual(h, h.shape[-1], "middle_block_0")
        h = attend(h, "middle_attention")
        h = residual(h, h.shape[-1], "middle_block_1")

        image = None
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            for i in range(self.blocks + 1):
                h = jnp.concatenate([h, skips.pop()], -1)
                h = residual(h, multiplier * self.features, f"up_{level}_block_{i}")
            if h.shape[1] in self.attention:
                h = attend(h, f"up_{level}_attention_{self.blocks}")
            image, h = self.put_out(image, h, level, channels)
            if level > 0:
                h = resample(h, "up", f"up_{level}_resample")
        if self.progressive == "output_skip":
            return image
        return self.to_image(h, channels, "")

    def embed(self, x, c, label, train) -> Array | None:
        """[B, 4 features] that the residual blocks are told of noise level and class, or None."""
        if self.embedding == "none":
            return None
        if self.embedding == "fourier":
            h = FourierFeatures(self.features, self.fourier_scale, name="fourier")(c)
        else:
            h = sinusoidal(c, self.features)
        h = h.astype(x.dtype)
        if self.classes:
            label = no_class(x) if label is None else label
            table = LabelEmbedding(self.classes, h.shape[-1], self.label_dropout, name="label")
            h = h + table(label, train)
        h = dense(4 * self.features, name="embed_0")(h)
        return dense(4 * self.features, name="embed_1")(nn.swish(h))

    def take_in(self, image, h, level):
        """(the image at the next resolution, the features that know it)."""
        name = f"down_{level}_image"
        if self.progressive_input == "residual":
            image = Resample("down", h.shape[-1], self.fir, name=name)(image)
            image = h = residual_sum(image, h, self.rescale)
        elif self.progressive_input == "input_skip":
            image = RESAMPLE["down", self.fir](image)
            projected = dense(h.shape[-1], name=name)(image)
            cat = self.combine == "cat"
            h = jnp.concatenate([projected, h], -1) if cat else projected + h
        return image, h

    def put_out(self, image, h, level, channels):
        """(the image at this resolution, the features that go on); at first no image."""
        if self.progressive == "output_skip":
            here = self.to_image(h, channels, f"up_{level}_image_")
            image = here if image is None else RESAMPLE["up", self.fir](image) + here
        elif self.progressive == "residual":
            if image is None:
                image = self.to_image(h, h.shape[-1], f"up_{level}_image_", fan_avg_uniform)
            else:
                name = f"up_{level}_image"
                image = Resample("up", h.shape[-1], self.fir, name=name)(image)
                image = h = residual_sum(image, h, self.rescale)
        return image, h

    def to_image(self, h, channels, prefix, init=zeros):
        """h as an image of so many channels: norm, swish, 3x3."""
        h = Norm()(h.shape[-1], f"{prefix}out_norm", swish=True)(h)
        return conv(channels, init=init, name=f"{prefix}out")(h)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises UserError unless images of this shape [H, W, C] fit the network."""
        check_unet("ncsnpp", self, shape)
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise unknown(f"model.{name}", getattr(self, name), choices)
        if self.classes and self.embedding == "none":
            raise UserError(
                f"model.classes = {self.classes} needs model.embedding = 'fourier' or "
                "'positional': the class is told where the noise level is"
            )
