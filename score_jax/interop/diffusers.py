"""UNet2DModel of diffusers, from and to its folders.

    found = source(folder)
    params = convert(found.rules(module, shape, parameters), found.sets["model"], parameters)
    write_folder(module, params, another, shape, found.sections())

A folder holds config.json and diffusion_pytorch_model.safetensors (or .bin), or is a pipeline's,
with them in unet/; scheduler_config.json lies beside them or in scheduler/.
"""

import contextlib
import functools
import json
import os
import re
import shutil
from collections import ChainMap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np

from score_jax.errors import UserError, shown
from score_jax.files import to_disk
from score_jax.interop.diffusers_config import image_shape, model_config, model_section
from score_jax.interop.diffusers_schedulers import scheduler_config, scheduler_sections
from score_jax.interop.mapping import (
    BIAS,
    LEAVES,
    SAME,
    Layout,
    Rule,
    Shapes,
    export,
    pieces,
    shapes,
)
from score_jax.interop.source import Source
from score_jax.models.ncsnpp import NCSNpp
from score_jax.tensors import read

CONFIG, SCHEDULER, WEIGHTS = "config.json", "scheduler_config.json", "diffusion_pytorch_model"


def _swapped(rows):
    """What meets all cosines, then all sines, made to meet them the other way round."""
    return np.roll(rows, len(rows) // 2, axis=0)


FLIPPED = Layout(lambda w: _swapped(w.T), lambda w: _swapped(w).T)
KINDS = LEAVES | {
    "flipped": (("weight", "kernel", FLIPPED), BIAS),
    "fourier": (("weight", "frequencies", SAME),),
    "table": (("weight", "table", SAME),),
}
RESIDUAL = (
    ("norm", "norm1", "norm_0"),
    ("conv", "conv1", "conv_0"),
    ("dense", "time_emb_proj", "embed"),
    ("norm", "norm2", "norm_1"),
    ("conv", "conv2", "conv_1"),
    ("pointwise", "conv_shortcut", "shortcut"),
)
ATTENTION = (
    ("norm", "group_norm", "norm"),
    ("dense", "to_q", "query"),
    ("dense", "to_k", "key"),
    ("dense", "to_v", "value"),
    ("dense", "to_out.0", "out"),
)


def rules(
    module: nn.Module, shape: tuple[int, ...], parameters: Shapes, config: Mapping[str, Any]
) -> Iterator[Rule]:
    """The rules of a UNet2DModel's tensors, named as today (`weights` renames older ones).

    config: its config.json. With flip_sin_to_cos the noise level's cosines come first there, ours
    after the sines: so do the rows of the layer that takes them in.
    """
    positional = config.get("time_embedding_type", "positional") == "positional"
    flipped = positional and config.get("flip_sin_to_cos", True)
    for kind, theirs, ours in _layers(module, "flipped" if flipped else "dense"):
        yield from pieces(kind, theirs, ours, parameters, KINDS)


def _layers(module, first):
    """(kind, their name, our name) of all layers that there might be."""
    plus, last = isinstance(module, NCSNpp), len(module.multipliers) - 1
    group = lambda parts, theirs, ours: [
        (kind, f"{theirs}.{part}", f"{ours}/{our_part}") for kind, part, our_part in parts
    ]
    yield "conv", "conv_in", "stem"
    yield "fourier", "time_proj", "fourier"
    yield first, "time_embedding.linear_1", "embed_0"
    yield "dense", "time_embedding.linear_2", "embed_1"
    yield "table", "class_embedding", "label"
    for level in range(last + 1):
        for way, theirs in (("down", f"down_blocks.{level}"), ("up", f"up_blocks.{last - level}")):
            ours = f"{way}_{level}"
            for i in range(module.blocks + 1):
                attention = 0 if plus and way == "up" else i  # there once a level
                yield from group(RESIDUAL, f"{theirs}.resnets.{i}", f"{ours}_block_{i}")
                yield from group(
                    ATTENTION, f"{theirs}.attentions.{attention}", f"{ours}_attention_{i}"
                )
            yield "conv", f"{theirs}.{way}samplers.0.conv", f"{ours}_resample/conv"
            yield from group(RESIDUAL, f"{theirs}.resnet_{way}", f"{ours}_resample")
            if level > 0 or way == "down":
                yield "pointwise", f"{theirs}.skip_conv", f"{ours}_image"
                yield "norm", f"{theirs}.skip_norm", f"{ours}_image_out_norm"
                yield "conv", f"{theirs}.skip_conv", f"{ours}_image_out"
    for i in range(2):
        yield from group(RESIDUAL, f"mid_block.resnets.{i}", f"middle_block_{i}")
    yield from group(ATTENTION, "mid_block.attentions.0", "middle_attention")
    prefix = "up_0_image_" if plus else ""
    yield "norm", "conv_norm_out", f"{prefix}out_norm"
    yield "conv", "conv_out", f"{prefix}out"


def source(folder: Path) -> Source:
    """The network of a model's folder or a pipeline's, and the config that it describes.

    Raises UserError for no such folder, for a pipeline that does more than call a network and a
    scheduler, and for a network that ours cannot be, see `model_section`.
    """
    config = _read_json(_home(folder) / CONFIG)
    return Source(
        {"model": weights(folder)},
        functools.partial(rules, config=config),
        model=model_section(config),
        sections=functools.partial(sections, folder),
    )


def sections(folder: Path) -> dict[str, dict[str, Any]]:
    """The config of ours that a folder describes; its data are blank images of the right size.

    Without a scheduler_config.json the scheduler is DDPMScheduler as diffusers makes it. Raises
    UserError for latents, and for what `model_section` and `scheduler_sections` refuse.
    """
    home = _home(folder)
    config = _read_json(home / CONFIG)
    beside = (home / SCHEDULER, folder / "scheduler" / SCHEDULER)
    scheduler = next((_read_json(path) for path in beside if path.is_file()), None)
    model = model_section(config)
    size, _, channels = image_shape(config | {"in_channels": config.get("in_channels", 3)})
    if channels not in (1, 3):
        raise UserError(
            f"diffusers' in_channels = {channels}: images have 1 channel or 3; latents of an "
            "autoencoder are not supported here"
        )
    parts = scheduler_sections(scheduler or {"_class_name": "DDPMScheduler"}, model)
    return dict(
        data=dict(name="blank", size=size, channels=channels, centered=model["centered"]),
        model=model,
        **parts,
        training=dict(
            steps=100_000, batch_size=128, learning_rate=2e-4, warmup=5_000, clip=1.0, ema=0.9999
        ),
        evaluation=dict(samples=1_000, batch_size=50, features="none"),
    )


def weights(folder: Path) -> Mapping[str, np.ndarray]:
    """The tensors of a model's folder or a pipeline's, under the names they have today.

    Raises UserError where it holds no weights. Safetensors are read when they are asked for.
    """
    home = _home(folder)
    for suffix in (".safetensors", ".bin"):
        path, index = home / f"{WEIGHTS}{suffix}", home / f"{WEIGHTS}{suffix}.index.json"
        if path.is_file():
            return _Renamed(read(path))
        if index.is_file():
            files = _read_json(index).get("weight_map")
            if not isinstance(files, dict):
                raise UserError(f"{index}: expected a weight_map, of tensors to files")
            names = sorted({Path(str(file)).name for file in files.values()})
            return _Renamed(ChainMap(*(read(home / name) for name in names)))
    raise UserError(
        f"{home} has no {WEIGHTS}.safetensors and no {WEIGHTS}.bin, nor the index of one in parts"
    )


OLDER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0", "W": "weight"}


class _Renamed(Mapping):
    """Tensors, those of the first releases under the names of today."""

    def __init__(self, tensors):
        pattern = r"(\.attentions\.\d+\.|^time_proj\.)(query|key|value|proj_attn|W)\b"
        today = lambda name: re.sub(pattern, lambda m: m[1] + OLDER[m[2]], name)
        self.tensors, self.names = tensors, {today(name): name for name in tensors}

    def __getitem__(self, name):
        return self.tensors[self.names[name]]

    def __iter__(self):
        return iter(self.names)

    def __len__(self):
        return len(self.names)


def _home(folder):
    """The folder with config.json in it."""
    if (folder / "model_index.json").is_file():
        parts = [name for name in _read_json(folder / "model_index.json") if name[:1] != "_"]
        others = sorted(set(parts) - {"unet", "scheduler"})
        if others:
            raise UserError(
                f"{folder} is a pipeline with {', '.join(others)} besides its unet: its network "
                "does not draw images itself, and is not supported here"
            )
    for home in (folder / "unet", folder):
        if (home / CONFIG).is_file():
            return home
    raise UserError(f"{folder} has no {CONFIG}, nor unet/{CONFIG}: not a UNet2DModel of diffusers")


def _read_json(path):
    try:
        found = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not a whole JSON file ({error})") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected fields and their values, got {shown(found)}")
    return found


def write_folder(
    module: nn.Module,
    params: Mapping[str, Any],
    folder: Path,
    shape: tuple[int, ...],
    sections: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Our UNet for images of this shape as a folder that diffusers loads, whole or not there.

        UNet2DModel.from_pretrained(folder)    DDPMScheduler.from_pretrained(folder)

    sections: our config, of which process, parameterization and sampler make a
    scheduler_config.json; None for the network alone. Raises UserError for what diffusers does
    not have, and for a folder with something in it.
    """
    from safetensors.numpy import save_file

    files = {CONFIG: model_config(module, shape)}
    if sections is not None:
        files[SCHEDULER] = scheduler_config(sections)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not an empty folder; nothing was written")
    tensors = export(rules(module, shape, shapes(module, shape), files[CONFIG]), params)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        save_file(tensors, partial / f"{WEIGHTS}.safetensors", metadata={"format": "pt"})
        for name, fields in files.items():
            (partial / name).write_text(json.dumps(fields, indent=2) + "\n")
        for path in (*partial.iterdir(), partial):
            to_disk(path)
        os.replace(partial, folder)
        to_disk(folder.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(partial)
