"""UNet2DModel of diffusers: its outputs, its folders in both directions, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from goldens import cases, golden
from safetensors.numpy import save_file

from score_jax.build import build
from score_jax.errors import UserError
from score_jax.interop import diffusers
from score_jax.interop.diffusers import sections, source, weights
from score_jax.interop.diffusers_config import model_section
from score_jax.interop.mapping import convert, shapes
from score_jax.models import MODELS
from score_jax.models.base import count

pytestmark = pytest.mark.usefixtures("quick_compile")

WEIGHTS = "diffusion_pytorch_model.safetensors"
VE = {"_class_name": "ScoreSdeVeScheduler"}


def made(section):
    return MODELS[section["name"]](**{k: v for k, v in section.items() if k != "name"})


def imported(config, tensors, shape):
    module = made(model_section(config))
    parameters = shapes(module, shape)
    return module, convert(diffusers.rules(module, shape, parameters, config), tensors, parameters)


def answer(module, params, x, c, label=None):
    """What UNet2DModel puts out: a network of Fourier features is divided by σ there."""
    fourier = getattr(module, "embedding", None) == "fourier"
    told = {} if label is None else {"label": label}
    call = lambda params, x, c: module.apply({"params": params}, x, c, **told)
    y = jax.jit(call)(params, x, jnp.log(c) if fourier else c)
    return np.asarray(y / c[:, None, None, None] if fourier else y)


def error(ours, theirs):
    """The larger one of the relative errors of the examples."""
    axes = (1, 2, 3)
    return np.max(np.sum((ours - theirs) ** 2, axes) / np.sum(theirs**2, axes)) ** 0.5


def write(folder, config, tensors=None, scheduler=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if tensors is not None:
        save_file(tensors, folder / WEIGHTS)
    if scheduler is not None:
        (folder / "scheduler_config.json").write_text(json.dumps(scheduler))
    return folder


@pytest.mark.parametrize("case", cases("diffusers"))
def test_the_network_is_theirs(case):
    found = golden("diffusers", case)
    module, params = imported(found.options, found.tensors, found.x.shape[1:])
    assert error(answer(module, params, found.x, found.c, found.label), found.y) < 1e-5


def test_published_networks_have_the_published_size():
    """google/ddpm-cifar10-32 and google/ncsnpp-celebahq-256."""
    plain = [f"{'Attn' * (i == 1)}DownBlock2D" for i in range(4)]
    skip = [f"{'Attn' * (i == 4)}SkipDownBlock2D" for i in range(7)]
    up = lambda names: [name.replace("Down", "Up") for name in reversed(names)]
    common = dict(attention_head_dim=None, norm_eps=1e-6, flip_sin_to_cos=False)
    cifar = dict(
        sample_size=32,
        down_block_types=plain,
        up_block_types=up(plain),
        block_out_channels=[128, 256, 256, 256],
        downsample_padding=0,
        freq_shift=1,
    )
    celeba = dict(
        sample_size=256,
        down_block_types=skip,
        up_block_types=up(skip),
        block_out_channels=[128, 128, 256, 256, 256, 256, 256],
        mid_block_scale_factor=2**0.5,
        norm_num_groups=None,
        time_embedding_type="fourier",
        center_input_sample=True,
    )
    assert count(made(model_section(common | cifar)), (32, 32, 3)) == 35_746_307
    assert model_section(common | celeba)["attention"] == (16,)
    assert count(made(model_section(common | celeba)), (256, 256, 3)) == 65_574_549


def test_weights_of_the_first_releases(tmp_path):
    """query, key, value, proj_attn; and time_proj.W, which is time_proj.weight once more."""
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    found = golden("diffusers", "ncsnpp")
    tensors = dict(found.tensors)
    for name in found.tensors:
        for new, old in older.items():
            if f".attentions.0.{new}." in name:
                tensors[name.replace(new, old)] = tensors.pop(name)
    assert any("proj_attn" in name for name in tensors)
    tensors["time_proj.W"] = tensors["time_proj.weight"]
    there = weights(write(tmp_path, found.options, tensors))
    assert set(there) == set(found.tensors) and len(there) == len(found.tensors)
    imported(found.options, there, found.x.shape[1:])


def test_weights_in_parts_and_pipelines(tmp_path):
    found = golden("diffusers", "classes")
    home = write(tmp_path / "unet", found.options)
    with pytest.raises(UserError, match="has no diffusion_pytorch_model.safetensors"):
        weights(tmp_path)
    names = sorted(found.tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: found.tensors[name] for name in part}, home / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (home / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    imported(found.options, weights(tmp_path), found.x.shape[1:])
    write(tmp_path / "scheduler", {}, scheduler=dict(_class_name="DDPMScheduler", beta_end=0.01))
    (tmp_path / "model_index.json").write_text('{"_x": 1, "unet": [], "scheduler": []}')
    assert source(tmp_path).sections()["process"]["beta_max"] == 0.01
    (tmp_path / "model_index.json").write_text('{"unet": [], "vqvae": []}')
    with pytest.raises(UserError, match="pipeline with vqvae besides"):
        weights(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", None])
def test_what_is_no_folder_of_a_model(text, tmp_path):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="config.json"):
        source(tmp_path)


REFUSED = {  # of a network: case, fields
    "_class_name = 'UNet1DModel'": ("ddpm", dict(_class_name="UNet1DModel")),
    "sample_size = None": ("ddpm", dict(sample_size=None)),
    r"sample_size = \[16, 32\]": ("ddpm", dict(sample_size=[16, 32])),
    "in_channels = '3'": ("ddpm", dict(in_channels="3")),
    "out_channels = 4": ("ddpm", dict(out_channels=4)),
    r"block_out_channels = \[16, 24": ("ddpm", dict(block_out_channels=[16, 24, 32, 32])),
    "block_out_channels = 16": ("ddpm", dict(block_out_channels=16)),
    "mid_block_type = None": ("ddpm", dict(mid_block_type=None)),
    "add_attention = False": ("ddpm", dict(add_attention=False)),
    "act_fn = 'gelu'": ("ddpm", dict(act_fn="gelu")),
    "resnet_time_scale_shift = 'scale_shift'": (
        "ddpm",
        dict(resnet_time_scale_shift="scale_shift"),
    ),
    "downsample_type = 'resnet'": ("ddpm", dict(downsample_type="resnet")),
    "upsample_type = 'resnet'": ("ddpm", dict(upsample_type="resnet")),
    "class_embed_type = 'timestep'": ("ddpm", dict(class_embed_type="timestep")),
    "time_embedding_type = 'learned'": ("ddpm", dict(time_embedding_type="learned")),
    "time_embedding_type = 'fourier'": ("ddpm", dict(time_embedding_type="fourier")),
    "time_embedding_dim = 32": ("ddpm", dict(time_embedding_dim=32)),
    "freq_shift = 2": ("ddpm", dict(freq_shift=2)),
    "downsample_padding = 2": ("ddpm", dict(downsample_padding=2)),
    "mid_block_scale_factor = 1.5": ("ddpm", dict(mid_block_scale_factor=1.5)),
    "norm_num_groups = 5": ("ddpm", dict(norm_num_groups=5)),
    "norm_num_groups = None": ("ddpm", dict(norm_num_groups=None)),
    "attn_norm_num_groups = 4": ("ddpm", dict(attn_norm_num_groups=4)),
    "attention_head_dim = 12": ("ddpm", dict(attention_head_dim=12)),
    r"down_block_types = \['ResnetDown": (
        "modern",
        dict(down_block_types=["ResnetDownsampleBlock2D", "AttnDownBlock2D"]),
    ),
    "down_block_types = .* one for each": ("modern", dict(down_block_types=["DownBlock2D"])),
    "up_block_types = .* in reverse": ("modern", dict(up_block_types=2 * ["UpBlock2D"])),
    "dual = 7 is not a field": ("ddpm", dict(dual=7)),
    "norm_eps = 1e-05": ("ncsnpp", dict(norm_eps=1e-5)),
    "num_class_embeds = 5": ("ncsnpp", dict(num_class_embeds=5)),
    "attention_head_dim = 8": ("ncsnpp", dict(attention_head_dim=8)),
    "mid_block_scale_factor = 1 ": ("ncsnpp", dict(mid_block_scale_factor=1)),
    "norm_num_groups = 8": ("ncsnpp", dict(norm_num_groups=8)),
    "128 channels and more": ("ncsnpp", dict(block_out_channels=[16, 32, 64])),
    "freq_shift = 0": ("ncsnpp_positional", dict(freq_shift=0)),
}


@pytest.mark.parametrize("match", REFUSED)
def test_networks_that_ours_cannot_be_are_refused(match):
    case, fields = REFUSED[match]
    with pytest.raises(UserError, match=match):
        model_section(golden("diffusers", case).options | fields)


def test_fields_of_other_releases_are_no_harm():
    config = golden("diffusers", "ddpm").options
    older = {"_name_or_path": "x", "decoder": None}
    older["down_block_types"] = [f"UNetRes{name}" for name in config["down_block_types"]]
    assert model_section(config | older) == model_section(config)


SOLVER = {"_class_name": "DPMSolverMultistepScheduler"}
DRAWN = {  # scheduler_config.json, what is expected of our sections
    "none": (None, dict(process="ddpm", sampler="ancestral", variance="small", clip=True)),
    "large": (
        {"_class_name": "DDPMScheduler", "variance_type": "fixed_large", "tensor_format": "pt"},
        dict(process="ddpm", sampler="ancestral", variance="large", steps=1000),
    ),
    "x0": ({"_class_name": "DDPMScheduler", "predict_epsilon": False}, dict(view="x0")),
    "v": (
        {
            "_class_name": "DDIMScheduler",
            "prediction_type": "v_prediction",
            "beta_schedule": "scaled_linear",
            "clip_sample": False,
        },
        dict(process="ddpm_quadratic", sampler="ddim", view="v", start=0.981, clip=False),
    ),
    "pndm": ({"_class_name": "PNDMScheduler"}, dict(sampler="deis", view="eps")),
    "unipc": ({"_class_name": "UniPCMultistepScheduler"}, dict(sampler="unipc", order=2)),
    "2m": (SOLVER, dict(sampler="dpm_solver_pp_2m", eta=0.0, clip=False)),
    "3m": (SOLVER | dict(solver_order=3), dict(sampler="dpm_solver_pp_3m", common=True)),
    "sde": (SOLVER | dict(algorithm_type="sde-dpmsolver++"), dict(eta=1.0)),
    "ve": (VE | dict(sigma_max=99.0), dict(process="ve", view="scaled_score", steps=1999)),
}


@pytest.mark.parametrize("case", DRAWN)
def test_a_folder_is_a_whole_config(case, tmp_path):
    scheduler, expected = DRAWN[case]
    config = golden("diffusers", "ncsnpp" if case == "ve" else "modern").options
    config = build(sections(write(tmp_path, config, scheduler=scheduler))).config
    found = config["parameterization"] | config["sampler"]
    found |= dict(process=config["process"]["name"], sampler=config["sampler"]["name"])
    assert {name: found[name] for name in expected} == expected


def test_a_network_with_learned_variances_is_one_of_two_outputs(tmp_path):
    config = golden("diffusers", "ddpm").options | dict(out_channels=6)
    scheduler = {"_class_name": "DDPMScheduler", "variance_type": "learned_range"}
    assert sections(write(tmp_path, config, scheduler=scheduler))["loss"] == {"name": "hybrid"}


UNDRAWN = {  # of a scheduler: case, fields
    "'FlaxScheduler'": ("ddpm", dict(_class_name="FlaxScheduler")),
    "'squaredcos_cap_v2'": ("ddpm", dict(beta_schedule="squaredcos_cap_v2")),
    "trained_betas": ("ddpm", dict(trained_betas=[0.1])),
    "thresholding": ("ddpm", dict(thresholding=True)),
    "clip_sample_range": ("ddpm", dict(clip_sample_range=2.0)),
    "rescale_betas_zero_snr": ("ddpm", dict(rescale_betas_zero_snr=True)),
    "steps_offset": ("ddpm", dict(steps_offset=1)),
    "variance_type": ("ddpm", dict(variance_type="learned")),
    "prediction_type": ("ddpm", dict(prediction_type="flow_prediction")),
    "num_train_timesteps": ("ddpm", dict(num_train_timesteps="many")),
    "set_alpha_to_one": ("ddpm", dict(_class_name="DDIMScheduler", set_alpha_to_one=False)),
    "use_karras_sigmas": ("ddpm", SOLVER | dict(use_karras_sigmas=True)),
    "solver_type": ("ddpm", SOLVER | dict(solver_type="heun")),
    "solver_order": ("ddpm", SOLVER | dict(solver_order=3, algorithm_type="sde-dpmsolver++")),
    "dual = 1 is not a field": ("ddpm", dict(dual=1)),
    "do not go together": ("ddpm", VE),
    "center_input_sample = True": ("gray", dict()),
}


@pytest.mark.parametrize("match", UNDRAWN)
def test_schedulers_that_are_not_here_are_refused(match, tmp_path):
    case, fields = UNDRAWN[match]
    config = golden("diffusers", case).options | dict(out_channels=3, in_channels=3)
    folder = write(tmp_path, config, scheduler={"_class_name": "DDPMScheduler"} | fields)
    with pytest.raises(UserError, match=match):
        sections(folder)


def test_images_of_latents_are_refused(tmp_path):
    config = golden("diffusers", "ddpm").options | dict(in_channels=4, out_channels=4)
    with pytest.raises(UserError, match="in_channels = 4"):
        sections(write(tmp_path, config))
