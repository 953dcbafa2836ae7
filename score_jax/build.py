"""The composition root: one config becomes one Experiment, and every choice is checked here.

    experiment = build(config)
    experiment.loss(key, predict, x_0)

No other file knows both the names in a config and the things they stand for.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from score_jax import checks
from score_jax.data import DATASETS
from score_jax.data.base import Dataset
from score_jax.data.encoding import Encoding
from score_jax.errors import UserError, shown, unknown
from score_jax.losses import LOSSES
from score_jax.losses.base import LossFn
from score_jax.models import MODELS
from score_jax.models.base import Params, as_net, is_conditional
from score_jax.options import check_options, choose, options_of
from score_jax.parameterization import (
    Parameterization,
    check_parameterization,
    check_start,
    make_predict,
)
from score_jax.predictions import Net, PredictFn, clipped
from score_jax.processes import PROCESSES, GaussianProcess
from score_jax.samplers import SAMPLERS
from score_jax.samplers.base import Sampler
from score_jax.sections import Computing, Drawing, Evaluation, Likelihood, Reading, Training
from score_jax.types import Array, Key

SECTIONS = (
    "data",
    "process",
    "model",
    "parameterization",
    "loss",
    "sampler",
    "training",
    "evaluation",
    "likelihood",
    "test",
)
OPTIONAL = ("likelihood", "test")  # sections that a config may leave out


class Experiment(NamedTuple):
    """All that one config names, built and checked. `config` is the resolved config.

    test: data that are not trained on, or None.
    """

    config: dict[str, Any]
    data: Dataset
    test: Dataset | None
    encoding: Encoding
    process: GaussianProcess
    module: nn.Module
    dtype: str
    parameterization: Parameterization
    loss: LossFn
    draws: str
    sampler: Sampler
    clip: bool
    training: Training
    evaluation: Evaluation
    likelihood: Likelihood

    def on_test(self) -> "Experiment":
        """The same with the test data in the place of the data, where there are any."""
        return self if self.test is None else self._replace(data=self.test)

    def net(
        self, params: Params, *, label: Array | None = None, dropout_key: Key | None = None
    ) -> Net:
        """The network of one example, with these parameters; in training with a dropout_key.

        label: the example's class, where the network is told classes; -1 or None for no class.
        """
        told = label if is_conditional(self.module) else None
        options = dict(label=told, dropout_key=dropout_key, dtype=self.dtype)
        return as_net(self.module, params, **options)

    def labels_of(self, indices: np.ndarray) -> np.ndarray:
        """[N] int32: the classes of these examples of the data, -1 where they have none."""
        labels = self.data.labels
        return np.full(indices.shape, -1, np.int32) if labels is None else labels[indices]

    def examples_at(self, indices: Iterable[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(indices int32 [N], their classes [N], examples [N, ...]) of the data."""
        indices = np.asarray(list(indices), np.int32)
        return indices, self.labels_of(indices), self.data.examples[indices]

    def labels(self, indices: np.ndarray) -> np.ndarray:
        """[N] int32: the classes of the samples with these indices, as the evaluation asks.

        evaluation.label, or each class in turn; -1 where the network knows none.
        """
        if not is_conditional(self.module):
            return np.full(indices.shape, -1, np.int32)
        label = self.evaluation.label
        turn = indices % self.module.classes
        return np.asarray(turn if label is None else np.full(indices.shape, label), np.int32)

    def predict(self, net: Net) -> PredictFn:
        """What the network says, as the loss sees it."""
        return make_predict(net, self.process, self.parameterization)

    def sampling_predict(self, net: Net) -> PredictFn:
        """What the network says, as the sampler sees it: x0 within the data's range if asked."""
        predict = self.predict(net)
        return clipped(predict, self.process, self.encoding.low, 1.0) if self.clip else predict


FAMILIES = {
    "data": (DATASETS, Encoding),
    "test": (DATASETS, None),
    "process": (PROCESSES, None),
    "model": (MODELS, Computing),
    "loss": (LOSSES, Drawing),
    "sampler": (SAMPLERS, Reading),
}


def known_options(section: str, name: Any) -> set[str] | None:
    """The options that a section has under a name; None where there is no such name."""
    table, shared = FAMILIES.get(section, ({}, None))
    if not isinstance(name, str) or name not in table:
        return None
    return set(options_of(table[name])) | set(_names(shared) if shared else ())


def build(config: Mapping[str, Any], loaded: Experiment | None = None) -> Experiment:
    """The Experiment of a config. Raises UserError for whatever could not run, before it runs.

    loaded: another experiment, of a config with the same data, which are then not loaded again.
    """
    sections = {name: {} for name in OPTIONAL} | _plain(config)
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
        names = _names(kind)
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

    def make(family, table, *args, also=(), there=None):
        """What the section names, made with its options, unless it is there."""
        factory, options = choose(family, table, sections[family], also)
        resolved[family] |= {"name": sections[family]["name"]} | options
        return factory(*args, **options) if there is None else there

    training, evaluation = whole("training", Training), whole("evaluation", Evaluation)
    process = make("process", PROCESSES)
    parameterization = whole("parameterization", Parameterization)
    check_parameterization(process, parameterization)
    drawing = take("loss", Drawing)
    loss = make("loss", LOSSES, process, also=_names(Drawing))
    reading = take("sampler", Reading)
    sampler = make("sampler", SAMPLERS, process, also=_names(Reading))
    asked_first = sampler.schedule[0][0] if sampler.steps else sampler.start
    check_start(process, parameterization.view, float(asked_first))
    checks.check_at(process, resolved)
    checks.check_sigma_data(resolved)
    computing = take("model", Computing)
    module = make("model", MODELS, also=_names(Computing))
    encoding = take("data", Encoding)
    if hasattr(module, "levels"):
        checks.check_indexed(module, process, sampler, resolved)
    data = make("data", DATASETS, also=_names(Encoding), there=loaded and loaded.data)
    module.check(data.shape)
    checks.check_network(module, data, resolved)
    checks.check_batches(data, resolved)
    checks.check_classes(module, data, resolved)
    if len(data.examples) and sections["test"]:
        mine = {name: resolved["data"][name] for name in sections["data"]}
        sections["test"] = checks.test_section(mine, sections["test"])
        test = make("test", DATASETS, there=loaded and loaded.test)
        if loaded is None:  # which reads much of the data
            checks.check_test(module, data, test, resolved)
    else:
        test = None
    checks.check_learned_variance(module, data, resolved)
    checks.check_decoder(data, resolved)
    checks.check_centered(module, resolved)
    checks.check_density(data, resolved)
    if not data.is_images:
        checks.check_points(resolved)

    return Experiment(
        config=resolved,
        data=data,
        test=test,
        encoding=encoding,
        process=process,
        module=module,
        dtype=computing.dtype,
        parameterization=parameterization,
        loss=loss,
        draws=drawing.draws,
        sampler=sampler,
        clip=reading.clip,
        training=training,
        evaluation=evaluation,
        likelihood=whole("likelihood", Likelihood),
    )


def _names(kind: type) -> set[str]:
    """The options that a class of options has."""
    return set(kind.__annotations__)


def _plain(config) -> dict[str, Any]:
    """Nested dicts, with tuples, of a ConfigDict or of any mapping."""
    if hasattr(config, "to_dict"):
        return config.to_dict()
    for name, section in config.items():
        if not isinstance(section, Mapping):
            raise UserError(
                f"config.{name} must be a section {{option: value}}, got {shown(section)}"
            )
    return {name: dict(section) for name, section in config.items()}
