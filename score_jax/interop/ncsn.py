"""The networks of NCSN and NCSNv2, as their authors and score_sde name their weights.

ermongroup/ncsn, ermongroup/ncsnv2 and score_sde_pytorch have the same names; score_sde, in JAX,
has those that Flax makes: `<class>_<how many before>`. Levels are counted from the noisiest there
and from the least noisy here.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import numpy as np

from score_jax.errors import UserError
from score_jax.interop.mapping import LEAVES, SAME, Layout, Rule, Shapes, pieces
from score_jax.interop.source import Source, named, step_of, without_prefix
from score_jax.models.ncsnv2 import NCSNv2
from score_jax.models.refinenet import RefineNet
from score_jax.tensors import read

PARTS = ("gamma", "alpha", "beta")  # of an instance norm, in the order of their embedding
ONE_LEVEL = Layout(lambda w: w.reshape(1, -1), lambda w: w[0])
FLAX_ONE_LEVEL = Layout(ONE_LEVEL.to_ours, lambda w: w[None, None])


def _part(i: int) -> Layout:
    """Part i of an embedding [levels, 3 channels]."""
    return Layout(lambda w: np.split(w[::-1], 3, axis=1)[i])


def _levels(embedding: str) -> tuple:
    return tuple((embedding, part, _part(i)) for i, part in enumerate(PARTS))


TORCH = {
    "conv": LEAVES["conv"],
    "norm": tuple((part, part, ONE_LEVEL) for part in PARTS),
    "norm of levels": _levels("embed.weight"),
}
FLAX = {
    "conv": (("kernel", "kernel", SAME), ("bias", "bias", SAME)),
    "norm": tuple((part, part, FLAX_ONE_LEVEL) for part in PARTS),
    "norm of levels": _levels("Embed_0/embedding"),
}


class Names(NamedTuple):
    """What a layer is called: by us, by the authors, by score_sde."""

    ours: str
    torch: str
    flax: str

    def inner(self, ours: str, torch: str, flax: str) -> "Names":
        """The names of a layer inside this one."""
        return Names(f"{self.ours}/{ours}", f"{self.torch}.{torch}", f"{self.flax}/{flax}")


Layers = Iterator[tuple[str, Names]]  # (kind, names)


def is_ours(module: nn.Module) -> bool:
    """Whether it is a network that is mapped here."""
    return isinstance(module, (RefineNet, NCSNv2))


class _Walk:
    """All layers of a network, those of norms also where it has none."""

    def __init__(self, module: nn.Module):
        self.told = told = isinstance(module, RefineNet)
        self.count = 4 if told else len(module.multipliers)
        self.cond, self.conditional = ("Cond", "Conditional") if told else ("", "")
        self.norm_class = f"{self.conditional}InstanceNorm2dPlus"

    def norm(self, names: Names) -> Layers:
        yield "norm of levels" if self.told else "norm", names

    def norms_and_convs(self, names: Names, convs: Iterable[tuple[str, str, str]]) -> Layers:
        """convs: (their norm, their convolution, Flax's convolution) in turn."""
        for i, (norm, conv, flax_conv) in enumerate(convs):
            yield from self.norm(names.inner(f"InstanceNorm_{i}", norm, f"{self.norm_class}_{i}"))
            yield "conv", names.inner(f"Conv_{i}", conv, flax_conv)

    def residual_block(self, names: Names, enter: bool, halves: bool) -> Layers:
        """halves: a convolution followed by a mean is a module of theirs."""
        inner, second, shortcut = "", "Conv_1", "Conv_2"
        if halves:
            inner, second, shortcut = ".conv", "ConvMeanPool_0/Conv_0", "ConvMeanPool_1/Conv_0"
        convs = ("normalize1", "conv1", "Conv_0"), ("normalize2", f"conv2{inner}", second)
        yield from self.norms_and_convs(names, convs)
        if enter:
            yield "conv", names.inner("Conv_2", f"shortcut{inner}", shortcut)

    def conv_unit(self, names: Names, blocks: int) -> Layers:
        their = [f"{i // 2 + 1}_{i % 2 + 1}" for i in range(2 * blocks)]
        convs = ((f"{name}_norm", f"{name}_conv", f"Conv_{i}") for i, name in enumerate(their))
        yield from self.norms_and_convs(names, convs)

    def refine_block(self, names: Names, inputs: int, last: bool) -> Layers:
        unit = f"{self.cond}RCUBlock"
        for i in range(inputs):
            inner = names.inner(f"ConvUnit_{i}", f"adapt_convs.{i}", f"{unit}_{i}")
            yield from self.conv_unit(inner, 2)
        series = lambda n: [(f"norms.{i}", f"convs.{i}", f"Conv_{i}") for i in range(n)]
        if inputs > 1:  # our block fuses without a module for it
            fusion = Names(names.ours, f"{names.torch}.msf", f"{names.flax}/{self.cond}MSFBlock_0")
            yield from self.norms_and_convs(fusion, series(inputs))
        chain = names.inner("ChainedPooling_0", "crp", f"{self.cond}CRPBlock_0")
        yield from self.norms_and_convs(chain, series(2))
        out = names.inner(f"ConvUnit_{inputs}", "output_convs", f"{unit}_{inputs}")
        yield from self.conv_unit(out, 3 if last else 1)

    def layers(self) -> Layers:
        last = self.count - 1
        theirs = [str(i + 1) for i in range(self.count)]
        if self.count == 6:  # their third stage came in later
            theirs = ["1", "2", "3", "31", "4", "5"]
        ends = ("Conv_0", "InstanceNorm_0", "Conv_1") if self.told else ("begin", "out_norm", "out")
        yield "conv", Names(ends[0], "begin_conv", "Conv_0")
        for i, name in enumerate(theirs):
            for j in range(2):
                enter, place = i > 0 and j == 0, 2 * i + j
                ours = f"ResidualBlock_{place}" if self.told else f"stage_{i}_block_{j}"
                flax = f"{self.conditional}ResidualBlock_{place}"
                names = Names(ours, f"res{name}.{j}", flax)
                yield from self.residual_block(names, enter, enter and i < last - 1)
        deepest_first = sorted(theirs, key=lambda name: (name[0], name != "31"))
        for place, name in enumerate(deepest_first):
            i = last - place
            ours = f"RefineBlock_{place}" if self.told else f"refine_{i}"
            names = Names(ours, f"refine{name}", f"{self.cond}RefineBlock_{place}")
            yield from self.refine_block(names, 1 if i == last else 2, i == 0)
        yield from self.norm(Names(ends[1], "normalizer", f"{self.norm_class}_0"))
        yield "conv", Names(ends[2], "end_conv", "Conv_1")


def torch_rules(module: nn.Module, shape: tuple[int, ...], parameters: Shapes) -> Iterator[Rule]:
    """The rules of a state dict. Raises UserError for other networks than NCSN's and NCSNv2's."""
    _check(module)
    for kind, names in _Walk(module).layers():
        yield from pieces(kind, names.torch, names.ours, parameters, TORCH)


def flax_rules(module: nn.Module, shape: tuple[int, ...], parameters: Shapes) -> Iterator[Rule]:
    """The rules of the parameters in score_sde, flattened with /. Raises UserError likewise."""
    _check(module)
    for kind, names in _Walk(module).layers():
        yield from pieces(kind, names.flax, names.ours, parameters, FLAX, between="/")


def _check(module):
    if not is_ours(module):
        raise UserError(
            f"NCSN and NCSNv2 have the networks refinenet and ncsnv2, not {type(module).__name__}"
        )


def unused(module: nn.Module, names: Iterable[str]) -> list[str]:
    """Tensors that follow from the config: the noise levels, by which NCSNv2 divides at the end."""
    return [name for name in names if name == "sigmas"]


def torch_source(path: Path) -> Source:
    """A checkpoint.pth of ermongroup/ncsn or ermongroup/ncsnv2, or a state dict alone.

    Theirs is the list [network, optimizer, epoch, step, moving average], the first two of them in
    ncsn, all but the last in ncsnv2 without ema. The average is by name, without the buffers.
    """
    found = read(path)
    if "0" not in found:
        model = without_prefix(named(found, path), "module.")
        return Source({"model": model}, torch_rules, unused=unused)
    if not isinstance(found["0"], Mapping):
        raise UserError(f"{path}: a list, but not one that begins with the weights of a network")
    model = without_prefix(named(found["0"], path), "module.")  # of DataParallel
    sets = {"model": model}
    if "4" in found:
        sets["ema"] = without_prefix(named(found["4"], path), "module.")
    return Source(sets, torch_rules, step_of(found.get("3", 0), path), unused)
