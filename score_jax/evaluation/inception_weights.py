"""The published weights of Inception-v3, from a file that the user brings.

    weights = read_inception()
    features, logits = inception_features(weights.params, images)

They are not ours to ship, and nothing is downloaded. Of two files it can be said what they hold:

    .pth           the published file, byte for byte: anything else is refused
    .safetensors   the same tensors by the same names, saved by someone who could read the .pth;
                   nobody published their checksum, so `published` is False

`Weights.sha256` is of the tensors, the same for both, so it tells whether two figures were made
with the same network.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from score_jax.errors import MOST_NAMES, UserError, shortened
from score_jax.evaluation.inception import SIZE, Inception
from score_jax.tensors import TORCH, read

NAME = "pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SOURCE = "from the release 'fid_weights' of github.com/mseitzer/pytorch-fid"
EPSILON = 0.001  # of every batch norm
FOLDED = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")


class Weights(NamedTuple):
    """Inception's parameters, and how they are known again."""

    params: Any  # of `Inception`, float32
    sha256: str  # of the tensors: names, shapes and float32 values
    published: bool  # the file is the published one, byte for byte


def read_inception(path: Path | None = None) -> Weights:
    """The parameters of `Inception`, each batch norm folded into its convolution.

        w' = w γ/√(v + 0.001),   b' = β - m γ/√(v + 0.001)     in float64

    path: the file; by default what lies in ~/.cache/score_jax ($XDG_CACHE_HOME where set): the
    published name, or the same as .safetensors, which goes first. Raises UserError for a file that
    is not there, damaged, not the published one though PyTorch's, or without the right tensors.
    """
    path = check_is_there(path)
    published = path.suffix in TORCH
    if published:
        _check_published(path)
    tensors = _checked(path, read(path))
    return Weights(_folded(path, tensors), _sha256_of(tensors), published)


def check_is_there(path: Path | None = None) -> Path:
    """The file that `read_inception` reads. Raises UserError where there is none."""
    path = _place() if path is None else Path(path).expanduser()
    if not path.is_file():
        raise UserError(
            f"no weights of Inception at {shortened(str(path), 300)}. FID, KID and the Inception "
            f"Score need {NAME} (SHA-256 {SHA256}), {SOURCE}. Put it there, or say where it is: "
            "--config.evaluation.inception=<file>; --config.evaluation.features=none, or "
            "classifier where the data have labels, needs no such file"
        )
    return path


def _place() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "score_jax").expanduser()
    converted = (folder / NAME).with_suffix(".safetensors")
    return converted if converted.is_file() else folder / NAME


def _check_published(path: Path) -> None:
    """Raises UserError unless the file has the published bytes."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise UserError(
            f"{path}: not the published weights of Inception, or damaged: expected SHA-256 "
            f"{SHA256}, got {found}. Get {NAME} again, {SOURCE}"
        )


def _sha256_of(tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.shape}\n".encode())
        digest.update(np.ascontiguousarray(tensor, "<f4").data)
    return digest.hexdigest()


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """{name: shape} of the tensors that count, as PyTorch lays them out; computes nothing.

    The published file has besides them a `num_batches_tracked` for each batch norm.
    """
    x = jnp.zeros((1, SIZE, SIZE, 3))
    params = jax.eval_shape(lambda: Inception().init(jax.random.key(0), x))["params"]
    shapes: dict[str, tuple[int, ...]] = {}
    for name, leaf in flatten_dict(params, sep=".").items():
        layer, kind = name.rsplit(".", 1)
        if layer == "fc":
            classes = leaf.shape[1]
            shapes |= {"fc.weight": leaf.shape[::-1], "fc.bias": (classes,)}
        elif kind == "kernel":
            height, width, inputs, outputs = leaf.shape
            shapes[f"{layer}.conv.weight"] = (outputs, inputs, height, width)
            shapes |= {f"{layer}.{norm}": (outputs,) for norm in FOLDED[1:]}
    return shapes


def _checked(path, found) -> dict[str, np.ndarray]:
    """The tensors that count. Raises UserError that lists all that lack, or do not fit."""
    expected = expected_shapes()
    missing = sorted(set(expected) - set(found))
    tensors = {name: np.asarray(found[name]) for name in expected if name not in missing}
    wrong = [
        f"{name} {tensor.dtype} {tensor.shape}, not float32 {expected[name]}"
        for name, tensor in tensors.items()
        if tensor.shape != expected[name] or not np.issubdtype(tensor.dtype, np.floating)
    ]
    faults = [("missing", missing), ("of another shape or type", wrong)]
    listed = [
        f"{what}: {shortened(', '.join(names), MOST_NAMES)}" for what, names in faults if names
    ]
    if listed:
        raise UserError(
            f"{path}: not the weights of Inception that FID is measured with. Of {len(expected)} "
            f"tensors there are {'; '.join(listed)}"
        )
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def _folded(path, tensors) -> dict[str, Any]:
    """Our parameters, nested as `Inception` names them."""
    params = {"fc.kernel": tensors["fc.weight"].T}
    for name in tensors:
        layer, _, leaf = name.partition(".conv.")
        if leaf:
            w, scale, offset, mean, variance = (
                tensors[f"{layer}.{part}"].astype(np.float64) for part in FOLDED
            )
            with np.errstate(invalid="ignore"):  # a variance below zero: said below
                factor = scale / np.sqrt(variance + EPSILON)
            params[f"{layer}.kernel"] = w.transpose(2, 3, 1, 0) * factor
            params[f"{layer}.bias"] = offset - mean * factor
    bad = sorted(name for name, array in params.items() if not np.isfinite(array).all())
    if bad:
        raise UserError(f"{path}: damaged: not finite in {shortened(', '.join(bad), MOST_NAMES)}")
    params = {name: np.ascontiguousarray(array, np.float32) for name, array in params.items()}
    return unflatten_dict(params, sep=".")
