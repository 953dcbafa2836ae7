"""Pictures: grids of images and scatter plots, as PNG files. Matplotlib lives here only."""

import math
from pathlib import Path

import numpy as np
from PIL import Image

from score_jax.files import whole


def grid(images: np.ndarray, *, margin: int = 1) -> np.ndarray:
    """[N, H, W, C] uint8 as one near-square picture [.., .., 3], row by row, on gray."""
    n, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    tall, wide = height + margin, width + margin
    picture = np.full((rows * tall + margin, columns * wide + margin, 3), 96, np.uint8)
    for i, image in enumerate(images):
        top, left = margin + i // columns * tall, margin + i % columns * wide
        picture[top : top + height, left : left + width] = image  # gray becomes three channels
    return picture


def scatter(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The first two coordinates of samples [N, D] beside those of the data, as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for axis, x, title in zip(axes, (reference, points), ("data", "samples")):
        axis.scatter(x[:2000, 0], x[:2000, 1], s=3, alpha=0.5, linewidths=0)
        axis.set_title(title)
        axis.set_aspect("equal")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def picture(samples: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Samples as a picture [H, W, 3]: a grid for images, a scatter plot for points."""
    return grid(samples) if samples.ndim == 4 else scatter(samples, reference)


def save(picture: np.ndarray, path: Path, *, at_least: int = 512) -> None:
    """Writes a PNG whole or not at all; small pictures are enlarged by a whole factor."""
    factor = max(1, at_least // max(picture.shape[:2]))
    image = Image.fromarray(picture.repeat(factor, axis=0).repeat(factor, axis=1))
    with whole(path) as partial:
        image.save(partial)
