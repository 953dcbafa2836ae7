"""Files that are whole or not there. Where a disk does not let them be written, OSError."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` when the block ends well, and nothing otherwise.

        with whole(folder / "samples.npz") as partial:
            np.savez(partial, arr_0=samples)

    A process killed inside the block leaves `path` as it was, and a hidden file beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield partial
        to_disk(partial)
        os.replace(partial, path)
        to_disk(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def arrays(path: Path) -> dict[str, np.ndarray] | None:
    """All that a .npz holds; None where it is not there, or damaged: each array has a checksum."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception:  # NumPy, zipfile and zlib raise a dozen kinds
        return None


def to_disk(path: Path) -> None:
    """Returns when the file, or the folder's list of names, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise  # some disks of networks do this for files only
    finally:
        os.close(descriptor)
