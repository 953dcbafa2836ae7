"""The peer's network with our parameters in it, so that both do the same work: it is checked."""

from typing import Any

import jax
import numpy as np
import torch

from benchmarks.speed import ours, theirs
from benchmarks.speed.works import config_of
from score_jax.experiment import Experiment
from score_jax.interop.diffusers import rules
from score_jax.interop.diffusers_config import model_config
from score_jax.interop.mapping import export, shapes
from score_jax.models.base import Params

TOLERANCE = 1e-3  # of the largest number that is said, in float32 through forty layers


def given(name: str, experiment: Experiment, params: Params) -> tuple[torch.nn.Module, theirs.Net]:
    """(their network, the same as a function). Raises RuntimeError where it says something else."""
    module, net = theirs.made(config_of(name), experiment.data.shape)
    tensors = _of_unet(experiment, params) if experiment.data.is_images else _of_mlp(params)
    as_torch = lambda w: torch.from_numpy(np.array(w))
    module.load_state_dict({key: as_torch(w) for key, w in tensors.items()})
    x, c = ours.inputs(experiment, 4)
    mine = np.asarray(ours.network(experiment, params)(x, c))
    other = theirs.forward(module, net, x, c)().numpy()
    apart = float(np.abs(mine - other).max() / np.abs(mine).max())
    if not apart < TOLERANCE:
        raise RuntimeError(f"{name}: the peer's network is another: apart by {apart:.1e}")
    return module, net


def _of_unet(experiment, params):
    module, shape = experiment.module, experiment.data.shape
    known = shapes(module, shape)
    return export(rules(module, shape, known, model_config(module, shape)), on_host(params))


def _of_mlp(params):
    layers = on_host(params)
    names = ["x", "c", *(f"h{i}" for i in range(len(layers) - 3)), "out"]
    found: dict[str, np.ndarray] = {}
    for i, name in enumerate(names):
        layer = layers[f"Dense_{i}"]
        found |= {f"{name}.weight": layer["kernel"].T, f"{name}.bias": layer["bias"]}
    return found


def on_host(params: Params) -> Any:
    """As NumPy's arrays."""
    return jax.tree.map(np.asarray, params)
