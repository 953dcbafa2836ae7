"""Pictures: grids of images and scatter plots, as PNG files. Matplotlib lives here only."""

import math
from pathlib import Path

import numpy as np
from PIL import Image

from score_jax.files import whole

MARGIN = 4  # pixels between images
GRAY = 96
MOST_POINTS = 2000  # of a scatter plot, on each side


def grid(images: np.ndarray, *, columns: int | None = None) -> np.ndarray:
    """[N, H, W, C] uint8 as one picture [.., .., 3], row by row, on gray.

    columns: how many stand in a row; near-square unless given.

    Images under 64 pixels are enlarged by a whole factor, with bicubic interpolation: an eye
    reads an 8x8 digit better so than as 64 squares.
    """
    images = np.stack([_enlarged(image) for image in images])
    n, height, width, _ = images.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else columns
    rows = math.ceil(n / columns)
    tall, wide = height + MARGIN, width + MARGIN
    picture = np.full((rows * tall + MARGIN, columns * wide + MARGIN, 3), GRAY, np.uint8)
    for i, image in enumerate(images):
        top, left = MARGIN + i // columns * tall, MARGIN + i % columns * wide
        picture[top : top + height, left : left + width] = image
    return picture


def images_in(picture: np.ndarray, shape: tuple[int, int, int]) -> int | None:
    """How many images [H, W, C] of this shape `grid` put in a picture; None if it made it not.

    What is gray all over behind the last image is an empty place.
    """
    tall, wide = (_factor(shape) * size + MARGIN for size in shape[:2])
    (rows, above), (columns, beside) = (
        divmod(size - MARGIN, place) for size, place in zip(picture.shape, (tall, wide))
    )
    if above or beside or not (rows and columns):
        return None
    places = picture[MARGIN:, MARGIN:].reshape(rows, tall, columns, wide, -1)
    full = (places != GRAY).any(axis=(1, 3, 4)).ravel()
    return int(np.flatnonzero(full)[-1]) + 1 if full.any() else None


def side(shape: tuple[int, int, int]) -> int:
    """The width in a grid of an image [H, W, C] of this shape."""
    return _factor(shape) * shape[1]


def _factor(shape):
    """The largest whole factor that keeps both sides within 64 pixels, or 1."""
    return max(1, 64 // max(shape[:2]))


def _enlarged(image: np.ndarray) -> np.ndarray:
    """[H, W, C] as RGB, enlarged by its factor."""
    height, width, _ = image.shape
    factor = _factor(image.shape)
    rgb = Image.fromarray(np.broadcast_to(image, (height, width, 3)))
    size = (factor * width, factor * height)
    return np.asarray(rgb.resize(size, Image.Resampling.BICUBIC) if factor > 1 else rgb)


def scatter(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The first two coordinates of samples [N, D] beside those of the data, as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for axis, x, title in zip(axes, (reference, points), ("data", "samples")):
        axis.scatter(x[:MOST_POINTS, 0], x[:MOST_POINTS, 1], s=3, alpha=0.5, linewidths=0)
        axis.set_title(title)
        axis.set_aspect("equal")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def picture(samples: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Samples as a picture [H, W, 3]: a grid for images, a scatter plot for points."""
    return grid(samples) if samples.ndim == 4 else scatter(samples, reference)


def save(picture: np.ndarray, path: Path) -> None:
    """Writes a PNG whole or not at all."""
    with whole(path) as partial:
        Image.fromarray(picture).save(partial)


def save_all(images: np.ndarray, folder: Path) -> None:
    """Images [N, H, W, C] uint8 as folder/000000.png and so on, and no others of such names."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        with whole(folder / f"{i:06d}.png") as partial:
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(partial)
    for old in folder.glob("[0-9]" * 6 + ".png"):
        if int(old.stem) >= len(images):
            old.unlink()


def curves(
    panels: dict[str, dict[str, list[tuple[float, float]]]], x_label: str, y_label: str
) -> np.ndarray:
    """Lines on logarithmic axes, {panel: {line: [(x, y), ...]}}, as a picture [H, W, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    columns = min(4, math.ceil(math.sqrt(len(panels))))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(3.6 * columns + 2.4, 3.2 * rows), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axis, (title, lines) in zip(axes, panels.items()):
        for i, (name, points) in enumerate(lines.items()):
            style = dict(color=f"C{i % 10}", linestyle="-" if i < 10 else "--", marker=".")
            axis.loglog(*zip(*sorted(points)), label=name, **style)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_title(title)
        axis.grid(alpha=0.3)
    for axis in axes[len(panels) :]:
        axis.remove()
    figure.supxlabel(x_label)
    figure.supylabel(y_label)
    named = dict(pair[::-1] for axis in axes for pair in zip(*axis.get_legend_handles_labels()))
    figure.legend(named.values(), named.keys(), loc="outside right upper")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
