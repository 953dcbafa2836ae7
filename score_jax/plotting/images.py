"""Images as pictures [H, W, 3] uint8: grids, strips, PNG files, animations."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from score_jax.errors import UserError
from score_jax.files import whole

MARGIN = 4  # pixels between images
GRAY = 96


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


def strip(images: np.ndarray) -> np.ndarray:
    """[T, N, H, W, C] uint8, N images at T times, as one picture: a row an image, a column a time.

    Of x_t on the way to noise it shows the forward process, of a sampler's states the reverse.
    """
    times, n, *shape = images.shape
    return grid(images.swapaxes(0, 1).reshape(times * n, *shape), columns=times)


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
    """The width in a grid, in pixels, of an image [H, W, C] of this shape."""
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


def save(picture: np.ndarray, path: Path) -> None:
    """Writes a picture [H, W, 3] uint8 as a PNG, whole or not at all."""
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


def animate(pictures: Sequence[np.ndarray], path: Path, *, seconds: float = 4.0) -> None:
    """Pictures [H, W, 3] one after the other, for ever, as an animated PNG or GIF.

    path: its suffix, .png or .gif, says which. Of a GIF's 256 colors all pictures share one set.
    seconds: how long one turn takes; the last picture stands for a quarter of it longer.

    Raises UserError for another suffix, no pictures, or pictures of different sizes.
    """
    path = Path(path)
    formats = {".png": "PNG", ".gif": "GIF"}
    if path.suffix not in formats:
        raise UserError(f"an animation is a .png or a .gif file, got {path.name}")
    if len({picture.shape for picture in pictures}) != 1:
        raise UserError(
            "an animation needs one or more pictures, all of one size, got "
            f"{sorted({picture.shape for picture in pictures})}"
        )
    each = 750 * seconds / len(pictures)
    frames = [Image.fromarray(picture) for picture in pictures]
    if path.suffix == ".gif":
        palette = Image.fromarray(np.concatenate(pictures)).quantize(256)
        frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with whole(path) as partial:
        frames[0].save(
            partial,
            format=formats[path.suffix],
            save_all=True,
            append_images=frames[1:],
            duration=[each] * (len(frames) - 1) + [each + 250 * seconds],
            loop=0,
        )
