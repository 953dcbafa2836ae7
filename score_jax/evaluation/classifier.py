"""Features where no published network is at hand: those of a small classifier of the data set.

A distance in them is not FID, cannot be compared across data sets, and is always reported
beside the same distance for real against real images.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from score_jax.models.base import init_params
from score_jax.models.initializers import fan_avg_uniform, zeros
from score_jax.parallel import in_batches

FEATURES = 64


class Classifier(nn.Module):
    """x [B, H, W, C] in [-1, 1] -> (logits [B, K], features [B, 64], those of a hidden layer).

    Three convolutions, the last two of stride 2; then all of their numbers where they leave at
    most 64 pixels, as of 32x32, else the mean over the pixels; then the hidden layer.
    """

    classes: int

    @nn.compact
    def __call__(self, x, c=None):
        init = {"kernel_init": fan_avg_uniform, "bias_init": zeros}
        for features, stride in ((32, 1), (64, 2), (64, 2)):
            x = nn.relu(nn.Conv(features, (3, 3), (stride, stride), **init)(x))
        x = x.reshape(x.shape[0], -1) if x.shape[1] * x.shape[2] <= 64 else x.mean((1, 2))
        h = nn.relu(nn.Dense(FEATURES, **init)(x))
        return nn.Dense(self.classes, name="logits", **init)(h), h


def train_classifier(images: np.ndarray, labels: np.ndarray, *, seed: int = 0, steps: int = 1500):
    """The parameters of a Classifier of uint8 images [N, H, W, C], labels [N] from 0.

    Adam on batches of 128, its rate falling from 2e-3 to 0 by a cosine.
    """
    module = Classifier(int(labels.max()) + 1)
    params = init_params(module, jax.random.key(seed), images.shape[1:])
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

    def loss(params, x, y):
        logits, _ = module.apply({"params": params}, _scaled(x))
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def update(params, opt_state, x, y):
        updates, opt_state = optimizer.update(jax.grad(loss)(params, x, y), opt_state)
        return optax.apply_updates(params, updates), opt_state

    opt_state = optimizer.init(params)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        batch = rng.integers(len(images), size=128)
        params, opt_state = update(params, opt_state, images[batch], labels[batch])
    return jax.device_get(params)


def classifier_features(
    params, images: np.ndarray, *, batch: int = 500
) -> tuple[np.ndarray, np.ndarray]:
    """(features [N, 64], logits [N, K]) of uint8 images [N, H, W, C], `batch` at a time, on all
    devices."""
    return _ask(min(batch, len(images)))(params, images)


@functools.cache
def _ask(batch):
    def ask(params, x):
        module = Classifier(params["logits"]["bias"].size)
        answer: Any = module.apply({"params": params}, _scaled(x)[None])
        logits, features = answer
        return features[0], logits[0]

    return in_batches(ask, batch)


def _scaled(x):
    return x.astype(jnp.float32) / 127.5 - 1.0
