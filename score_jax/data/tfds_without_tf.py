"""TensorFlow Datasets (TFDS) without TensorFlow, without long waits and without noise.

    with tensorflow_stand_in(), impatient_downloads(), quiet():
        tfds.builder("cifar10").download_and_prepare(file_format="array_record")

TFDS' image builders read files through `tf.io.gfile`, its archive extractor does the same,
and its image feature turns arrays into PNG or JPEG by `tf.image`. Files, Pillow and nothing
more are behind these names here. Downloads, checksums, extraction (which leaves out members
that point outside the archive) and the builders themselves remain TFDS' own.

This file alone reaches into TFDS, for what it does not let one set; read with TFDS 4.9.10.
"""

import concurrent.futures
import contextlib
import glob
import importlib.util
import io
import logging
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import numpy as np
from PIL import Image

_ANSWER_SECONDS = 15  # for a host to answer at all
_STALL_SECONDS = 30  # for the next bytes of a download
_RETRIES = 3  # after an answer of 500, 502, 503 or 504


@contextlib.contextmanager
def tensorflow_stand_in() -> Iterator[None]:
    """Gives TFDS the stand-in in place of TensorFlow, only if TensorFlow is not installed.

    No module named tensorflow is made: other libraries look for one in `sys.modules` to see
    whether they are to handle tensors.
    """
    if importlib.util.find_spec("tensorflow"):
        yield
        return
    from tensorflow_datasets.core.utils import lazy_imports_utils

    # All of TFDS shares this lazy module, which keeps what it has imported under this name.
    lazy = vars(lazy_imports_utils.tensorflow)
    lazy["_module"] = _tensorflow()
    try:
        yield
    finally:
        del lazy["_module"]


@contextlib.contextmanager
def impatient_downloads() -> Iterator[None]:
    """Makes TFDS give up on a silent network: after 15 s without an answer, 30 s without bytes.

    Left alone, it takes minutes.
    """
    from tensorflow_datasets.core.download import downloader

    open_url = downloader._open_url

    def open_soon(url: str, verify: bool = True):
        if url.startswith("http"):
            _await_answer(url, verify)
        return open_url(url, verify=verify, timeout=(_ANSWER_SECONDS, _STALL_SECONDS))

    with _replaced(downloader, MAX_RETRIES=_RETRIES, _open_url=open_soon):
        yield


def _await_answer(url: str, verify: bool) -> None:
    """Raises OSError unless the host of url answers soon, whatever it answers.

    The timeout of requests alone is not enough: it counts for each address of a host anew.
    """
    import requests

    answer: concurrent.futures.Future = concurrent.futures.Future()

    def ask() -> None:
        try:
            answer.set_result(requests.head(url, verify=verify, timeout=_ANSWER_SECONDS))
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer.result(timeout=_ANSWER_SECONDS)
    except TimeoutError as error:
        raise TimeoutError(f"no answer from {url} in {_ANSWER_SECONDS} s") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Holds back TFDS' log, and its bars and prints unless a person is there to see them."""
    from tensorflow_datasets.core.utils import tqdm_utils

    watched = sys.stderr.isatty()
    absl = logging.getLogger("absl")

    def matters(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING

    absl.addFilter(matters)
    try:
        with (
            _replaced(tqdm_utils, _active=watched),
            contextlib.redirect_stdout(sys.stderr if watched else io.StringIO()),
        ):
            yield
    finally:
        absl.removeFilter(matters)


@contextlib.contextmanager
def _replaced(module: ModuleType, **values: object) -> Iterator[None]:
    """Sets attributes of a module for the length of a block."""
    before = {name: getattr(module, name) for name in values}
    vars(module).update(values)
    try:
        yield
    finally:
        vars(module).update(before)


class _StandIn(SimpleNamespace):
    """A namespace that says who is missing when something else is asked of it."""

    def __getattr__(self, name: str):
        raise AttributeError(
            f"TensorFlow is not installed, and its stand-in does not supply '{name}'"
        )


class _UnimplementedError(Exception):
    """In the place of tf.errors.UnimplementedError: no file system for this kind of path."""


def _tensorflow() -> _StandIn:
    gfile = _StandIn(
        GFile=_open,
        copy=_copy,
        exists=os.path.exists,
        glob=lambda pattern: sorted(glob.glob(pattern)),
        isdir=os.path.isdir,
        listdir=lambda path: sorted(os.listdir(path)),
        makedirs=lambda path: os.makedirs(path, exist_ok=True),
        remove=os.remove,
        walk=os.walk,
    )
    return _StandIn(
        compat=_StandIn(as_bytes=_as_bytes, as_text=_as_text),
        errors=_StandIn(UnimplementedError=_UnimplementedError),
        executing_eagerly=lambda: True,
        image=_StandIn(
            encode_jpeg=lambda image: _encoded(image, "JPEG", quality=95),
            encode_png=lambda image: _encoded(image, "PNG"),
        ),
        io=_StandIn(gfile=gfile),
    )


def _open(name: str | os.PathLike, mode: str = "r"):
    return open(name, mode, encoding=None if "b" in mode else "utf-8")


def _copy(source: str | os.PathLike, target: str | os.PathLike) -> None:
    # TFDS tries this on every address that is not http, and downloads after this error.
    if "://" in os.fspath(source):
        raise _UnimplementedError(source)
    shutil.copyfile(source, target)


def _as_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _as_text(text: str | bytes) -> str:
    return text.decode() if isinstance(text, bytes) else text


def _encoded(image: np.ndarray, kind: str, **options) -> SimpleNamespace:
    """An [H, W, C] image as the bytes of a file, in the form of an eager tensor."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, kind, **options)
    return SimpleNamespace(numpy=file.getvalue)
