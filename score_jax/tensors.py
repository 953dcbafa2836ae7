"""Files of named tensors, read without running anything that is in them.

    found = read(Path("model.safetensors"))      # {name: array}

Files of safetensors, .npz and msgpack hold numbers only. PyTorch's are pickles, whose loader here
is `weights_only`: it builds tensors and plain containers, and refuses all else.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from score_jax.errors import UserError, shortened
from score_jax.limits import check_memory

TORCH = (".pth", ".pt", ".bin", ".ckpt")
KINDS = f".safetensors, .npz, .msgpack, a flax checkpoint_<step>, or PyTorch's {', '.join(TORCH)}"


def read(path: Path) -> Any:
    """What the file holds: {name: array}, or what a checkpoint nests them in.

    Raises UserError, with the reason, for what is missing, truncated, of another kind, or more
    than numbers.
    """
    if not path.is_file():
        raise UserError(f"no file {shortened(str(path))} (looked in {Path.cwd()})")
    reader = _reader(path)
    try:
        found = reader(path)
    except UserError:
        raise
    except Exception as error:  # whatever a damaged file does to the reader
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(
            f"{path}: damaged, or not what its name says ({shortened(reason, 300)}); expected "
            f"{KINDS}"
        ) from error
    if isinstance(found, list):  # a checkpoint of NCSN: its parts by their places
        found = {str(i): part for i, part in enumerate(found)}
    if not isinstance(found, Mapping):
        raise UserError(f"{path}: expected named tensors, got {type(found).__name__}")
    return found


def _reader(path):
    if path.suffix == ".safetensors":
        return _Safetensors
    if path.suffix == ".npz":
        return _npz
    if path.suffix in TORCH:
        return _torch
    if path.suffix == ".msgpack" or not path.suffix:
        return _torch if zipfile.is_zipfile(path) else _msgpack
    if path.suffix in (".pkl", ".pickle"):
        raise UserError(
            f"{path}: a pickle runs code when it is read, and is not; save its state dict as "
            "safetensors or .npz with the program that made it (docs/weights.md has the recipe)"
        )
    raise UserError(f"{path}: expected {KINDS}")


class _Safetensors(Mapping):
    """Tensors that are read when they are asked for, one by one; none of the file stays mapped."""

    def __init__(self, path):
        from safetensors import safe_open

        self.open = lambda: safe_open(path, framework="numpy")
        with self.open() as file:
            self.names = list(file.keys())

    def __getitem__(self, name):
        if name not in self.names:
            raise KeyError(name)
        with self.open() as file:
            return file.get_tensor(name)

    def __iter__(self):
        return iter(self.names)

    def __len__(self):
        return len(self.names)


def _npz(path):
    with zipfile.ZipFile(path) as archive:
        check_memory(str(path), sum(info.file_size for info in archive.infolist()), "cut it up")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _msgpack(path):
    from flax.serialization import msgpack_restore

    return msgpack_restore(path.read_bytes())


def _torch(path):
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path} is a file of PyTorch, which reads it: pip install 'score_jax[torch]' (in a "
            "clone: pip install -e '.[torch]'), or save its tensors as safetensors"
        ) from error
    options = dict(map_location="cpu", weights_only=True)
    try:
        found = torch.load(path, mmap=zipfile.is_zipfile(path), **options)
    except pickle.UnpicklingError as error:
        what = next((part for part in str(error).splitlines() if "GLOBAL" in part), str(error))
        raise UserError(
            f"{path}: holds more than tensors, or is damaged; refused, since reading it might run "
            f"code ({shortened(next(iter(what.splitlines()), ''), 300)})"
        ) from error

    def plain(value):
        if isinstance(value, torch.Tensor):
            value = value.detach()
            return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        if isinstance(value, Mapping):
            return {name: plain(item) for name, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    return plain(found)
