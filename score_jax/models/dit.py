"""DiT, a transformer on patches (Peebles & Xie 2023, arXiv 2212.09748)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from score_jax.errors import UserError
from score_jax.models.blocks import shared
from score_jax.models.embeddings import LabelEmbedding, no_class, sinusoidal
from score_jax.models.initializers import drawn, fan_avg_uniform, zeros
from score_jax.models.layers import dense

FREQUENCIES = 256  # width of the sinusoidal embedding of the timestep
small_normal = drawn(0.0, 0.02, "normal")


def layer_norm(name: str):
    """LayerNorm without parameters, ε = 1e-6."""
    return nn.LayerNorm(
        epsilon=1e-6, use_bias=False, use_scale=False, use_fast_variance=False, name=name
    )


def modulated(x, shift, scale):
    """x (1 + scale) + shift, of patches x [B, N, width] by shift and scale [B, width]."""
    return x * (1.0 + scale[:, None]) + shift[:, None]


def position_embedding(height: int, width: int, features: int) -> np.ndarray:
    """[height * width, features]: the first half tells the column, the second the row.

    Each half: sines, then cosines, of the index at features/4 frequencies 1 down to 1/10,000,
    the last one left out (Vaswani et al. 2017, section 3.5, for each axis).
    """
    frequencies = 10_000.0 ** -(np.arange(features // 4) / (features // 4))
    row, column = (index.reshape(-1, 1) * frequencies for index in np.indices((height, width)))
    parts = np.sin(column), np.cos(column), np.sin(row), np.cos(row)
    return np.concatenate(parts, axis=1).astype(np.float32)


class Block(nn.Module):
    """Self-attention, then an MLP, each on a LayerNorm that the condition shifts and scales and
    each behind a gate that the condition opens, shut at first (adaLN-Zero, section 3.2)."""

    heads: int
    mlp_ratio: float

    @nn.compact
    def __call__(self, x, condition):
        batch, patches, width = x.shape
        modulation = dense(6 * width, init=zeros, name="modulation")(nn.swish(condition))
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = jnp.split(modulation, 6, axis=-1)

        h = modulated(layer_norm("norm_1")(x), shift_1, scale_1)
        h = dense(3 * width, name="qkv")(h)
        h = h.reshape(batch, patches, 3, self.heads, width // self.heads)
        h = jax.nn.dot_product_attention(h[:, :, 0], h[:, :, 1], h[:, :, 2])
        h = dense(width, name="attention_out")(h.reshape(x.shape))
        x = x + gate_1[:, None] * h

        h = modulated(layer_norm("norm_2")(x), shift_2, scale_2)
        h = nn.gelu(dense(int(self.mlp_ratio * width), name="mlp_1")(h), approximate=True)
        return x + gate_2[:, None] * dense(width, name="mlp_2")(h)


class DiT(nn.Module):
    """The diffusion transformer with adaLN-Zero blocks (section 3); DiT-XL/2 is the default.

    Patches of the image, a row each, with fixed embeddings of their place added, go through
    blocks that the noise level and the class modulate. The answer is zero at first. c is the
    timestep 0 .. 999, fractional between steps.

    width: features of a patch. depth: blocks. heads: of width/heads features each. patch: its
    side in pixels. mlp_ratio: hidden features of a block's MLP, in widths. classes: their
    number; 0 for none, and then label is ignored. label_dropout: how often a class is forgotten
    in training; where positive, the lack of a class has a learned vector too, as published, else
    a vector of zeros. outputs: how many numbers are put out for each of x: 2 with learned
    variances, as published, else 1. remat: what lies within a block is computed again for the
    gradient instead of being kept.

    Takes images as they are given, whose sides divide by patch. On latents of 32x32x4 with 1,000
    classes and outputs = 2 it has 674,834,720 parameters, the paper's 675 M.
    """

    width: int = 1152
    depth: int = 28
    heads: int = 16
    patch: int = 2
    mlp_ratio: float = 4.0
    classes: int = 0
    label_dropout: float = 0.1
    outputs: int = 1
    remat: bool = False

    @nn.compact
    def __call__(self, x, c, train=False, label=None):
        self.check(x.shape[1:])
        batch, height, width, channels = x.shape
        rows, columns, side = height // self.patch, width // self.patch, self.patch

        condition = sinusoidal(c, FREQUENCIES, endpoint=False).astype(x.dtype)
        condition = nn.swish(dense(self.width, small_normal, name="time_1")(condition))
        condition = dense(self.width, small_normal, name="time_2")(condition)
        if self.classes:
            embed = LabelEmbedding(
                self.classes,
                self.width,
                self.label_dropout,
                init=small_normal,
                null=self.label_dropout > 0.0,
                name="label",
            )
            label = no_class(x) if label is None else label
            condition = condition + embed(label, train)

        h = x.reshape(batch, rows, side, columns, side, channels).swapaxes(2, 3)
        h = h.reshape(batch, rows * columns, side * side * channels)
        h = dense(self.width, fan_avg_uniform, name="patches")(h)
        h = h + position_embedding(rows, columns, self.width).astype(x.dtype)

        for i in range(self.depth):
            block = Block(self.heads, self.mlp_ratio, name=f"block_{i}")
            h = shared(block, h, condition, remat=self.remat)

        modulation = dense(2 * self.width, init=zeros, name="out_modulation")(nn.swish(condition))
        h = modulated(layer_norm("out_norm")(h), *jnp.split(modulation, 2, axis=-1))
        h = dense(side * side * self.outputs * channels, init=zeros, name="out")(h)
        h = h.reshape(batch, rows, columns, side, side, self.outputs * channels)
        return h.swapaxes(2, 3).reshape(batch, height, width, self.outputs * channels)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises UserError unless images of this shape [H, W, C] fit the network."""
        for name in ("width", "depth", "heads", "patch", "outputs"):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name} must be at least 1, got {getattr(self, name)}")
        if self.width % 4:
            raise UserError(
                f"model.width must divide by 4 for the embedding of places, got {self.width}"
            )
        if self.width % self.heads:
            raise UserError(f"model.heads must divide model.width = {self.width}, got {self.heads}")
        if not self.mlp_ratio * self.width >= 1:
            raise UserError(
                f"model.mlp_ratio must leave at least one feature, got {self.mlp_ratio}"
            )
        if self.classes < 0:
            raise UserError(f"model.classes must be at least 0, got {self.classes}")
        if not 0.0 <= self.label_dropout < 1.0:
            raise UserError(f"model.label_dropout must lie in [0, 1), got {self.label_dropout}")
        if len(shape) != 3 or shape[0] % self.patch or shape[1] % self.patch:
            raise UserError(
                f"model dit with patches of {self.patch}x{self.patch} needs images [H, W, C] "
                f"whose sides divide by {self.patch}, got {tuple(shape)}; choose another "
                "model.patch, or set data.size"
            )
