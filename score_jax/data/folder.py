"""Your own images: a folder of PNG, JPEG and WebP files."""

import os
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from score_jax.data.base import Dataset, checked, is_there
from score_jax.errors import UserError, shortened
from score_jax.limits import check_memory

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")  # Pillow's other decoders are never fed
# Pictures by their names, which we do not read.
OTHERS = tuple(
    ".heic .heif .avif .jxl .gif .tif .tiff .bmp .dng .cr2 .cr3 .nef .arw .raf .rw2 .orf".split()
)
MAX_PIXELS = 100_000_000  # a larger image is refused: a few bytes can claim gigabytes


def folder(
    *,
    path: str,
    size: int,
    channels: int = 3,
    crop: int | None = None,
    by_class: bool = False,
) -> Dataset:
    """Every PNG, JPEG and WebP below `path`, center-cropped to a square and resized to `size`.

    Photos are turned as their EXIF orientation says; of what is animated the first picture counts.
    Resizing is Pillow's antialiased bicubic. Files are taken in the order of their paths,
    hidden ones and links left out. channels: 3 for RGB, 1 for gray. crop: the square's side in
    pixels (CelebA: 140), or the image's shorter one. by_class: the first
    folder below `path` names the class (labels in alphabetical order).
    Says how many images are enlarged, and how many are left out since they are of another type.
    Raises UserError for a missing or empty folder and for a file that is no whole image.
    """
    root = Path(path)
    _check_folder(path, root)
    if size < 1 or channels not in (1, 3):
        raise UserError(f"expected size >= 1 and channels 1 or 3, got {size} and {channels}")
    if crop is not None and crop < 1:
        raise UserError(f"data.crop must be at least 1, got {crop}")
    found = sorted(_files(root))
    files = [file for file in found if file.suffix.lower() in SUFFIXES]
    others = Counter(file.suffix.lower() for file in found)
    for suffix in SUFFIXES:
        del others[suffix]
    if not files:
        raise UserError(
            f"{root}: no {', '.join(SUFFIXES)} file in this folder or below it{_counts(others)}"
        )
    pictures = Counter({suffix: n for suffix, n in others.items() if suffix in OTHERS})
    if pictures:
        print(f"{root}: only PNG, JPEG and WebP are read{_counts(pictures)}", flush=True)
    needed = 2 * len(files) * size**2 * channels  # while they are stacked
    check_memory(f"{len(files):,} images of config.data.size = {size}", needed, "make them smaller")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is ours
        images, sides = zip(*(_read(file, size, channels, crop) for file in files))
    _say_enlarged(root, np.array(sides), size)
    labels = _class_labels(root, files) if by_class else None
    return checked(Dataset(root.resolve().name, np.stack(images), labels))


def _check_folder(path: str, root: Path) -> None:
    if is_there(root, Path.is_dir):
        return
    if not is_there(root, Path.is_file):
        raise UserError(
            f"data.path: no folder {shortened(path)} (looked in {Path.cwd()}); "
            "give yours: --config.data.path=<folder>"
        )
    if root.suffix.lower() in (".npy", ".npz"):
        instead = "data.name = 'array' takes it"
    elif root.suffix.lower() in (*SUFFIXES, *OTHERS):
        instead = f"give the folder it lies in, data.path = {shortened(str(root.parent))}"
    else:
        instead = "data.name = 'array' takes .npy and .npz files"
    raise UserError(
        f"data.path: {shortened(path)} is a file, and data.name = 'folder' takes a folder of "
        f"images; {instead}"
    )


def _files(root: Path):
    """Every file below the folder but hidden ones and links."""
    for here, folders, names in os.walk(root, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = Path(here, name)
            if name[0] != "." and not file.is_symlink():
                yield file


def _counts(others: Counter[str]) -> str:
    """What else lies there, and how pictures of the commonest other type become readable."""
    if not others:
        return ""
    most = others.most_common(5)
    said = ", ".join(f"{n:,} {shortened(suffix, 20) or 'without a suffix'}" for suffix, n in most)
    text = f"; found {said}{', ...' if len(others) > 5 else ''}"
    pictures = [suffix for suffix, _ in others.most_common() if suffix in OTHERS]
    if pictures:
        text += f". To convert them, with ImageMagick: magick mogrify -format jpg *{pictures[0]}"
    return text


def _say_enlarged(root: Path, sides: np.ndarray, size: int) -> None:
    """sides: of the squares that were made `size` pixels wide."""
    if np.any(sides < size):
        print(
            f"{root}: {np.sum(sides < size):,} of {len(sides):,} images are smaller than "
            f"config.data.size = {size} and are enlarged; the smallest has a side of "
            f"{sides.min()} pixels",
            flush=True,
        )


def _read(file: Path, size: int, channels: int, crop: int | None) -> tuple[np.ndarray, int]:
    """(the image, the side in pixels of the square that it was made of)."""
    try:
        with Image.open(file, formats=FORMATS) as file_image:
            width, height = file_image.size
            if width * height > MAX_PIXELS:
                raise UserError(f"{file}: {width}x{height} is more than {MAX_PIXELS:,} pixels")
            if file_image.mode.startswith(("I", "F")):  # Pillow would clip them to 255
                raise UserError(f"{file}: more than 8 bits a channel; save it with 8")
            image = _upright(file_image.convert("RGB" if channels == 3 else "L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{file}: not a whole PNG, JPEG or WebP image ({error})") from error
    width, height = image.size
    side = min(width, height) if crop is None else crop
    if side > min(width, height):
        raise UserError(f"{file}: {width}x{height} is smaller than config.data.crop = {crop}")
    left, top = (width - side) // 2, (height - side) // 2
    # Cropped first: `resize(box=...)` would mix in what lies just outside the box.
    image = image.crop((left, top, left + side, top + side))
    image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image, np.uint8).reshape(size, size, channels), side


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as the camera was held; as it is stored where its EXIF is damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises half a dozen kinds
        return image


def _class_labels(root: Path, files: list[Path]) -> np.ndarray:
    parts = [file.relative_to(root).parts for file in files]
    loose = [file for file, part in zip(files, parts) if len(part) < 2]
    if loose:
        raise UserError(f"data.by_class: {loose[0]} lies in no class folder below {root}")
    names = sorted({part[0] for part in parts})
    return np.array([names.index(part[0]) for part in parts], np.int32)
