"""The composition root: one config becomes one Experiment, and every choice is checked here.

    experiment = build(config)
    experiment.loss(key, predict, x_0)

No other file knows both the names in a config and the things they stand for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn

from score_jax.data import DATASETS
from score_jax.data.base import Dataset
from score_jax.data.encoding import Encoding
from score_jax.errors import UserError, unknown
from score_jax.losses import LOSSES
from score_jax.losses.denoising import LossFn
from score_jax.models import MODELS
from score_jax.options import check_options, choose, options_of
from score_jax.predictions import (
    Net,
    Parameterization,
    PredictFn,
    check_parameterization,
    clipped,
    make_predict,
)
from score_jax.processes import PROCESSES, GaussianProcess
from score_jax.samplers import SAMPLERS
from score_jax.samplers.base import Sampler

SECTIONS = (
    "data",
    "process",
    "model",
    "parameterization",
    "loss",
    "sampler",
    "training",
    "evaluation",
)


@dataclass(frozen=True)
class Training:
    """The options of config.training.

    steps: updates of the parameters, each on batch_size examples. seed: of parameters,
    data order and every random draw. learning_rate: Adam's, reached linearly after
    `warmup` steps. clip: the gradient's largest global norm, or None. ema: decay of the
    exponential moving average of the parameters, which starts as (1 + n)/(10 + n) and
    stays at its value once it is reached; samples are drawn with the average.
    steps_per_call: updates in one compiled call (pays on an accelerator, not on a CPU).
    log_every, sample_every, checkpoint_every: in steps. keep: the newest checkpoints
    kept; keep_every: besides, every checkpoint at a multiple of it is kept for good.
    """

    steps: int
    batch_size: int
    seed: int = 0
    learning_rate: float = 2e-4
    warmup: int = 0
    clip: float | None = None
    beta1: float = 0.9
    beta2: float = 0.999
    adam_eps: float = 1e-8
    ema: float = 0.999
    steps_per_call: int = 1
    log_every: int = 100
    sample_every: int = 5_000
    checkpoint_every: int = 5_000
    keep: int = 2
    keep_every: int | None = None

    def __post_init__(self):
        every = ("log_every", "sample_every", "checkpoint_every")
        for name in ("steps", "batch_size", "steps_per_call", *every, "keep", "keep_every"):
            _require(self, name, lambda value: value is None or value >= 1, "at least 1")
        for name in ("learning_rate", "clip", "adam_eps"):
            _require(self, name, lambda value: value is None or value > 0, "positive")
        for name in ("beta1", "beta2", "ema"):
            _require(self, name, lambda value: 0 <= value < 1, "in [0, 1)")
        _require(self, "warmup", lambda value: value >= 0, "at least 0")
        _require(self, "seed", lambda value: 0 <= value < 2**32, "in [0, 2^32)")
        per_call = self.steps_per_call
        for name in ("steps", *every):
            expected = f"a multiple of training.steps_per_call = {per_call}"
            _require(self, name, lambda value: value % per_call == 0, expected)


@dataclass(frozen=True)
class Evaluation:
    """The options of config.evaluation.

    samples: how many are drawn after training and judged. batch_size: how many at a time.
    seed: of the draws; sample i depends on (seed, i) alone. features: what they are
    compared by: "classifier" (a small network trained on the data's labels) or "none"
    (the numbers themselves).
    """

    samples: int = 1_000
    batch_size: int = 500
    seed: int = 0
    features: str = "classifier"

    def __post_init__(self):
        for name in ("samples", "batch_size"):
            _require(self, name, lambda value: value >= 1, "at least 1")
        _require(self, "seed", lambda value: 0 <= value < 2**32, "in [0, 2^32)")
        if self.features not in ("classifier", "none"):
            raise unknown("evaluation.features", self.features, ("classifier", "none"))


def _require(section: Any, name: str, holds: Callable[[Any], bool], expected: str) -> None:
    value = getattr(section, name)
    if not holds(value):
        family = type(section).__name__.lower()
        raise UserError(f"config.{family}.{name} must be {expected}, got {value}")


class Reading(NamedTuple):
    """The options of config.sampler that every sampler has.

    clip: x0 is clipped to the data's range at every step (Ho et al. 2020's code).
    """

    clip: bool = False


class Experiment(NamedTuple):
    """All that one config names, built and checked. `config` is the resolved config."""

    config: dict[str, Any]
    data: Dataset
    encoding: Encoding
    process: GaussianProcess
    module: nn.Module
    parameterization: Parameterization
    loss: LossFn
    sampler: Sampler
    clip: bool
    training: Training
    evaluation: Evaluation

    def predict(self, net: Net) -> PredictFn:
        """What the network says, as the loss sees it."""
        return make_predict(net, self.process, self.parameterization)

    def sampling_predict(self, net: Net) -> PredictFn:
        """What the network says, as the sampler sees it: x0 within the data's range if asked."""
        predict = self.predict(net)
        return clipped(predict, self.process, self.encoding.low, 1.0) if self.clip else predict


FAMILIES = {
    "data": (DATASETS, Encoding),
    "process": (PROCESSES, None),
    "model": (MODELS, None),
    "loss": (LOSSES, None),
    "sampler": (SAMPLERS, Reading),
}


def known_options(section: str, name: Any) -> set[str] | None:
    """The options that a section has under a name; None where there is no such name."""
    table, shared = FAMILIES.get(section, ({}, None))
    if not isinstance(name, str) or name not in table:
        return None
    return set(options_of(table[name])) | set(shared._fields if shared else ())


def build(config: Mapping[str, Any]) -> Experiment:
    """The Experiment of a config. Raises UserError for whatever could not run, before it runs."""
    sections = _plain(config)
    for name in sections:
        if name not in SECTIONS:
            raise unknown("config section", name, SECTIONS)
    missing = [name for name in SECTIONS if name not in sections]
    if missing:
        raise UserError(f"the config lacks the section {', '.join(missing)}")
    resolved = {name: {} for name in SECTIONS}

    def take(family, kind):
        """The options of `kind`, out of a section that may hold others'."""
        section = sections[family]
        names = set(kind.__annotations__)
        mine = {key: section[key] for key in section if key in names}
        sections[family] = {key: section[key] for key in section if key not in names}
        options = check_options(f"config.{family}", kind, mine)
        resolved[family] |= options
        return kind(**options)

    def whole(family, kind):
        """The options of `kind`, which has the section to itself."""
        options = check_options(f"config.{family}", kind, sections[family])
        resolved[family] = options
        return kind(**options)

    def make(family, table, *args, also=()):
        """What the section names, made with its options."""
        factory, options = choose(family, table, sections[family], also)
        resolved[family] |= {"name": sections[family]["name"]} | options
        return factory(*args, **options)

    training, evaluation = whole("training", Training), whole("evaluation", Evaluation)
    process = make("process", PROCESSES)
    parameterization = whole("parameterization", Parameterization)
    check_parameterization(process, parameterization)
    loss = make("loss", LOSSES, process)
    reading = take("sampler", Reading)
    sampler = make("sampler", SAMPLERS, process, also=Reading._fields)
    module = make("model", MODELS)
    encoding = take("data", Encoding)
    if hasattr(module, "levels"):
        _check_indexed(module, process, resolved)
    data = make("data", DATASETS, also=Encoding._fields)
    module.check(data.shape)
    if not data.is_images:
        _check_points(resolved)

    return Experiment(
        config=resolved,
        data=data,
        encoding=encoding,
        process=process,
        module=module,
        parameterization=parameterization,
        loss=loss,
        sampler=sampler,
        clip=reading.clip,
        training=training,
        evaluation=evaluation,
    )


def _check_indexed(module: nn.Module, process: GaussianProcess, config: dict) -> None:
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
        if config[section].get(option) != value:
            raise UserError(
                f"config.model.name = {name!r} has parameters for each level and takes images in "
                f"[0, 1]: it needs config.{section}.{option} = {value!r}, "
                f"got {config[section].get(option)!r}"
            )


def _check_points(config: dict) -> None:
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


def _plain(config) -> dict[str, Any]:
    """Nested dicts, with tuples, of a ConfigDict or of any mapping."""
    if hasattr(config, "to_dict"):
        return config.to_dict()
    for name, section in config.items():
        if not isinstance(section, Mapping):
            raise UserError(f"config.{name} must be a section {{option: value}}, got {section!r}")
    return {name: dict(section) for name, section in config.items()}
