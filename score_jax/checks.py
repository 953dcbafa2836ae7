"""Choices of different sections that must fit each other, checked before anything runs.

Each raises UserError that names both sides. config: the resolved config, as nested dicts.
"""

import math

import flax.linen as nn
import numpy as np

from score_jax.data.base import Dataset
from score_jax.data.order import evenly
from score_jax.errors import UserError
from score_jax.limits import check_at_most, check_memory
from score_jax.models.base import count, output_shape
from score_jax.processes import GaussianProcess
from score_jax.samplers.base import Sampler


def check_indexed(
    module: nn.Module, process: GaussianProcess, sampler: Sampler, config: dict
) -> None:
    """A network with one set of parameters a level sees those levels, and images in [0, 1]."""
    if module.levels != process.levels:
        raise UserError(
            f"config.model.levels = {module.levels}, but the process has "
            f"{process.levels or 'no'} levels; they must agree"
        )
    name = config["model"]["name"]
    for section, option, value in (
        ("parameterization", "condition", "level"),
        ("loss", "law", "ladder"),
        ("data", "centered", False),
    ):
        if config[section].get(option, value) != value:
            raise UserError(
                f"config.model.name = {name!r} has parameters for each level and takes images in "
                f"[0, 1]: it needs config.{section}.{option} = {value!r}, "
                f"got {config[section][option]!r}"
            )
    at, asked = config["loss"].get("at"), sampler.asked()
    if at is not None and not _are_levels(process, np.array([at])):
        raise UserError(
            f"config.model.name = {name!r} has parameters for each level only, and "
            f"config.loss.at = {at} is none of the {process.levels} levels i/{process.levels}"
        )
    if asked is None or not _are_levels(process, asked):
        raise UserError(
            f"config.model.name = {name!r} has parameters for each level only, and "
            f"config.sampler.name = {config['sampler']['name']!r} (config.guidance.name = "
            f"{config.get('guidance', {}).get('name', 'none')!r}) with these options asks between "
            f"them; use sampler.grid = 'ladder' with at most {process.levels} levels and end = 0, "
            "and a sampler that asks at the grid's times (annealed_langevin, ancestral, ddim, ...)"
        )


def _are_levels(process: GaussianProcess, times: np.ndarray) -> bool:
    """Whether all times are levels of the ladder, (i + 1)/N."""
    level = times * process.levels
    return bool(np.all((abs(level - np.round(level)) < 1e-6) & (level > 0.5)))


def check_at(process: GaussianProcess, config: dict) -> None:
    """On clean data a network can be asked for its score only, and not told a log σ."""
    at, parameterization = config["loss"].get("at"), config["parameterization"]
    if at is None or float(process.sigma(at)) > 0.0:
        return
    for option, value, good in (
        ("view", parameterization["view"], ("score",)),
        ("condition", parameterization["condition"], ("time", "level", "reversed_level")),
    ):
        if value not in good:
            raise UserError(
                f"config.loss.at = {at} is a time without noise: it needs config.parameterization."
                f"{option} = {' or '.join(map(repr, good))}, got {value!r}"
            )


def check_sigma_data(config: dict) -> None:
    """EDM's σ_d is one number: that of the network and that of its loss."""
    loss, parameterization = config["loss"], config["parameterization"]
    uses_it = loss.get("view") == "F" or loss.get("weight") == "edm"
    if parameterization["view"] != "F" or not uses_it:
        return
    if loss["sigma_data"] != parameterization["sigma_data"]:
        raise UserError(
            f"config.loss.sigma_data = {loss['sigma_data']} and config.parameterization.sigma_data "
            f"= {parameterization['sigma_data']} must agree"
        )


def check_density(data: Dataset, config: dict) -> None:
    """Explicit score matching needs the data's own density."""
    density = config["loss"].get("density")
    if density is not None and density != data.name:
        raise UserError(
            f"config.loss.density = {density!r} is not the density of the data, {data.name}; "
            f"explicit score matching needs config.data.name = 'toy', data.density = {density!r}"
        )


MOST_LAYERS = 1_000  # written out one after the other in the program
MOST_CHANNELS = 100_000
COPIES = 4  # of the parameters: themselves, their average and two moments of their gradient


def check_network(module: nn.Module, shape: tuple[int, ...], config: dict) -> None:
    """The state of training fits into memory. shape: of what the network sees."""
    for name, most in (
        ("depth", MOST_LAYERS),
        ("blocks", MOST_LAYERS),
        ("multipliers", MOST_LAYERS),
        ("width", MOST_CHANNELS),
        ("features", MOST_CHANNELS),
        ("outputs", MOST_CHANNELS),
    ):
        value = getattr(module, name, 0)
        check_at_most(f"config.model.{name}", max(value) if type(value) is tuple else value, most)
    parameters = count(module, shape)
    numbers = {name: v for name, v in config["model"].items() if type(v) in (int, tuple)}
    given = ", ".join(f"{name} = {value}" for name, value in numbers.items())
    check_memory(
        f"config.model: the {parameters:,} parameters of {config['model']['name']} with {given}, "
        f"their average and Adam's moments",
        4 * COPIES * parameters,
        "make it smaller",
    )


def test_section(data: dict, test: dict) -> dict:
    """The options of the test data: those of the data, but for what `test` says."""
    same = test.get("name", data["name"]) == data["name"]
    section = (data if same else {}) | test
    if section == data:
        raise UserError(
            "config.test names the data that are trained on; give what is different about it, "
            "such as config.test.split = 'test', or leave the section out"
        )
    return section


def check_test(data: Dataset, test: Dataset) -> None:
    """The test data are like the data, and there are some."""
    if test.shape != data.shape or not len(test.examples):
        raise UserError(
            f"config.test: {len(test.examples)} examples of shape {test.shape} of {test.name}, but "
            f"the data {data.name} are of shape {data.shape}; they must agree"
        )
    shared, looked_at = _shared(data.examples, test.examples)
    if shared > looked_at / 2:
        raise UserError(
            f"config.test: {shared} of {looked_at} examples of {test.name} are among the data that "
            f"are trained on, {data.name}; take others (for digits and mnist5k: data.split = "
            "'train')"
        )


LOOKED_AT = 1_000, 2**28  # test examples, and bytes of data, that are searched for doubles


def _shared(data: np.ndarray, test: np.ndarray) -> tuple[int, int]:
    """(how many of the test examples are in the data, how many were looked for)."""
    some = test[evenly(min(LOOKED_AT[0], len(test)), len(test))]
    most = max(1, LOOKED_AT[1] // data[0].nbytes)
    known = {hash(row.tobytes()) for row in data[:most]}
    return sum(hash(row.tobytes()) in known for row in some), len(some)


def check_centered(module: nn.Module, config: dict) -> None:
    """A network that makes [0, 1] to [-1, 1] itself must know which of them it gets."""
    theirs, ours = getattr(module, "centered", None), config["data"]["centered"]
    if theirs is not None and theirs != ours:
        raise UserError(
            f"config.model.centered = {theirs} and config.data.centered = {ours} must agree"
        )


def check_batches(data: Dataset, config: dict) -> None:
    """What is trained on in a call, and what is drawn in all, fits into memory."""
    example = 4 * math.prod(data.shape)
    size, calls = (config["training"][name] for name in ("batch_size", "steps_per_call"))
    together = f", {calls} times in a call," if calls > 1 else ""
    check_memory(
        f"config.training.batch_size = {size} examples{together}",
        size * calls * example,
        "take fewer at a time",
    )
    samples, number = config["evaluation"]["samples"], 1 if data.is_images else 4
    size = samples * number * math.prod(data.shape)
    check_memory(f"config.evaluation.samples = {samples}", 2 * size, "draw fewer")


def check_learned_variance(module: nn.Module, shape: tuple[int, ...], config: dict) -> None:
    """Learned variances need a network that puts them out, and a loss that trains them.

    shape: of what the network sees.
    """
    learned = config["parameterization"]["learned_variance"]
    channels, outputs = shape[-1], 2 if learned else 1
    if learned or getattr(module, "outputs", 1) != 1:  # else not worth the second it takes
        got = output_shape(module, shape)[-1]
        if got != outputs * channels:
            raise UserError(
                f"config.parameterization.learned_variance = {learned} needs a network with "
                f"{outputs * channels} outputs for the {channels} channels it sees, got {got}; "
                f"use config.model.outputs = {outputs} (mlp, unet)"
            )
    loss, sampler = config["loss"], config["sampler"]
    trains = loss["name"] == "hybrid" or loss.get("variance") == "learned"
    if trains and not learned:
        raise UserError(
            f"config.loss.name = {loss['name']!r} trains the variances of the reverse steps: it "
            "needs config.parameterization.learned_variance = True and config.model.outputs = 2"
        )
    if learned and not trains:
        raise UserError(
            "config.parameterization.learned_variance = True needs a loss that trains the "
            "variances: config.loss.name = 'hybrid', or 'variational' with loss.variance = "
            f"'learned'; got {loss['name']!r}"
        )
    if sampler.get("variance") == "learned" and not learned:
        raise UserError(
            "config.sampler.variance = 'learned' needs "
            "config.parameterization.learned_variance = True"
        )


def check_decoder(data: Dataset, config: dict) -> None:
    """A discretized decoder gives probabilities to the gray levels that the data are made of."""
    loss = config["loss"]
    if loss.get("decoder") != "discretized":
        return
    if not data.is_images:
        raise UserError(
            "config.loss.decoder = 'discretized' is for the gray levels of images, and the data "
            "are points; use 'gaussian'"
        )
    for option, value in (("centered", loss["centered"]), ("dequantize", False)):
        if config["data"][option] != value:
            raise UserError(
                f"config.data.{option} = {config['data'][option]!r} does not fit config.loss."
                f"decoder = 'discretized' with loss.centered = {loss['centered']!r}, which needs "
                f"data.{option} = {value!r}"
            )


def check_points(config: dict) -> None:
    """Points have no range to clip to, no mirror image and no gray levels."""
    for section, option, value in (
        ("sampler", "clip", False),
        ("data", "flip", False),
        ("data", "dequantize", False),
        ("evaluation", "features", "none"),
    ):
        if config[section][option] != value:
            raise UserError(
                f"config.{section}.{option} = {config[section][option]!r} is for images, and the "
                f"data are points; use {value!r}"
            )
