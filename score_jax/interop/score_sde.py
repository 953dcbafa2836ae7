"""The networks of score_sde, as its PyTorch and its JAX code name their weights.

Both build a network as one sequence of layers, which here is the order in which ours are called
(`mapping.calls`): PyTorch's `all_modules.<index>`, JAX's `<class>_<how many before>`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import flax.linen as nn
import numpy as np

from score_jax.errors import UserError
from score_jax.interop import ncsn
from score_jax.interop.mapping import LEAVES, SAME, Layout, Rule, Shapes, calls, pieces
from score_jax.interop.source import Source, flattened, named, step_of, without_prefix
from score_jax.models.embeddings import FourierFeatures
from score_jax.models.layers import Attention, Resample, ResidualBlock
from score_jax.models.ncsnpp import NCSNpp
from score_jax.models.norms import GroupNorm
from score_jax.tensors import read

NIN = (("W", "kernel", SAME), ("b", "bias", SAME))
FOURIER = (("W", "frequencies", SAME),)
TORCH = LEAVES | {"nin": NIN, "fourier": FOURIER}
FLAT = Layout(lambda w: w.reshape(-1))  # old flax has [1, 1, 1, C] where it is now [C]
SQUEEZED = Layout(lambda w: w[0, 0])  # a 1x1 convolution [1, 1, I, O]
FLAX = {
    "conv": (("kernel", "kernel", SAME), ("bias", "bias", SAME)),
    "fir": (("weight", "kernel", SAME), ("bias", "bias", SAME)),
    "pointwise": (("kernel", "kernel", SQUEEZED), ("bias", "bias", SAME)),
    "dense": (("kernel", "kernel", SAME), ("bias", "bias", SAME)),
    "norm": (("scale", "scale", FLAT), ("bias", "bias", FLAT)),
    "nin": NIN,
    "fourier": FOURIER,
}
TORCH["fir"] = TORCH["conv"]


def layers(module: nn.Module, shape: tuple[int, ...]) -> Iterator[tuple[str, str, list]]:
    """(our name, their class, [(kind, their name in it, our name in it)]) in their order."""
    plus = isinstance(module, NCSNpp)
    pp = "pp" if plus else ""
    biggan = plus and module.block == "biggan"
    for name, layer in calls(module, shape):
        if isinstance(layer, FourierFeatures):
            yield name, "GaussianFourierProjection", [("fourier", "", "")]
        elif isinstance(layer, ResidualBlock):
            shortcut = ("pointwise", "Conv_2") if biggan else ("nin", "NIN_0")
            yield (
                name,
                "ResnetBlockBigGANpp" if biggan else f"ResnetBlockDDPM{pp}",
                [
                    ("norm", "GroupNorm_0", "norm_0"),
                    ("conv", "Conv_0", "conv_0"),
                    ("dense", "Dense_0", "embed"),
                    ("norm", "GroupNorm_1", "norm_1"),
                    ("conv", "Conv_1", "conv_1"),
                    (*shortcut, "shortcut"),
                ],
            )
        elif isinstance(layer, Attention):
            parts = enumerate(("query", "key", "value", "out"))
            nins = [("nin", f"NIN_{i}", part) for i, part in parts]
            yield name, f"AttnBlock{pp}", [("norm", "GroupNorm_0", "norm"), *nins]
        elif isinstance(layer, Resample):
            kind = ("fir", "Conv2d_0") if layer.fir else ("conv", "Conv_0")
            yield name, "Upsample" if layer.way == "up" else "Downsample", [(*kind, "conv")]
        elif isinstance(layer, GroupNorm):
            yield name, "GroupNorm", [("norm", "", "")]
        elif isinstance(layer, nn.Conv):
            yield name, "Conv", [("conv", "", "")]
        elif name.endswith("_image"):
            yield name, "Combine", [("pointwise", "Conv_0", "")]
        else:
            yield name, "Dense", [("dense", "", "")]


def torch_rules(module: nn.Module, shape: tuple[int, ...], parameters: Shapes) -> Iterator[Rule]:
    """The rules of a state dict of score_sde_pytorch."""
    if ncsn.is_ours(module):
        return (yield from ncsn.torch_rules(module, shape, parameters))
    for i, (name, _, parts) in enumerate(layers(module, shape)):
        for kind, their_part, our_part in parts:
            theirs, ours = (
                _joined(".", f"all_modules.{i}", their_part),
                _joined("/", name, our_part),
            )
            yield from pieces(kind, theirs, ours, parameters, TORCH)


def unused(module: nn.Module, names: Iterable[str]) -> list[str]:
    """Tensors in a file that score_sde itself never looks at, or that follow from the config."""
    if ncsn.is_ours(module):
        return ncsn.unused(module, names)
    told = module.embedding != "none" if isinstance(module, NCSNpp) else module.is_told
    return [
        name
        for name in names
        if name == "sigmas" or (not told and re.search(r"Dense_0.(weight|bias)$", name))
    ]


def flax_rules(module: nn.Module, shape: tuple[int, ...], parameters: Shapes) -> Iterator[Rule]:
    """The rules of the parameters of score_sde, flattened with /."""
    if ncsn.is_ours(module):
        return (yield from ncsn.flax_rules(module, shape, parameters))
    seen: Counter[str] = Counter()
    doubled = _doubled(module)
    for name, kind_of_layer, parts in layers(module, shape):
        theirs_here = f"{kind_of_layer}_{seen[kind_of_layer]}"
        seen[kind_of_layer] += 2 if kind_of_layer in doubled else 1
        for kind, their_part, our_part in parts:
            theirs, ours = _joined("/", theirs_here, their_part), _joined("/", name, our_part)
            yield from pieces(kind, theirs, ours, parameters, FLAX, between="/")


def _doubled(module):
    """The classes that Flax counts once more for the image, where they have no parameters."""
    if not isinstance(module, NCSNpp):
        return set()
    skips = module.progressive_input == "input_skip", module.progressive == "output_skip"
    return {name for name, skip in zip(("Downsample", "Upsample"), skips) if skip}


def _joined(between, *parts):
    return between.join(part for part in parts if part)


def torch_source(path: Path) -> Source:
    """A checkpoint_<n>.pth of score_sde_pytorch, or the state dict of its network alone."""
    found = read(path)
    state = found.get("model", found)
    model = without_prefix(named(state, path), "module.")  # of DataParallel
    if state is found:
        return Source({"model": model}, torch_rules, unused=unused)
    sets = {"model": model}
    if found.get("ema") is not None:
        sets["ema"] = _averaged(path, model, found["ema"])
    return Source(sets, torch_rules, step_of(found.get("step", 0), path), unused)


def _averaged(path, model, ema):
    """The moving average by name: it is a list of what is trained, in the model's order."""
    shadow = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    shadow = shadow if isinstance(shadow, list) else []
    trained = [n for n, w in model.items() if n != "sigmas" and not _is_fixed(n, w)]
    if [model[name].shape for name in trained] != [np.shape(w) for w in shadow]:
        raise UserError(
            f"{path}: its EMA holds {len(shadow)} tensors that are not the model's {len(trained)} "
            "trained ones in their order; for the model's own save its state dict alone"
        )
    return dict(model) | dict(zip(trained, shadow))


def _is_fixed(name, w):
    return name.endswith(".W") and w.ndim == 1  # the Fourier features' frequencies


def flax_source(path: Path) -> Source:
    """A checkpoint of score_sde, by flax.training.checkpoints: its State as msgpack."""
    found = read(path)
    sets = {}
    for name, place in (("ema", ("params_ema",)), ("model", ("optimizer", "target"))):
        tree = found
        for key in place:
            tree = tree.get(key, {}) if isinstance(tree, Mapping) else {}
        if isinstance(tree, Mapping) and tree:
            sets[name] = flattened(named(tree.get("params", tree), path), "/")
    if not sets:
        raise UserError(
            f"{path}: expected a training state of score_sde with params_ema or optimizer/target, "
            f"got {', '.join(sorted(map(str, found))[:8])}"
        )
    return Source(sets, flax_rules, step_of(found.get("step", 0), path), unused)
