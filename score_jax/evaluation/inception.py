"""Inception-v3, the network whose features FID, KID and the Inception Score are measured in.

    features, logits = inception_features(params, images)      # [N, 2048], [N, 1008]

Szegedy et al. 2015 (arXiv 1512.00567), and to the number the TensorFlow graph of 2015-12-05
(classify_image_graph_def.pb), with which published figures are made. That graph has habits of its
own, and each moves the figures: images are resized without centering the pixels (`resize`), an
average pool at the border counts only what is inside, and the last block pools by maximum.

Batch norms are not here: at inference each is a factor and an offset of its convolution, into
whose weights it is multiplied when they are read (`inception_weights.py`). Names are PyTorch's.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from score_jax.parallel import join, over_examples, replicated, rounded_up, split
from score_jax.types import Array, Given

SIZE = 299  # pixels, both ways
FEATURES = 2048
CLASSES = 1008
EXACT = jax.lax.Precision.HIGHEST  # GPUs and TPUs would round the factors of a product


class Answer(NamedTuple):
    """What Inception says about images."""

    features: Given  # [B, 2048], the mean over the image of the last block: "pool_3"
    logits: Given  # [B, 1008], without bias


class Inception(nn.Module):
    """x [B, 299, 299, 3] in [-1, 1] -> Answer.

    The logits are the features times the last layer's matrix, without its bias, as the Inception
    Score takes them (Salimans et al. 2016, arXiv 1606.03498, whose code multiplies the graph's
    features by the graph's matrix).
    """

    @nn.compact
    def __call__(self, x):
        x = _conv(x, "Conv2d_1a_3x3", 32, 3, stride=2)
        x = _conv(x, "Conv2d_2a_3x3", 32, 3, padding="VALID")
        x = _conv(x, "Conv2d_2b_3x3", 64, 3)
        x = _conv(_halved(x), "Conv2d_3b_1x1", 80, 1)
        x = _conv(x, "Conv2d_4a_3x3", 192, 3, padding="VALID")
        x = MixedA(32, name="Mixed_5b")(_halved(x))
        x = MixedA(64, name="Mixed_5c")(x)
        x = MixedA(64, name="Mixed_5d")(x)
        x = MixedB(name="Mixed_6a")(x)
        x = MixedC(128, name="Mixed_6b")(x)
        x = MixedC(160, name="Mixed_6c")(x)
        x = MixedC(160, name="Mixed_6d")(x)
        x = MixedC(192, name="Mixed_6e")(x)
        x = MixedD(name="Mixed_7a")(x)
        x = MixedE(_mean_of_neighbors, name="Mixed_7b")(x)
        x = MixedE(_most_of_neighbors, name="Mixed_7c")(x)
        features = x.mean((1, 2))
        return Answer(
            features, nn.Dense(CLASSES, use_bias=False, precision=EXACT, name="fc")(features)
        )


class MixedA(nn.Module):
    """35 x 35 pixels: 224 + pooled channels."""

    pooled: int

    @nn.compact
    def __call__(self, x):
        return _side_by_side(
            _conv(x, "branch1x1", 64, 1),
            _chain(x, "branch5x5", (48, 1), (64, 5)),
            _chain(x, "branch3x3dbl", (64, 1), (96, 3), (96, 3)),
            _conv(_mean_of_neighbors(x), "branch_pool", self.pooled, 1),
        )


class MixedB(nn.Module):
    """From 35 to 17 pixels: 480 channels more."""

    @nn.compact
    def __call__(self, x):
        return _side_by_side(
            _conv(x, "branch3x3", 384, 3, stride=2),
            _chain(x, "branch3x3dbl", (64, 1), (96, 3), (96, 3), stride=2),
            _halved(x),
        )


class MixedC(nn.Module):
    """17 x 17 pixels: 768 channels. inner: channels between the long and narrow kernels."""

    inner: int

    @nn.compact
    def __call__(self, x):
        n, row, column = self.inner, (1, 7), (7, 1)
        twice = (n, 1), (n, column), (n, row), (n, column), (192, row)
        return _side_by_side(
            _conv(x, "branch1x1", 192, 1),
            _chain(x, "branch7x7", (n, 1), (n, row), (192, column)),
            _chain(x, "branch7x7dbl", *twice),
            _conv(_mean_of_neighbors(x), "branch_pool", 192, 1),
        )


class MixedD(nn.Module):
    """From 17 to 8 pixels: 512 channels more."""

    @nn.compact
    def __call__(self, x):
        seven = (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)
        return _side_by_side(
            _chain(x, "branch3x3", (192, 1), (320, 3), stride=2),
            _chain(x, "branch7x7x3", *seven, stride=2),
            _halved(x),
        )


class MixedE(nn.Module):
    """8 x 8 pixels: 2048 channels. pool: the mean in the first, the maximum in the last."""

    pool: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x):
        once = _conv(x, "branch3x3_1", 384, 1)
        twice = _chain(x, "branch3x3dbl", (448, 1), (384, 3))
        return _side_by_side(
            _conv(x, "branch1x1", 320, 1),
            _conv(once, "branch3x3_2a", 384, (1, 3)),
            _conv(once, "branch3x3_2b", 384, (3, 1)),
            _conv(twice, "branch3x3dbl_3a", 384, (1, 3)),
            _conv(twice, "branch3x3dbl_3b", 384, (3, 1)),
            _conv(self.pool(x), "branch_pool", 192, 1),
        )


def _conv(x, name, features, kernel, *, stride=1, padding=None):
    """A convolution, with a border of zeros where it keeps the size, and max(0, .)."""
    kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    padding = padding or ("SAME" if stride == 1 else "VALID")
    conv = nn.Conv(features, kernel, (stride, stride), padding, precision=EXACT, name=name)
    return nn.relu(conv(x))


def _chain(x, name, *layers, stride=1):
    """Convolutions one after the other, name_1, name_2, ...; the last has the stride."""
    for i, (features, kernel) in enumerate(layers, 1):
        x = _conv(x, f"{name}_{i}", features, kernel, stride=stride if i == len(layers) else 1)
    return x


def _side_by_side(*branches):
    return jnp.concatenate(branches, -1)


def _halved(x):
    return nn.max_pool(x, (3, 3), (2, 2))


def _mean_of_neighbors(x):
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def _most_of_neighbors(x):
    return nn.max_pool(x, (3, 3), (1, 1), "SAME")


def resize(x: Array, size: int) -> Array:
    """x [H, W, C] -> [size, size, C], bilinear, as TensorFlow 1's `resize_bilinear` did it.

        y_i = (1 - w) x_k + w x_min(k+1, H-1),   s = i H/size, k = ⌊s⌋, w = s - k

    and the same along W. Pixel i lies at i, not at i + 1/2 (so the picture moves by up to half a
    pixel), and where the image is made smaller nothing is averaged.
    """
    rows, columns = _interpolation(x.shape[0], size), _interpolation(x.shape[1], size)
    return jnp.einsum("ih,hwc,jw->ijc", rows, x, columns, precision=EXACT)


def _interpolation(n, size):
    """The matrix [size, n] of `resize` along one axis; positions are float32, as the graph's."""
    position = np.arange(size, dtype=np.float32) * np.float32(n / size)
    low = position.astype(int)
    high = np.minimum(low + 1, n - 1)
    weight = (position - low)[:, None]
    return (1.0 - weight) * np.eye(n)[low] + weight * np.eye(n)[high]


def scaled(x: Array) -> Array:
    """What the network is shown of a uint8 image [H, W, C], gray or RGB: [299, 299, 3] in [-1, 1].

    (x - 128) / 128, so white is 127/128. A gray image has the same number in all three channels.
    """
    x = (resize(x.astype(jnp.float32), SIZE) - 128.0) / 128.0
    return jnp.broadcast_to(x, (SIZE, SIZE, 3))


def inception_features(params, images: np.ndarray, *, batch: int = 32) -> Answer:
    """The features [N, 2048] and logits [N, 1008] of uint8 images [N, H, W, C], C = 1 or 3.

    params: of `inception_weights.read_inception`. batch: so many at a time, on all devices.
    Raises ValueError for what is not such images.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"expected uint8 images [N, H, W, 1 or 3], got {images.dtype} {list(images.shape)}"
        )
    size, found = rounded_up(min(batch, len(images))), []
    params, show, ask = replicated(params), _show(), _ask()
    for i in range(0, len(images), size):
        index = np.resize(np.arange(i, min(i + size, len(images))), size)  # the last is padded
        found.append(jax.tree.map(join, ask(params, show(None, split(images[index])))))
    return Answer(*(np.concatenate(part)[: len(images)] for part in zip(*found)))


# Two programs, so that images of another size do not compile the network again.


@functools.cache
def _show():
    return over_examples(lambda _, x: scaled(x))


@functools.cache
def _ask():
    ask = lambda params, x: Inception().apply({"params": params}, x[None])
    return over_examples(lambda params, x: jax.tree.map(lambda y: y[0], ask(params, x)))
