"""The config.json of diffusers' UNet2DModel as a model section of ours, and back.

    section = model_section(json.loads((folder / "config.json").read_text()))
    config = model_config(module, (32, 32, 3))

Down/Up blocks are our UNet, Skip blocks NCSN++ with the image skipping along on both ways. What
neither can be is refused by name, so that no network is imported that would say something else.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from score_jax.errors import UserError, shown
from score_jax.models.norms import Norm
from score_jax.models.unet import UNet

DEFAULTS = dict(  # of UNet2DModel
    sample_size=None,
    in_channels=3,
    out_channels=3,
    center_input_sample=False,
    time_embedding_type="positional",
    time_embedding_dim=None,
    freq_shift=0,
    flip_sin_to_cos=True,
    down_block_types=("DownBlock2D", *3 * ("AttnDownBlock2D",)),
    mid_block_type="UNetMidBlock2D",
    up_block_types=(*3 * ("AttnUpBlock2D",), "UpBlock2D"),
    block_out_channels=(224, 448, 672, 896),
    layers_per_block=2,
    mid_block_scale_factor=1,
    downsample_padding=1,
    downsample_type="conv",
    upsample_type="conv",
    dropout=0.0,
    act_fn="silu",
    attention_head_dim=8,
    norm_num_groups=32,
    attn_norm_num_groups=None,
    norm_eps=1e-5,
    resnet_time_scale_shift="default",
    add_attention=True,
    class_embed_type=None,
    num_class_embeds=None,
    num_train_timesteps=None,
)
KINDS = {"": "unet", "Skip": "ncsnpp"}  # (Attn)<kind>(Down|Up)Block2D


def model_section(config: Mapping[str, Any]) -> dict[str, Any]:
    """{"name": "unet" or "ncsnpp", options} of a config.json with _class_name UNet2DModel.

    Raises UserError that names the field for what our networks cannot be.
    """
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise _refused("_class_name", config["_class_name"], "UNet2DModel")
    given = with_defaults("config.json", config, DEFAULTS)
    shape = image_shape(given)
    widths = given["block_out_channels"]
    if not _are_counts(widths) or any(width % widths[0] for width in widths):
        raise _refused("block_out_channels", widths, "multiples of the first")
    family, attends = _blocks(given)
    accept(
        given,
        mid_block_type=("UNetMidBlock2D",),
        add_attention=(True,),
        act_fn=("silu", "swish"),
        resnet_time_scale_shift=("default",),
        downsample_type=("conv",),
        upsample_type=("conv",),
        class_embed_type=(None,),
        time_embedding_dim=(None, 4 * widths[0]),
        attn_norm_num_groups=(None, given["norm_num_groups"]),
        center_input_sample=(False, True),
        flip_sin_to_cos=(False, True),
        out_channels=(shape[2], 2 * shape[2]) if family == "unet" else (3,),
    )
    section = dict(
        name=family,
        features=widths[0],
        multipliers=tuple(width // widths[0] for width in widths),
        blocks=given["layers_per_block"],
        attention=tuple(shape[0] >> level for level, here in enumerate(attends) if here),
        dropout=given["dropout"],
        centered=not given["center_input_sample"],
    )
    return section | (_unet if family == "unet" else _ncsnpp)(given, attends)


def _unet(given, attends):
    widths, groups, head = (
        given[name] for name in ("block_out_channels", "norm_num_groups", "attention_head_dim")
    )
    accept(
        given,
        time_embedding_type=("positional",),
        freq_shift=(0, 1),
        downsample_padding=(0, 1),
        mid_block_scale_factor=(1,),
    )
    if not _are_counts([groups]) or any(width % groups for width in widths):
        raise _refused("norm_num_groups", groups, f"what divides all of {list(widths)}")
    attending = sorted({*_attending(widths, attends), widths[-1]})
    if head is not None and not (_are_counts([head]) and not any(w % head for w in attending)):
        raise _refused("attention_head_dim", head, f"None, or what divides all of {attending}")
    return dict(
        head_channels=head or 0,
        classes=given["num_class_embeds"] or 0,
        groups=groups,
        group_size=1,
        epsilon=given["norm_eps"],
        endpoint=given["freq_shift"] == 1,
        symmetric=given["downsample_padding"] == 1,
        outputs=given["out_channels"] // given["in_channels"],
    )


def _ncsnpp(given, attends):
    """Ours has norms of min(channels/4, 32) groups and one head; so must theirs."""
    widths, head = given["block_out_channels"], given["attention_head_dim"]
    ends = {min(width // 4, 32) for width in (widths[0], widths[-1])}
    fourier = given["time_embedding_type"] == "fourier"
    accept(
        given,
        time_embedding_type=("fourier", "positional"),
        in_channels=(3,),
        num_class_embeds=(None,),
        norm_eps=(1e-6,),
        norm_num_groups=(None, *ends) if len(ends) == 1 else (None,),
        **({} if fourier else dict(freq_shift=(1,))),
    )
    scale = given["mid_block_scale_factor"]
    if not isinstance(scale, (int, float)) or not math.isclose(scale, 2**0.5, rel_tol=1e-6):
        raise _refused("mid_block_scale_factor", scale, "the square root of 2, as in Skip blocks")
    attending = _attending(widths, attends)
    if any(width < 128 for width in attending):
        raise _refused(
            "block_out_channels", widths, "128 channels and more where AttnSkip blocks are"
        )
    if head is not None and any(width != head for width in (*attending, widths[-1])):
        raise _refused("attention_head_dim", head, "None (one head), where Skip blocks are")
    return dict(
        fir=True,
        rescale=True,
        progressive_input="input_skip",
        progressive="output_skip",
        combine="sum",
        embedding=given["time_embedding_type"],
    )


def _attending(widths, attends):
    """The channels where there is attention, but for the middle."""
    return [width for width, here in zip(widths, attends) if here]


def _blocks(given):
    """("unet" or "ncsnpp", which levels attend) of the names of the blocks."""
    found = []
    for field, way in (("down_block_types", "Down"), ("up_block_types", "Up")):
        known = [f"{attn}{kind}{way}Block2D" for attn in ("", "Attn") for kind in KINDS]
        names = given[field]
        if not isinstance(names, (list, tuple)) or len(names) != len(given["block_out_channels"]):
            raise _refused(field, names, "one for each of block_out_channels")
        names = [name.removeprefix("UNetRes") for name in map(str, names)]  # their first releases
        if any(name not in known for name in names):
            raise _refused(field, given[field], ", ".join(known))
        found.append([("Skip" in name, name.startswith("Attn")) for name in names])
    down, up = found[0], found[1][::-1]
    if down != up or len({skip for skip, _ in down}) > 1:
        raise _refused(
            "up_block_types",
            given["up_block_types"],
            f"those of down_block_types = {shown(given['down_block_types'])}, in reverse",
        )
    return KINDS["Skip" if down[0][0] else ""], [attends for _, attends in down]


def image_shape(given: Mapping[str, Any]) -> tuple[int, int, int]:
    """[H, W, C] of the images, in pixels. Raises UserError unless they are square."""
    size, channels = given["sample_size"], given["in_channels"]
    height, width = size if isinstance(size, (list, tuple)) and len(size) == 2 else (size, size)
    if not _are_counts([height, width]) or height != width:
        raise _refused("sample_size", size, "the side of square images, in pixels")
    if not _are_counts([channels]):
        raise _refused("in_channels", channels, "at least 1")
    return height, width, channels


def with_defaults(file: str, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict:
    """All fields; those that begin with _ are about the file. Raises UserError for unknown ones."""
    for field, value in config.items():
        if field not in defaults and not field.startswith("_") and value is not None:
            raise UserError(
                f"{file} of diffusers: {field} = {shown(value)} is not a field that is known here; "
                f"known: {', '.join(defaults)}"
            )
    return dict(defaults) | {name: config[name] for name in defaults if name in config}


def accept(given: Mapping[str, Any], **choices: tuple) -> None:
    """Raises UserError for a field that has none of the values we have."""
    for field, known in choices.items():
        if not any(given[field] == value for value in known):
            raise _refused(field, given[field], " or ".join(map(repr, known)))


def _refused(field, value, supported):
    return UserError(f"diffusers' {field} = {shown(value)} is not supported here; only {supported}")


def _are_counts(values):
    return (
        isinstance(values, (list, tuple))
        and bool(values)
        and all(type(value) is int and value > 0 for value in values)
    )


def model_config(module: nn.Module, shape: tuple[int, ...]) -> dict[str, Any]:
    """The config.json of our UNet for images of this shape.

    Raises UserError that names the option for what UNet2DModel cannot be.
    """
    if not isinstance(module, UNet):
        raise UserError(
            f"only a unet can be a UNet2DModel of diffusers, got {type(module).__name__}"
        )
    module.check(shape)
    for option, value in (
        ("up_attention", "block"),
        ("resample_conv", True),
        ("conditional", True),
    ):
        if getattr(module, option) != value:
            raise UserError(
                f"model.{option} = {getattr(module, option)!r}: a UNet2DModel of diffusers has "
                f"{value!r}"
            )
    if shape[0] != shape[1]:
        raise UserError(f"diffusers needs square images here, got {shape[0]}x{shape[1]}")
    if module.multipliers[0] != 1:
        raise UserError(
            f"model.multipliers = {module.multipliers}: a UNet2DModel of diffusers begins with as "
            "many channels as its first blocks have, so the first must be 1"
        )
    widths = [multiplier * module.features for multiplier in module.multipliers]
    attends = [shape[0] >> level in module.attention for level in range(len(widths))]
    names = lambda way: [f"{'Attn' if here else ''}{way}Block2D" for here in attends]
    return (
        {"_class_name": "UNet2DModel", "_diffusers_version": "0.42.1"}
        | DEFAULTS
        | dict(
            sample_size=shape[0],
            in_channels=shape[2],
            out_channels=module.outputs * shape[2],
            center_input_sample=not module.centered,
            freq_shift=int(module.endpoint),
            flip_sin_to_cos=False,
            down_block_types=names("Down"),
            up_block_types=names("Up")[::-1],
            block_out_channels=widths,
            layers_per_block=module.blocks,
            downsample_padding=int(module.symmetric),
            dropout=module.dropout,
            attention_head_dim=module.head_channels or None,
            norm_num_groups=_groups(module, widths),
            norm_eps=module.epsilon,
            num_class_embeds=module.classes or None,
        )
    )


def _groups(module, widths):
    """The one number of groups that all norms have."""
    norm = Norm(module.groups, module.group_size, module.epsilon)
    joined = {a + b for a, b in zip(widths, widths[1:])} | {2 * width for width in widths}
    found = {norm(width).groups for width in {*widths, *joined}}
    if len(found) > 1:
        groups = ", ".join(map(str, sorted(found, key=lambda n: n or 0)))
        raise UserError(
            f"model.groups = {module.groups} with group_size = {module.group_size}: the norms have "
            f"{groups} groups, those of a UNet2DModel all as many"
        )
    return found.pop()
