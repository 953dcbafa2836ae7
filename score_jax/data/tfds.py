"""Images of TensorFlow Datasets (TFDS), without TensorFlow.

    data = tfds_images(dataset="cifar10", split="train")
    data.examples          # [50000, 32, 32, 3] uint8, read from a file as needed
    data.labels            # [50000] int32

A data set that is not yet in `data_dir` is downloaded and prepared there by its official
builder, which checks the checksums. It is then decoded once, into `cache_dir`.
"""

import difflib
import functools
import hashlib
import io
import itertools
import math
import os
import shutil
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from score_jax.data.base import Dataset, checked
from score_jax.data.tfds_without_tf import impatient_downloads, quiet, tensorflow_stand_in
from score_jax.errors import UserError, unknown
from score_jax.files import whole

_CHUNK = 256  # records read at a time


def tfds_images(
    *,
    dataset: str,
    split: str = "train",
    data_dir: str | None = None,
    cache_dir: str | None = None,
) -> Dataset:
    """All images of one split, and their labels where the data set has integer labels.

    dataset: a name of TFDS, such as "mnist", "emnist/letters" or, for a version, "mnist:3.0.1".
    split: a split or a slice of one, such as "train" or "train[:1000]".
    data_dir: where prepared data sets lie; by default TFDS' own choice ($TFDS_DATA_DIR or
        ~/tensorflow_datasets).
    cache_dir: where decoded arrays are kept; by default ~/.cache/score_jax (in
        $XDG_CACHE_HOME where that is set).

    Raises UserError for a name or split that does not exist, a data set without 8-bit gray
    or RGB images of one size, one that can be neither found nor downloaded, one that is damaged or
    not in array_record form, and a cache without room.
    """
    with quiet():
        builder = _prepared(dataset, data_dir)
        source = _source(builder, split)
        cache = _cache(cache_dir, builder, split, len(source))
        data = _load(cache, builder) or _decode(cache, builder, source)
    return checked(Dataset(f"{dataset}/{split}", *data))


def image_shape(dataset: str, data_dir: str | None = None) -> tuple[int, int, int]:
    """The shape of the data set's images, which need not be there; a side that differs is None.

    Raises UserError for a name that does not exist and for a data set without such images.
    """
    with quiet():
        builder = _builder(dataset, data_dir)
        _check_features(builder)
        return tuple(builder.info.features["image"].shape)


def _prepared(dataset: str, data_dir: str | None):
    """The builder of a data set that lies ready in data_dir, in array_record form."""
    builder = _builder(dataset, data_dir)
    _check_features(builder)
    if not builder.data_path.exists():
        _prepare(builder)
        builder = _builder(dataset, data_dir)
    if not builder.is_prepared():
        raise UserError(
            f"{builder.data_path} is not a complete data set of TFDS: delete or complete it"
        )
    forms = {form.value for form in builder.info.available_file_formats()}
    if "array_record" not in forms:
        raise UserError(
            f"{builder.data_path} is in {', '.join(sorted(forms))} form, which needs TensorFlow; "
            "name another data_dir, and an array_record copy will be prepared there"
        )
    return builder


def _builder(dataset: str, data_dir: str | None):
    import tensorflow_datasets as tfds

    data_dir = data_dir and os.path.expanduser(data_dir)
    try:
        with tensorflow_stand_in():
            return tfds.builder(dataset, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        names = tfds.list_builders(with_community_datasets=False)
        near = difflib.get_close_matches(dataset, names, n=5)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise UserError(f"TFDS has no data set {dataset!r}.{hint}") from error
    # A wrong version or config, a package that the builder needs, or whatever it raises.
    except Exception as error:
        raise UserError(f"TFDS cannot open the data set {dataset!r}: {error}") from error


def _check_features(builder) -> None:
    """Raises UserError unless the data set has images that a Dataset can hold."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    names = list(features.keys()) if isinstance(features, tfds.features.FeaturesDict) else []
    if "image" not in names or not isinstance(features["image"], tfds.features.Image):
        raise UserError(
            f"the TFDS data set {builder.name} has no feature 'image' that is an image; "
            f"its features: {', '.join(names) or features}"
        )
    image = features["image"]
    if image.np_dtype != np.uint8 or image.shape[-1] not in (1, 3):
        raise UserError(
            f"the images of the TFDS data set {builder.name} must be uint8 with 1 or 3 channels, "
            f"they are {np.dtype(image.np_dtype)} with {image.shape[-1]}"
        )


def _source(builder, split: str):
    """The records of a split, in random access, with their images as encoded bytes."""
    import tensorflow_datasets as tfds

    try:
        return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    except (AssertionError, ValueError) as error:
        raise unknown(f"split of {builder.name}", split, builder.info.splits) from error


# --- preparing ---------------------------------------------------------------------------


def _prepare(builder) -> None:
    """Downloads the data set and writes it to its directory; leaves none if that fails."""
    try:
        with tensorflow_stand_in(), impatient_downloads():
            builder.download_and_prepare(file_format="array_record")
    # Any of hundreds of builders has run: what it raises is beyond our knowledge.
    except Exception as error:
        if not builder.data_path.exists():  # else another process was faster than this one
            raise UserError(_what_to_do(builder, error)) from error


def _what_to_do(builder, error: Exception) -> str:
    infos = dict(itertools.islice((builder.url_infos or {}).items(), 4))
    more = ", ..." if len(infos) < len(builder.url_infos or {}) else ""
    files = ", ".join(info.filename for info in infos.values() if info.filename)
    return (
        f"could not prepare the TFDS data set {builder.name}: {type(error).__name__}: {error}\n"
        f"It is downloaded from {', '.join(infos) or 'no address that TFDS registers'}{more}\n"
        "Any of these helps:\n"
        f"- put a prepared copy (array_record) from another machine at {builder.data_path}\n"
        f"- put the downloaded {files or 'files'}{more} into "
        f"{Path(builder.data_dir_root) / 'downloads' / 'manual'}\n"
        "- train on data that needs no download: configs/ncsn_digits.py or, with the extra "
        "'mnist' installed, configs/ddpm_mnist.py"
    )


# --- decoding, once ----------------------------------------------------------------------


def _cache(cache_dir: str | None, builder, split: str, count: int) -> Path:
    """The directory of the decoded split; changes with whatever the records come from."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "score_jax"
    folder = usual if cache_dir is None else Path(cache_dir)
    prepared = Path(builder.data_path).resolve()
    stats = sorted((file.name, file.stat()) for file in prepared.iterdir())
    origin = repr((str(prepared), [(name, s.st_size, s.st_mtime_ns) for name, s in stats]))
    digest = hashlib.sha256(origin.encode()).hexdigest()[:16]
    leaf = f"{urllib.parse.quote(split, safe='')}-{count}-{digest}"
    return folder.expanduser() / "tfds" / builder.info.full_name / leaf


def _load(cache: Path, builder) -> tuple[np.ndarray, np.ndarray | None] | None:
    """The images and labels that _decode has left in the cache, or None if it has not."""
    read = functools.partial(np.load, mmap_mode="r", allow_pickle=False)
    try:
        images = read(cache / "images.npy")
        return images, read(cache / "labels.npy") if _has_labels(builder) else None
    # Absent, empty or cut short.
    except (OSError, EOFError, ValueError):
        return None


def _decode(cache: Path, builder, source) -> tuple[np.ndarray, np.ndarray | None]:
    """Decodes all records into the cache, image by image, and returns what _load does."""
    if not len(source):
        raise UserError(f"this slice of {builder.name} holds no images")
    mode = "L" if builder.info.features["image"].shape[-1] == 1 else "RGB"
    shape = (len(source), *_pixels(next(_records(builder, source)), mode).shape)
    labels = np.zeros(len(source), np.int32) if _has_labels(builder) else None
    _make_room(cache, math.prod(shape))
    with whole(cache / "images.npy") as path:
        images = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
        records, hidden = _records(builder, source), not sys.stderr.isatty()
        for i, record in enumerate(tqdm(records, "decoding", len(source), disable=hidden)):
            image = _pixels(record, mode)
            if image.shape != shape[1:]:
                raise UserError(
                    f"the images of {builder.name} differ in size: {image.shape[:2]} after "
                    f"{shape[1:3]}; use the image-folder data set, which crops and resizes"
                )
            images[i] = image
            if labels is not None:
                labels[i] = record["label"]
        images.flush()
    if labels is not None:
        with whole(cache / "labels.npy") as path:
            np.save(path, labels)
    made = _load(cache, builder)
    assert made is not None  # it is written
    return made


def _has_labels(builder) -> bool:
    """Whether the data set has a feature 'label' that is one integer, such as a class."""
    features = builder.info.features
    if "label" not in features:
        return False
    return features["label"].shape == () and np.issubdtype(features["label"].np_dtype, np.integer)


def _records(builder, source) -> Iterator[dict]:
    # Read in chunks, which is several times faster than one by one.
    for start in range(0, len(source), _CHUNK):
        try:
            records = source.__getitems__(range(start, min(start + _CHUNK, len(source))))
        except RuntimeError as error:
            raise UserError(
                f"{builder.data_path} is damaged: {error}; delete it to have it prepared anew"
            ) from error
        yield from records


def _pixels(record: dict, mode: str) -> np.ndarray:
    """The image of a record as [H, W, C] uint8."""
    image = np.asarray(Image.open(io.BytesIO(record["image"])).convert(mode))
    return image[..., None] if mode == "L" else image


def _make_room(cache: Path, size: int) -> None:
    """Makes the directory; raises UserError if it cannot hold size bytes more."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to the cache: {error}; name another cache_dir") from error
    # Said now because writing past the end of the disk to a mapped file kills the process.
    free = shutil.disk_usage(cache).free
    if free < size:
        raise UserError(
            f"decoding needs {size / 1e9:.1f} GB in {cache}, {free / 1e9:.1f} GB are free; "
            "make room or name another cache_dir"
        )
