"""Your own images: a folder of PNG and JPEG files."""

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from score_jax.data.base import Dataset, checked, is_there
from score_jax.errors import UserError, shortened
from score_jax.limits import check_memory

SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_PIXELS = 100_000_000  # a larger image is refused: a few bytes can claim gigabytes


def folder(
    *,
    path: str,
    size: int,
    channels: int = 3,
    crop: int | None = None,
    by_class: bool = False,
) -> Dataset:
    """Every PNG and JPEG below `path`, center-cropped to a square and resized to `size`.

    Resizing is Pillow's antialiased bicubic. Files are taken in the order of their paths,
    hidden ones and links left out. channels: 3 for RGB, 1 for gray. crop: the square's side in
    pixels (CelebA: 140), or the image's shorter one. by_class: the first
    folder below `path` names the class (labels in alphabetical order).
    Raises UserError for a missing or empty folder, for a file that is no whole image, or one of
    more than 8 bits a channel or 100 megapixels, smaller than crop, or in no class's folder.
    """
    root = Path(path)
    if not is_there(root, Path.is_dir):
        raise UserError(f"data.path: no folder {shortened(path)} (looked in {Path.cwd()})")
    if size < 1 or channels not in (1, 3):
        raise UserError(f"expected size >= 1 and channels 1 or 3, got {size} and {channels}")
    if crop is not None and crop < 1:
        raise UserError(f"data.crop must be at least 1, got {crop}")
    files = sorted(_image_files(root))
    if not files:
        raise UserError(f"{root}: no {', '.join(SUFFIXES)} file in this folder or below it")
    needed = 2 * len(files) * size**2 * channels  # while they are stacked
    check_memory(f"{len(files):,} images of config.data.size = {size}", needed, "make them smaller")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is ours
        images = np.stack([_read(file, size, channels, crop) for file in files])
    labels = _class_labels(root, files) if by_class else None
    return checked(Dataset(root.resolve().name, images, labels))


def _image_files(root: Path):
    for here, folders, names in os.walk(root, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = Path(here, name)
            if name.lower().endswith(SUFFIXES) and name[0] != "." and not file.is_symlink():
                yield file


def _read(file: Path, size: int, channels: int, crop: int | None) -> np.ndarray:
    try:
        with Image.open(file, formats=("PNG", "JPEG")) as file_image:
            width, height = file_image.size
            if width * height > MAX_PIXELS:
                raise UserError(f"{file}: {width}x{height} is more than {MAX_PIXELS:,} pixels")
            if file_image.mode.startswith(("I", "F")):  # Pillow would clip them to 255
                raise UserError(f"{file}: more than 8 bits a channel; save it with 8")
            image = file_image.convert("RGB" if channels == 3 else "L")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{file}: not a whole PNG or JPEG image ({error})") from error
    side = min(width, height) if crop is None else crop
    if side > min(width, height):
        raise UserError(f"{file}: {width}x{height} is smaller than config.data.crop = {crop}")
    left, top = (width - side) // 2, (height - side) // 2
    # Cropped first: `resize(box=...)` would mix in what lies just outside the box.
    image = image.crop((left, top, left + side, top + side))
    image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image, np.uint8).reshape(size, size, channels)


def _class_labels(root: Path, files: list[Path]) -> np.ndarray:
    parts = [file.relative_to(root).parts for file in files]
    loose = [file for file, part in zip(files, parts) if len(part) < 2]
    if loose:
        raise UserError(f"data.by_class: {loose[0]} lies in no class folder below {root}")
    names = sorted({part[0] for part in parts})
    return np.array([names.index(part[0]) for part in parts], np.int32)
