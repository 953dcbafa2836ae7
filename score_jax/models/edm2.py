"""EDM2's magnitude-preserving U-Net (Karras et al. 2024, arXiv 2312.02696), its config G."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_jax.errors import UserError
from score_jax.models.blocks import shared
from score_jax.models.embeddings import forgotten, no_class
from score_jax.models.initializers import drawn, zeros
from score_jax.models.layers import halved, repeated
from score_jax.models.unet import check_attention
from score_jax.types import Array

EPSILON = 1e-4  # keeps what is divided by a magnitude finite
SILU_MAGNITUDE = 0.596  # of silu(x) for x ~ N(0, 1)
LARGEST = 256.0  # activation after a block, for the sake of half precision (appendix D.2)
RESIDUAL_BALANCE = 0.3  # of a sum or concatenation: the share of its second part
ATTENTION_BALANCE = 0.3
LABEL_BALANCE = 0.5
SKIP_BALANCE = 0.5
normal = drawn(0.0, 1.0, "normal")


def unit(x: Array, axes: tuple[int, ...]) -> Array:
    """x over its magnitude √mean x² along these axes, found in float32 at least (equation 30)."""
    given, x = x.dtype, x.astype(jnp.promote_types(x.dtype, jnp.float32))
    magnitude = jnp.sqrt(jnp.mean(x * x, axes, keepdims=True))
    return (x / (magnitude + EPSILON)).astype(given)


def unit_kernel(kernel: Array) -> Array:
    """The kernel [..., in, out] with the weights of every output at magnitude 1."""
    return unit(kernel, tuple(range(kernel.ndim - 1)))


def mp_silu(x: Array) -> Array:
    """silu(x) at the magnitude of x, if that is 1 (equation 81)."""
    return nn.silu(x) / SILU_MAGNITUDE


def mp_sum(a: Array, b: Array, balance: float) -> Array:
    """(1 - t) a + t b at their common magnitude, t the balance (equation 88)."""
    return ((1.0 - balance) * a + balance * b) * (balance**2 + (1.0 - balance) ** 2) ** -0.5


def mp_cat(a: Array, b: Array, balance: float) -> Array:
    """a and b along the channels, however many each has at its share (equation 103)."""
    n, m = a.shape[-1], b.shape[-1]
    scale = ((n + m) / (balance**2 + (1.0 - balance) ** 2)) ** 0.5
    parts = a * (scale * (1.0 - balance) * n**-0.5), b * (scale * balance * m**-0.5)
    return jnp.concatenate(parts, axis=-1)


class Linear(nn.Module):
    """Convolution of size x size, without a bias, that keeps magnitudes (equation 47): the
    weights of every output are divided by their norm, then multiplied by the gain (104)."""

    features: int
    size: int = 1

    @nn.compact
    def __call__(self, x, gain=1.0):
        size = () if self.size == 1 else (self.size, self.size)
        shape = (*size, x.shape[-1], self.features)
        kernel = unit_kernel(self.param("kernel", normal, shape).astype(jnp.float32))
        fan_in = kernel.size / self.features
        kernel = (kernel * (gain * fan_in**-0.5)).astype(x.dtype)
        if self.size == 1:
            return x @ kernel
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


class Fourier(nn.Module):
    """[B] -> [B, features]: √2 cos 2π(f c + φ), f ~ N(0, 1) and φ ~ U(0, 1) (equation 75).

    f and φ are among the parameters, so that a checkpoint holds them, and are never trained.
    """

    features: int

    @nn.compact
    def __call__(self, c):
        f = self.param("frequencies", normal, (self.features,))
        phase = self.param("phases", drawn(0.5, 0.5, "uniform"), (self.features,))
        f, phase = jax.lax.stop_gradient((f, phase))
        return 2.0**0.5 * jnp.cos(2.0 * jnp.pi * (c[:, None] * f + phase))


class Attention(nn.Module):
    """Self-attention over the pixels, residual: cosine attention, in that each head's queries,
    keys and values are brought to unit magnitude first (appendix B.3)."""

    heads: int

    @nn.compact
    def __call__(self, x):
        batch, height, width, channels = x.shape
        h = Linear(3 * channels, name="qkv")(x)
        h = h.reshape(batch, height * width, 3, self.heads, channels // self.heads)
        h = unit(h, (-1,))
        h = jax.nn.dot_product_attention(h[:, :, 0], h[:, :, 1], h[:, :, 2])
        return mp_sum(x, Linear(channels, name="out")(h.reshape(x.shape)), ATTENTION_BALANCE)


class Block(nn.Module):
    """silu, conv; times what the embedding says; silu, dropout, conv; residual (figure 22).

    way: in a "decoder" block the shortcut changes the channels beside the convolutions; in an
    "encoder" block before them, and then every pixel is brought to unit magnitude. resample:
    "down" or "up", by a factor of 2 before all else. heads: of the attention at the end, 0 for
    none.
    """

    features: int
    way: str
    dropout: float
    resample: str = "keep"
    heads: int = 0

    @nn.compact
    def __call__(self, x, embedding, train):
        if self.resample != "keep":
            x = {"down": halved, "up": repeated}[self.resample](x)
        changed = x
        if x.shape[-1] != self.features:
            changed = Linear(self.features, name="shortcut")(x)
        if self.way == "encoder":
            x = changed = unit(changed, (-1,))

        h = Linear(self.features, 3, name="conv_1")(mp_silu(x))
        gain = self.param("embedding_gain", zeros, (1,))
        scale = 1.0 + Linear(self.features, name="embedding")(embedding, gain)
        h = mp_silu(h * scale[:, None, None])
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = Linear(self.features, 3, name="conv_2")(h)

        x = mp_sum(changed, h, RESIDUAL_BALANCE)
        x = Attention(self.heads, name="attention")(x) if self.heads else x
        return jnp.clip(x, -LARGEST, LARGEST)


class EDM2(nn.Module):
    """The U-Net of Karras et al. 2024, config G (figure 22), in which no operation changes the
    magnitude of what passes through it; EDM2-S for ImageNet-64 is the default.

    This is the raw network F of equation 4: it wants x as c_in x, of unit variance, and c as
    c_noise = log(σ)/4, and its answer is zero at first. The view "F" with the condition "edm"
    asks it so, and makes the denoiser of the answer. The uncertainty u(σ) of equation 21, which
    weighs the loss in training and is then thrown away, is no part of it.

    Weights are normalized each time they are used, and gradients go through that (equation 47),
    so their scale does not matter to the answer; and after each update they are stored back
    normalized (`normalized`, equation 66), without which they would grow and learn ever more
    slowly. Weights are of magnitude 1, so the learning rate is to be some 0.01 (table 6).

    features: channels at full resolution. multipliers: channels of each resolution, in
    features; the resolution halves between them. blocks: residual blocks a resolution (one
    more on the way up). attention: the resolutions (pixels a side) with self-attention after
    every block; the middle always has it. head_channels: channels of each head. classes: how
    many; 0 for none, and then label is ignored. label_dropout: how often a class is forgotten
    in training; 0 as published, where another network knows no classes. dropout: its rate, 0.1
    in the published networks with features = 256 and more. remat: what lies within a block is
    computed again for the gradient instead of being kept.

    Needs images whose sides divide by 2^(len(multipliers) - 1). 280,209,637 parameters at
    64x64x3 with 1,000 classes, the paper's 280.2 M (table 6); 384 of them are never trained.
    """

    features: int = 192
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    blocks: int = 3
    attention: tuple[int, ...] = (16, 8)
    head_channels: int = 64
    classes: int = 0
    label_dropout: float = 0.0
    dropout: float = 0.0
    remat: bool = False

    @nn.compact
    def __call__(self, x, c, train=False, label=None):
        self.check(x.shape[1:])
        embedding = self._embedding(c, label, train, x.dtype)

        def block(name, h, features, way, resample="keep", attends=False):
            heads = features // self.head_channels if attends else 0
            module = Block(features, way, self.dropout, resample, heads, name=name)
            return shared(module, h, embedding, remat=self.remat, train=train)

        h = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)
        h = Linear(self.features, 3, name="in")(h)
        skips = [h]
        for level, multiplier in enumerate(self.multipliers):
            if level > 0:
                h = block(f"down_{level}", h, h.shape[-1], "encoder", "down")
                skips.append(h)
            attends = h.shape[1] in self.attention
            for i in range(self.blocks):
                name = f"down_{level}_block_{i}"
                h = block(name, h, multiplier * self.features, "encoder", attends=attends)
                skips.append(h)

        h = block("middle_1", h, h.shape[-1], "decoder", attends=True)
        h = block("middle_2", h, h.shape[-1], "decoder")

        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            attends = h.shape[1] in self.attention
            for i in range(self.blocks + 1):
                name = f"up_{level}_block_{i}"
                h = mp_cat(h, skips.pop(), SKIP_BALANCE)
                h = block(name, h, multiplier * self.features, "decoder", attends=attends)
            if level > 0:
                h = block(f"up_{level}", h, h.shape[-1], "decoder", "up")

        gain = self.param("out_gain", zeros, (1,))
        return Linear(x.shape[-1], 3, name="out")(h, gain)

    def _embedding(self, c, label, train, dtype):
        """[B, width] of the noise level and the class; no class is a vector of zeros."""
        width = self.features * max(self.multipliers)
        features = Fourier(self.features, name="fourier")(c).astype(dtype)
        embedding = Linear(width, name="noise")(features)
        if self.classes:
            label = no_class(c) if label is None else label
            label = forgotten(self, label, self.label_dropout if train else 0.0)
            one_hot = self.classes**0.5 * jax.nn.one_hot(label, self.classes, dtype=dtype)
            embedding = mp_sum(embedding, Linear(width, name="label")(one_hot), LABEL_BALANCE)
        return mp_silu(embedding)

    @staticmethod
    def normalized(params: dict) -> dict:
        """The parameters with every kernel stored at magnitude 1: forced weight normalization
        (section 2.3, equation 66), which training applies after each update.

        The network's answer stays what it is, but for EPSILON.
        """
        force = lambda path, leaf: unit_kernel(leaf) if path[-1].key == "kernel" else leaf
        return jax.tree_util.tree_map_with_path(force, params)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises UserError unless images of this shape [H, W, C] fit the network."""
        for name in ("features", "multipliers", "blocks", "head_channels"):
            value = getattr(self, name)
            if not value or (min(value) if name == "multipliers" else value) < 1:
                raise UserError(f"model.{name} must be at least 1, got {value}")
        for name in ("dropout", "label_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"model.{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.classes < 0:
            raise UserError(f"model.classes must be at least 0, got {self.classes}")
        factor = 2 ** (len(self.multipliers) - 1)
        if len(shape) != 3 or shape[0] % factor or shape[1] % factor:
            raise UserError(
                f"model edm2 with {len(self.multipliers)} multipliers needs images [H, W, C] "
                f"whose sides divide by {factor}, got {tuple(shape)}; use fewer multipliers, "
                "or set data.size"
            )
        check_attention(self, shape)
        last = len(self.multipliers) - 1
        for level, multiplier in enumerate(self.multipliers):
            attends = level == last or shape[0] // 2**level in self.attention
            if attends and multiplier * self.features % self.head_channels:
                raise UserError(
                    f"model.head_channels = {self.head_channels} must divide the channels that "
                    f"have attention, and {multiplier * self.features} is one such number"
                )
