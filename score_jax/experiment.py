"""All that one config names, built and checked, and what follows from it for one example."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from score_jax.data.base import Dataset
from score_jax.data.encoding import Encoding
from score_jax.given.given import Given
from score_jax.given.options import Guidance
from score_jax.guidance import by_classifier, extrapolated
from score_jax.losses.base import LossFn
from score_jax.models.base import Params, as_net, beside_shape, is_conditional
from score_jax.parameterization import Parameterization, make_predict
from score_jax.predictions import Net, PredictFn, clipped
from score_jax.processes import GaussianProcess
from score_jax.samplers.base import Sampler
from score_jax.sections import Computing, Evaluation, Likelihood, Training
from score_jax.types import Array, Key


class Experiment(NamedTuple):
    """All that one config names, built and checked. `config` is the resolved config.

    test: data that are not trained on, or None. given: what samples are given besides their class.
    guide: the experiment whose network guides the samples of this one, where it is another's
    (config.guidance.by); samples are not guided by it before it is there.
    """

    config: dict[str, Any]
    data: Dataset
    test: Dataset | None
    encoding: Encoding
    process: GaussianProcess
    module: nn.Module
    computing: Computing
    parameterization: Parameterization
    loss: LossFn
    draws: str
    sampler: Sampler
    clip: bool
    guidance: Guidance
    given: Given
    training: Training
    evaluation: Evaluation
    likelihood: Likelihood
    guide: "Experiment | None" = None

    def on_test(self) -> Self:
        """The same with the test data in the place of the data, where there are any."""
        return self if self.test is None else self._replace(data=self.test)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of what the network sees: of the data, or of more than them."""
        if not self.computing.concat_condition:
            return self.data.shape
        return beside_shape(self.data.shape, self._conditions.shape[1:])

    @property
    def _conditions(self) -> np.ndarray:
        """What the network is told of each example, where it is told more than a class."""
        assert self.data.conditions is not None  # as `given.checks` sees to
        return self.data.conditions

    def net(
        self, params: Params, *, label: Array | None = None, dropout_key: Key | None = None
    ) -> Net:
        """(x, c) -> y: the network of one example, with these parameters; in training with a
        dropout_key.

        label: what it is told of the example, where it is told anything: its class, -1 or None for
        none, or its condition, NaN for none.
        """
        options: dict[str, Any] = dict(dropout_key=dropout_key, dtype=self.computing.dtype)
        if not self.computing.concat_condition:
            told = label if is_conditional(self.module) else None
            return as_net(self.module, params, label=told, **options)
        rate = self.computing.condition_dropout
        if dropout_key is not None and rate > 0.0:
            assert label is not None  # in training every example has its condition
            forget_key, options["dropout_key"] = jax.random.split(dropout_key)
            label = jnp.where(jax.random.bernoulli(forget_key, rate), jnp.nan, label)
        return as_net(self.module, params, condition=label, **options)

    def labels_of(self, indices: np.ndarray) -> np.ndarray:
        """What is told of these examples of the data: [..] int32, their classes, -1 where they have
        none; or, where the network is told conditions, these."""
        if self.computing.concat_condition:
            return self._conditions[indices]
        labels = self.data.labels
        return np.full(indices.shape, -1, np.int32) if labels is None else labels[indices]

    def examples_at(self, indices: Iterable[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(indices int32 [N], what is told of them [N, ...], examples [N, ...]) of the data."""
        indices = np.asarray(list(indices), np.int32)
        return indices, self.labels_of(indices), self.data.examples[indices]

    def labels(self, indices: np.ndarray) -> np.ndarray:
        """What the samples with these indices are asked to be, as `labels_of` tells it.

        evaluation.label, or each class in turn, or each test example's condition; -1 or NaN where
        there is nothing to be asked for.
        """
        number, label = self.asked_for, self.evaluation.label
        if number == 0:
            return np.full(indices.shape, -1, np.int32)
        turn = np.asarray(indices % number if label is None else np.full(indices.shape, label))
        if not self.computing.concat_condition:
            return turn.astype(np.int32)
        conditions = self.on_test()._conditions
        return np.full_like(conditions[turn], np.nan) if label == -1 else conditions[turn]

    @property
    def asked_for(self) -> int:
        """How many classes, or conditions, samples can be asked to be of."""
        if self.computing.concat_condition:
            return len(self.on_test().data.examples)
        if is_conditional(self.module):
            return self.module.classes
        labels = self.data.labels
        by_classifier = self.guidance.weight > 0 and self.guidance.by == "classifier"
        return int(labels.max()) + 1 if by_classifier and labels is not None else 0

    def predict(self, net: Net) -> PredictFn:
        """(x_t, t) -> Prediction: what the network says, as the loss sees it."""
        return make_predict(net, self.process, self.parameterization)

    def sampling_predict(self, params: Params, label: Array, guide: Params = None) -> PredictFn:
        """What the network says of a sample that is told `label`, as the sampler sees it: guided,
        given what is known, x0 within the data's range if asked.

        guide: the parameters of the guide's network, where there is one.
        """
        predict = self._guided(params, label, guide)
        predict = self.given.predict(predict)
        return clipped(predict, self.process, self.encoding.low, 1.0) if self.clip else predict

    def _guided(self, params, label, guide):
        options, predict = self.guidance, self.predict(self.net(params, label=label))
        how: dict[str, Any] = dict(weight=options.weight, interval=options.interval)
        if options.weight == 0 or (options.by != "class" and self.guide is None):
            return predict
        if options.by == "class":
            nothing = jnp.full_like(label, jnp.nan if self.computing.concat_condition else -1)
            other: Any = self.predict(self.net(params, label=nothing))
        else:
            assert self.guide is not None
            other = self.guide.predict(self.guide.net(guide, label=label))
        if options.by == "classifier":  # what a classifier says is log p(label | x_t)
            return by_classifier(predict, self.process, other, **how)
        return extrapolated(predict, other, self.process, rescale=options.rescale, **how)
