"""A workdir from a file of weights.

    import_weights("score_sde", Path("checkpoint_26.pth"), config, workdir, "ema")

Everything is read and checked before anything is written; the workdir's only checkpoint then
takes its name last, as always.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from score_jax.build import build
from score_jax.data import DATASETS
from score_jax.data.encoding import Encoding
from score_jax.data.tfds import image_shape
from score_jax.errors import UserError, shortened, unknown
from score_jax.experiment import Experiment
from score_jax.files import to_disk
from score_jax.interop import diffusers, edm, ncsn, score_sde
from score_jax.interop.mapping import convert, shapes
from score_jax.interop.source import Source
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
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise UserError(f"{workdir} holds something already; give another --workdir")
    found = _read(source, path)
    sections = override(ConfigDict(_sections(config, found, path))).to_dict()
    experiment = build(
        sections | {"data": without_images(sections["data"]), "test": {}, "guidance": {}}
    )
    module, shape = experiment.module, experiment.data.shape
    parameters = shapes(module, shape)
    rules = list(found.rules(module, shape, parameters))

    def ours(name):
        tensors = found.sets[name]
        return convert(rules, tensors, parameters, found.unused(module, tensors))

    chosen = weights if weights in found.sets else next(iter(found.sets))
    both = "model" in found.sets and chosen != "model"
    params, ema = (ours("model"), ours(chosen)) if both else (ours(chosen), None)
    state = [TrainState(np.int32(found.step), params, ema, None)]
    del params, ema
    with _made_whole(workdir) as partial:
        with open_workdir(partial, experiment.config, "import", experiment.data):
            with Checkpoints(partial, experiment.training) as checkpoints:
                checkpoints.save(state.pop(), [])  # which copies it: ours is no longer needed
                checkpoints.wait()
    print(
        f"{count(module, shape):,} parameters of {experiment.config['model']['name']} from {path}"
        + (f", step {found.step:,}" if found.step else "")
        + (f"; it holds no {weights} weights, these are its {chosen}" * (chosen != weights)),
        flush=True,
    )
    trusted = {
        f"{section}.{name}": experiment.config[section][name]
        for section, names in ON_TRUST.items()
        for name in names
        if name in experiment.config[section]
    }
    listed = ", ".join(f"{name} = {value!r}" for name, value in trusted.items())
    print(f"no shape tells these, they are the config's: {listed}", flush=True)
    return experiment


# Options that leave no trace in the shapes of the weights.
ON_TRUST = {
    "model": ("centered", "rescale", "fir", "embedding", "code"),
    "process": ("name",),
    "parameterization": ("view", "condition"),
}


def _read(source, path) -> Source:
    try:
        return SOURCES[source](path)
    except UserError:
        raise
    except Exception as error:  # whatever a file of another kind does to its reader
        reason = next(iter(str(error).splitlines()), "")
        raise UserError(
            f"{path}: not laid out as a file of {source} is ({type(error).__name__}: "
            f"{shortened(reason, 200)})"
        ) from error


@contextlib.contextmanager
def _made_whole(workdir: Path) -> Iterator[Path]:
    """A folder that becomes workdir when the block ends well, and nothing otherwise."""
    partial = workdir.with_name(f".{workdir.name}.importing")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    try:
        yield partial
        os.replace(partial, workdir)
        to_disk(workdir.parent)
    except OSError as error:
        raise UserError(f"cannot write to {workdir} ({error}); give another --workdir") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sections(config, found, path) -> dict[str, Any]:
    """The config with what the file tells of the network; or all that the file tells."""
    if config is None and found.sections is None:
        raise UserError(f"{path} does not tell what network it is of: give --config")
    if config is None:
        return found.sections()
    config = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    if "data" not in config:
        raise UserError("the config lacks the section data")
    if found.model is None:
        return config
    print("the network is the file's, all else the config's", flush=True)
    _compare(config, found.sections)
    return config | {"model": dict(found.model)}


def _compare(config, sections) -> None:
    """Says where the config is of another process, or reads the network otherwise."""
    with contextlib.suppress(UserError):  # a scheduler that we have not
        told = sections()
        for section in ("process", "parameterization"):
            for name, value in told[section].items():
                given = config.get(section, {}).get(name, value)
                if given != value:
                    print(
                        f"config.{section}.{name} = {given!r}, but the folder says {value!r}",
                        flush=True,
                    )


def without_images(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section of a config's data, with `blank` in the place of the images it names.

    They are looked at only where their size cannot be known otherwise. Raises UserError unless
    they are square images.
    """
    name = section.get("name")
    encoding = {key: section[key] for key in Encoding._fields if key in section}
    if name == "blank":
        return dict(section)
    rest = {key: value for key, value in section.items() if key not in encoding}
    loader, options = choose("data", DATASETS, rest)
    if name == "folder":
        shape = options["size"], options["size"], options["channels"]
    elif name == "tfds":
        shape = image_shape(options["dataset"], options["data_dir"])
    else:
        shape = loader(**options).shape
    if len(shape) != 3 or shape[0] != shape[1]:
        raise UserError(
            f"config.data.name = {name!r} has examples {shape}, and not square images; give "
            "--config.data.name=blank --config.data.size=<their side>"
        )
    return {"name": "blank", "size": shape[0], "channels": shape[2], **encoding}
