"""What an importer makes of a file: whose weights they are, and by which rules they are ours."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from score_jax.errors import UserError, shown
from score_jax.interop.mapping import Rule

Tensors = Mapping[str, np.ndarray]


class Source(NamedTuple):
    """The weights of a file.

    sets: by name ("ema", "model"), those it holds. step: how long they were trained.
    rules: (module, shape, parameters) -> the rules of one set. unused: (module, names) -> which
    tensors the network can do without. model: the section of a config, where the file tells it;
    sections: a whole config, where it tells that.
    """

    sets: Mapping[str, Tensors]
    rules: Callable[..., Iterable[Rule]]
    step: int = 0
    unused: Callable[..., Iterable[str]] = lambda module, names: ()
    model: Mapping[str, Any] | None = None
    sections: Callable[[], dict[str, Any]] | None = None


def step_of(found: Any, path: Path) -> int:
    """The number of training steps that a checkpoint notes. Raises UserError for what is none."""
    try:
        step = int(np.asarray(found).item())
    except (TypeError, ValueError, OverflowError):
        step = -1
    if not 0 <= step < 2**31 or step != np.asarray(found).item():
        raise UserError(f"{path}: expected a number of training steps, got {shown(found)}")
    return step


def named(found: Any, path: Path) -> Tensors:
    """The tensors by name that a checkpoint holds. Raises UserError for anything else."""
    names = found.keys() if isinstance(found, Mapping) else [None]
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: expected named tensors, got {shown(found)[:200]}")
    return found


def flattened(tree: Mapping[str, Any], between: str, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, the names joined."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= flattened(value, between, f"{prefix}{name}{between}")
        else:
            found[f"{prefix}{name}"] = value
    return found


def without_prefix(tensors: Tensors, *prefixes: str) -> Tensors:
    """The tensors without the first of these prefixes that all their names begin with, if any."""
    for prefix in prefixes:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return Renamed(tensors, prefix)
    return tensors


class Renamed(Mapping):
    """Tensors under names without a prefix, still read when they are asked for."""

    def __init__(self, tensors: Tensors, prefix: str):
        self.tensors, self.prefix = tensors, prefix

    def __getitem__(self, name):
        return self.tensors[self.prefix + name]

    def __iter__(self):
        return (name.removeprefix(self.prefix) for name in self.tensors)

    def __len__(self):
        return len(self.tensors)
