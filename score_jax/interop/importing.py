"""A workdir from a file of weights.

    import_weights("score_sde", Path("checkpoint_26.pth"), config, workdir, "ema")

Everything is read and checked before anything is written; the workdir's only checkpoint then
takes its name last, as always.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from score_jax.build import Experiment, build
from score_jax.data import DATASETS
from score_jax.data.encoding import Encoding
from score_jax.data.tfds import image_shape
from score_jax.errors import UserError, unknown
from score_jax.interop import diffusers, edm, ncsn, score_sde
from score_jax.interop.mapping import convert, shapes
from score_jax.models.base import count
from score_jax.options import choose
from score_jax.training.checkpoints import Checkpoints
from score_jax.training.state import TrainState
from score_jax.workdir import open_workdir

SOURCES = {
    "score_sde": score_sde.torch_source,
    "score_sde_jax": score_sde.flax_source,
    "ncsn": ncsn.torch_source,
    "diffusers": diffusers.source,
    "edm": edm.source,
}
SETS = ("ema", "model")


def import_weights(
    source: str,
    path: Path,
    config: Mapping[str, Any] | None,
    workdir: Path,
    weights: str = "ema",
    override: Callable[[ConfigDict], ConfigDict] = lambda config: config,
) -> Experiment:
    """Makes workdir a run whose newest checkpoint has the weights of the file.

    source: one of SOURCES. config: a ConfigDict or nested dicts; None where the file tells
    everything. weights: "ema" or "model", which of the file's sets the samples are drawn with;
    where it has only one, that one. override: what is still to be set in the config. The run's
    data are `blank`. Returns its experiment.
    Raises UserError, with nothing written, for what cannot be.
    """
    if source not in SOURCES:
        raise unknown("source", source, SOURCES)
    if weights not in SETS:
        raise unknown("--weights", weights, SETS)
    if (workdir / "checkpoints").exists():
        raise UserError(f"{workdir} holds a run already; give another --workdir")
    found = SOURCES[source](path)
    sections = override(ConfigDict(_sections(config, found, path))).to_dict()
    experiment = build(sections | {"data": without_images(sections["data"])})
    module, shape = experiment.module, experiment.data.shape
    parameters = shapes(module, shape)
    rules = list(found.rules(module, shape, parameters))

    def ours(name):
        tensors = found.sets[name]
        return convert(rules, tensors, parameters, found.unused(module, tensors))

    chosen = weights if weights in found.sets else next(iter(found.sets))
    both = "model" in found.sets and chosen != "model"
    parts = (ours("model"), ours(chosen)) if both else (ours(chosen), None)
    state = [TrainState(np.int32(found.step), *parts, None)]
    del parts
    with open_workdir(workdir, experiment.config, "import", experiment.data):
        with Checkpoints(workdir, experiment.training) as checkpoints:
            checkpoints.save(state.pop(), [])  # which copies it: ours is no longer needed
            checkpoints.wait()
    print(
        f"{count(module, shape):,} parameters of {experiment.config['model']['name']} from {path}"
        + (f", step {found.step:,}" if found.step else "")
        + (f"; it holds no {weights} weights, these are its {chosen}" * (chosen != weights)),
        flush=True,
    )
    return experiment


def _sections(config, found, path) -> dict[str, Any]:
    """The config with what the file tells of the network; or all that the file tells."""
    if config is None and found.sections is None:
        raise UserError(f"{path} does not tell what network it is of: give --config")
    if config is None:
        return found.sections()
    config = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return config if found.model is None else config | {"model": dict(found.model)}


def without_images(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section of a config's data, with `blank` in the place of the images it names.

    They are looked at only where their size cannot be known otherwise. Raises UserError unless
    they are square images.
    """
    name = section.get("name")
    encoding = {key: section[key] for key in Encoding._fields if key in section}
    if name == "blank":
        return dict(section)
    if name == "folder":
        shape = section["size"], section["size"], section.get("channels", 3)
    elif name == "tfds":
        shape = image_shape(section["dataset"], section.get("data_dir"))
    else:
        rest = {key: value for key, value in section.items() if key not in encoding}
        loader, options = choose("data", DATASETS, rest)
        shape = loader(**options).shape
    if len(shape) != 3 or shape[0] != shape[1]:
        raise UserError(
            f"config.data.name = {name!r} has examples {shape}, and not square images; give "
            "--config.data.name=blank --config.data.size=<their side>"
        )
    return {"name": "blank", "size": shape[0], "channels": shape[2], **encoding}
