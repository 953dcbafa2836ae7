"""The networks of EDM and EDM2 (Karras et al. 2022, 2024), as their code names their weights.

A state dict of theirs, saved as safetensors or .npz (docs/weights.md has the recipe; their own
files are pickles). The network is that of the moving average. Layers are named by the way, the
side of their images in pixels and the block: "enc.16x16_block0", "dec.32x32_up".
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import flax.linen as nn
import numpy as np

from score_jax.errors import UserError
from score_jax.interop.mapping import CONV, DENSE, POINTWISE, SAME, Layout, Rule, Shapes, pieces
from score_jax.interop.source import Source, named
from score_jax.models.adm import ADM
from score_jax.models.edm2 import EDM2
from score_jax.models.ncsnpp import NCSNpp
from score_jax.tensors import read

UNUSED = r"resample_filter$|^map_augment\.|^logvar_"  # fixed filters; what only training takes
COSINES_FIRST = Layout(lambda w: np.concatenate(np.split(w.T, 2)[::-1]))
OURS = dict(norm0="norm_0", conv0="conv_0", affine="embed", norm1="norm_1", conv1="conv_1")
KINDS = dict(norm0="norm", conv0="conv", affine="dense", norm1="norm", conv1="conv")


def source(path: Path) -> Source:
    """The state dict of EDM's or EDM2's network, with or without what preconditions it.

    A bias of the label's embedding, which is added whatever the class, joins the next layer's.
    """
    found = named(read(path), path)
    tensors = {re.sub(r"^(model|unet)\.", "", name): found[name] for name in found}
    if {"map_label.bias", "map_layer0.weight", "map_layer0.bias"} <= set(
        tensors
    ):  # added whatever the class: it may be the next layer's
        shift = tensors["map_layer0.weight"] @ tensors.pop("map_label.bias")
        tensors["map_layer0.bias"] = tensors["map_layer0.bias"] + shift
    return Source({"ema": tensors}, rules, unused=unused)


def unused(module: nn.Module, names: Iterable[str]) -> list[str]:
    """Those of these names that EDM saves and never uses."""
    return [name for name in names if re.search(UNUSED, name)]


def rules(module: nn.Module, shape: tuple[int, ...], parameters: Shapes) -> Iterator[Rule]:
    """The rules of a state dict. Raises UserError for a network that EDM does not have."""
    if isinstance(module, EDM2):
        return _edm2(module, shape, parameters)
    if not isinstance(module, (NCSNpp, ADM)):
        raise UserError(
            f"EDM has the networks ncsnpp, adm and edm2, and no {type(module).__name__}"
        )
    return _edm(module, shape, parameters)


def layer_names(module: nn.Module, shape: tuple[int, ...]) -> Iterator[tuple[str, str, str]]:
    """(their name, our block, our attention) of every block and every change of resolution."""
    last = len(module.multipliers) - 1
    for level in range(last + 1):
        here = f"{shape[0] >> level}x{shape[1] >> level}"
        for i in range(module.blocks):
            yield f"enc.{here}_block{i}", f"down_{level}_block_{i}", f"down_{level}_attention_{i}"
        for i in range(module.blocks + 1):
            yield f"dec.{here}_block{i}", f"up_{level}_block_{i}", f"up_{level}_attention_{i}"
        if level > 0:  # named by where it leads
            yield f"enc.{here}_down", f"down_{level - 1}_resample", ""
        if level < last:
            yield f"dec.{here}_up", f"up_{level + 1}_resample", ""
    yield f"dec.{here}_in0", "middle_block_0", "middle_attention"
    yield f"dec.{here}_in1", "middle_block_1", ""


def _edm(module, shape, parameters):
    adm, side = isinstance(module, ADM), f"{shape[0]}x{shape[1]}"
    layer = lambda kind, theirs, ours: pieces(kind, theirs, ours, parameters)
    yield from layer("conv", f"enc.{side}_conv", "stem")
    yield from layer("dense", "map_layer1", "embed_1")
    for rule in layer("dense", "map_layer0", "embed_0"):
        first = adm and rule.layout is DENSE
        yield rule._replace(layout=COSINES_FIRST) if first else rule
    if "fourier/frequencies" in parameters:
        yield Rule("map_noise.freqs", "fourier/frequencies", SAME)
    if "label/table" in parameters:
        yield Rule("map_label.weight", "label/table", _table(1.0 if adm else module.classes**0.5))
    for theirs, block, attention in layer_names(module, shape):
        for part, ours in OURS.items():
            yield from layer(KINDS[part], f"{theirs}.{part}", f"{block}/{ours}")
        yield from layer("pointwise", f"{theirs}.skip", f"{block}/shortcut")
        yield from _attention(theirs, attention, parameters)
    out_norm, out = ("out_norm", "out_conv") if adm else (f"dec.{side}_aux_norm", None)
    yield from layer("norm", out_norm, "out_norm")
    yield from layer("conv", out or f"dec.{side}_aux_conv", "out")
    for level in range(len(module.multipliers)):
        here, below = (f"{shape[0] >> at}x{shape[1] >> at}" for at in (level, level + 1))
        yield from layer("norm", f"dec.{here}_aux_norm", f"up_{level}_image_out_norm")
        yield from layer("conv", f"dec.{here}_aux_conv", f"up_{level}_image_out")
        yield from layer("pointwise", f"enc.{below}_aux_skip", f"down_{level}_image")
        yield from layer("conv", f"enc.{below}_aux_residual", f"down_{level}_image/conv")


def _table(scale):
    return Layout(lambda w: w.T * np.float32(scale))


def _attention(theirs, ours, parameters):
    yield from pieces("norm", f"{theirs}.norm2", f"{ours}/norm", parameters)
    for i, name in enumerate(("query", "key", "value")):
        for rule in pieces("pointwise", f"{theirs}.qkv", f"{ours}/{name}", parameters):
            yield rule._replace(layout=_third(i, rule.layout))
    yield from pieces("pointwise", f"{theirs}.proj", f"{ours}/out", parameters)


def _third(i, layout):
    """Their outputs go by head, channel and which of the three."""
    return Layout(lambda w: layout.to_ours(w.reshape(-1, 3, *w.shape[1:])[:, i]))


ONE = Layout(lambda w: w.reshape(1))
TURNS = Layout(lambda w: w / np.float32(2.0 * np.pi))  # theirs are in radians


def _edm2(module, shape, parameters):
    side = f"{shape[0]}x{shape[1]}"
    yield Rule("out_gain", "out_gain", ONE)
    yield Rule("emb_fourier.freqs", "fourier/frequencies", TURNS)
    yield Rule("emb_fourier.phases", "fourier/phases", TURNS)
    yield Rule(f"enc.{side}_conv.weight", "in/kernel", CONV)
    yield Rule("out_conv.weight", "out/kernel", CONV)
    yield Rule("emb_noise.weight", "noise/kernel", DENSE)
    if "label/kernel" in parameters:
        yield Rule("emb_label.weight", "label/kernel", DENSE)
    for theirs, block, _ in layer_names(module, shape):
        block = re.sub(r"down_(\d+)_resample", lambda m: f"down_{int(m[1]) + 1}", block)
        block = re.sub(r"_resample$", "", block)
        block = {"middle_block_0": "middle_1", "middle_block_1": "middle_2"}.get(block, block)
        yield Rule(f"{theirs}.emb_gain", f"{block}/embedding_gain", ONE)
        for part, ours, layout in (
            ("emb_linear", "embedding", DENSE),
            ("conv_res0", "conv_1", CONV),
            ("conv_res1", "conv_2", CONV),
            ("conv_skip", "shortcut", POINTWISE),
            ("attn_proj", "attention/out", POINTWISE),
            ("attn_qkv", "attention/qkv", _three(module.head_channels)),
        ):
            if f"{block}/{ours}/kernel" in parameters:
                yield Rule(f"{theirs}.{part}.weight", f"{block}/{ours}/kernel", layout)


def _three(head_channels):
    """Their outputs go by head, channel and which of the three; ours have the last first."""

    def to_ours(w):
        parts = w.reshape(-1, head_channels, 3, w.shape[1])
        return parts.transpose(3, 2, 0, 1).reshape(w.shape[1], -1)

    return Layout(to_ours)
