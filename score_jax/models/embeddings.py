"""Embeddings of the noise level and of the class."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_jax.models.initializers import drawn, fan_avg_uniform
from score_jax.types import Array


def sinusoidal(
    c: Array, width: int, max_period: float = 10_000.0, *, endpoint: bool = True
) -> Array:
    """[B] -> [B, width]: sin and cos of c at width/2 frequencies, 1 down to 1/max_period.

    Vaswani et al. 2017, section 3.5, in the form of Ho et al. 2020's code: all sines, then
    all cosines. width: even and at least 4. endpoint: whether the last frequency is 1/max_period
    itself, or would be the next one (ADM, DiT).
    """
    half = width // 2
    frequencies = jnp.exp(-jnp.log(max_period) * jnp.arange(half) / (half - endpoint))
    angles = c[:, None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class FourierFeatures(nn.Module):
    """[B] -> [B, 2 * features]: sin and cos of 2π W c, W ~ N(0, scale²) once and for all.

    Tancik et al. 2020 (arXiv 2006.10739); Song et al. 2021, appendix H. W is among the
    parameters, so that a checkpoint holds it, and is never trained.
    """

    features: int
    scale: float = 16.0

    @nn.compact
    def __call__(self, c):
        w = self.param("frequencies", drawn(0.0, self.scale, "normal"), (self.features,))
        angles = 2.0 * jnp.pi * c[:, None] * jax.lax.stop_gradient(w)
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def no_class(x: Array) -> Array:
    """[B] labels of a batch x that say nothing."""
    return jnp.full(x.shape[:1], -1, jnp.int32)


def forgotten(module: nn.Module, label: Array, rate: float) -> Array:
    """The labels, each made -1 with probability rate by the module's dropout key."""
    if rate == 0.0:
        return label
    forget = jax.random.bernoulli(module.make_rng("dropout"), rate, label.shape)
    return jnp.where(forget, -1, label)


class LabelEmbedding(nn.Module):
    """[B] -> [B, features]: a vector for each class; that of no class, -1, is zero.

    dropout: how often a class is forgotten in training, so that the network also learns to do
    without (Ho & Salimans 2022, arXiv 2207.12598, algorithm 1). null: no class has a vector of
    its own as well, the last row (DiT).
    """

    classes: int
    features: int
    dropout: float = 0.0
    init: Callable[..., Any] = fan_avg_uniform
    null: bool = False

    @nn.compact
    def __call__(self, label, train):
        label = forgotten(self, label, self.dropout if train else 0.0)
        if self.null:
            label = jnp.where(label < 0, self.classes, label)
        rows = self.classes + self.null
        table = self.param("table", self.init, (rows, self.features))
        return jax.nn.one_hot(label, rows, dtype=table.dtype) @ table
