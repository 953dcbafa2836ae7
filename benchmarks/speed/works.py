"""What is run: a config of ours each, at the size of a small machine. Imports no JAX.

config = config_of("cifar")        # nested dicts
examples("cifar")                  # random ones of its shape, for ours and for theirs
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from score_jax import config as configs

ROOT = Path(__file__).parents[2]
EXAMPLES = 2_048


class Work(NamedTuple):
    """A network and its training, a config with some options changed.

    repeats: how many forward passes take about a second. kinds: what it is measured by.
    """

    config: str
    network: str
    parameters: int
    shape: tuple[int, ...]
    repeats: int
    kinds: tuple[str, ...]
    changes: dict[str, dict[str, Any]]

    @property
    def batch(self) -> int:
        """Examples at a time, in training."""
        return self.changes["training"]["batch_size"]

    @property
    def drawn(self) -> int:
        """Examples at a time, in drawing."""
        return self.changes["evaluation"]["samples"]

    @property
    def title(self) -> str:
        """For a table of training."""
        return self.titled(self.batch)

    def titled(self, batch: int) -> str:
        """For a table, of so many examples at a time."""
        return f"{self.network}, {'x'.join(map(str, self.shape))}, batch {batch}"


def of_batch(n: int, drawn: int, **more: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The changes that make n examples a batch of everything, and `drawn` one that is drawn."""
    evaluation = dict(features="none", allow_fewer=True, samples=drawn, batch_size=drawn)
    likelihood = dict(examples=n, batch_size=n)
    sections: dict[str, dict[str, Any]] = dict(
        training=dict(batch_size=n), evaluation=evaluation, likelihood=likelihood
    )
    return {name: sections.get(name, {}) | more.get(name, {}) for name in (*sections, *more)}


WORKS = {
    "cifar": Work(
        "ddpm_cifar",
        "U-Net 35.7 M",
        35_746_307,
        (32, 32, 3),
        1,
        ("step", "forward", "ancestral"),
        of_batch(8, 8, sampler=dict(steps=10)),
    ),
    "small": Work(
        "ddpm_digits",
        "U-Net 1.7 M",
        1_707_009,
        (8, 8, 1),
        20,
        ("step", "forward", "ancestral", "likelihood"),
        # group_size: diffusers has the same number of groups in all norms
        of_batch(
            32,
            16,
            model=dict(multipliers=(1, 2, 2), attention=(4, 2), group_size=1),
            likelihood=dict(trace="rademacher", rtol=1e-3, atol=1e-3),
        ),
    ),
    "toy": Work(
        "flow_toy",
        "MLP",
        66_690,
        (2,),
        300,
        ("step", "forward", "likelihood"),
        of_batch(256, 256, likelihood=dict(trace="exact")),
    ),
    "chain": Work(
        "flow_toy",
        "MLP",
        66_690,
        (2,),
        300,
        ("ancestral",),
        of_batch(
            16,
            16,
            process=dict(name="ddpm", levels=1000, beta_min=1e-4, beta_max=0.02),
            parameterization=dict(view="eps", condition="level"),
            loss=dict(law="ladder", draws="independent", view="eps"),
            sampler=dict(name="ancestral", steps=100, grid="ladder", variance="small"),
        ),
    ),
}


def config_of(name: str, data: Path | None = None) -> dict[str, dict[str, Any]]:
    """The work's config. data: a .npy with its `examples`, in place of the config's data."""
    work = WORKS[name]
    config = configs.load(str(ROOT / "configs" / f"{work.config}.py")).to_dict()
    for section, options in work.changes.items():
        config[section] = config.get(section, {}) | options
    if data is not None:
        kept = {k: v for k, v in config["data"].items() if k in ("centered", "flip")}
        config["data"] = kept | dict(name="array", path=str(data))
        config["test"] = {}
    return config


def examples(name: str) -> np.ndarray:
    """Random ones of the work's shape: bytes of images, or points."""
    rng, shape = np.random.default_rng(0), (EXAMPLES, *WORKS[name].shape)
    if len(shape) == 2:
        return rng.normal(size=shape).astype(np.float32)
    return rng.integers(0, 256, shape, np.uint8)


@contextlib.contextmanager
def saved(name: str) -> Iterator[Path]:
    """A .npy of the work's `examples`, while it is wanted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "examples.npy")
        np.save(path, examples(name))
        yield path
