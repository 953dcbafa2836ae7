"""The experiment that trains a classifier of another's noised data, for guidance.

    guide = classifier_of(experiment)           # of its config.classifier
    log_prob = guide.predict(guide.net(params, label=label))
    log_prob(x_t, t)                            # log p(label | x_t), in nats

It is an Experiment like any other for what trains one, on the same data, noised by the same
process, and its network is told the noise level by the same number.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from score_jax.data.base import Dataset
from score_jax.errors import UserError
from score_jax.experiment import Experiment
from score_jax.losses.cross_entropy import cross_entropy
from score_jax.models.base import as_net
from score_jax.models.classifier import Classifier, PointClassifier
from score_jax.options import check_options, options_of
from score_jax.parameterization import CONDITIONS
from score_jax.probability_flow import norm
from score_jax.processes import GaussianProcess
from score_jax.sections import Training

DROPPED = ("classes", "centered")  # options of its network that follow from the data


class Classifying(Experiment):
    """An Experiment whose network answers with log p(label | x_t) where others predict x_0.

    It sees x_t/√(α² + σ²), which is of the order of 1 however much noise there is.
    """

    def net(self, params, *, label=None, dropout_key=None):
        """(x, c) -> log p(label | x): the classifier as the networks of other experiments are
        called.
        """
        options = dict(dropout_key=dropout_key, dtype=self.computing.dtype)
        logits = as_net(self.module, params, **options)
        return lambda x, c: jax.nn.log_softmax(logits(x, c))[label]

    def predict(self, net):
        """(x_t, t) -> log p(label | x_t): x_t over √(α² + σ²), and the noise level as the run's own
        network is told it.
        """
        condition = CONDITIONS[self.parameterization.condition]
        process = self.process
        return lambda x, t: net(x / norm(process, t), condition(process, t))

    @property
    def input_shape(self):
        """Of one example, as the classifier sees it."""
        return self.data.shape

    def labels_of(self, indices):
        """The classes of these training examples, which are what is to be learned."""
        assert self.data.labels is not None  # as `resolved` sees to
        return self.data.labels[indices]


def resolved(section: Mapping[str, Any], process: GaussianProcess, data: Dataset) -> dict[str, Any]:
    """All options of config.classifier: its network's, its loss's and those of its training.

    {} for an empty section. Raises UserError for options that cannot be, and data without classes.
    """
    if not section:
        return {}
    if data.labels is None and len(data.examples):
        raise UserError(f"config.classifier: the data {data.name} have no classes to be told apart")
    parts = (_network(data), cross_entropy, Training)
    names = [[name for name in options_of(part) if name not in DROPPED] for part in parts]
    for name in section:
        if not any(name in known for known in names):
            check_options("config.classifier", lambda: None, {name: section[name]}, sum(names, []))
    options: dict[str, Any] = {}
    for part, known in zip(parts, names):
        mine = {name: section[name] for name in section if name in known}
        required = {"classes": 2} if part is parts[0] else {}
        found = check_options("config.classifier", part, mine | required)
        options |= {name: found[name] for name in known}
    with named():
        Training(**{name: options[name] for name in names[2]})
        cross_entropy(process, **{name: options[name] for name in names[1]})
        if len(data.examples):
            own = {name: options[name] for name in names[0]}
            _network(data)(classes=_classes(data), **own).check(data.shape)
    return options


@contextlib.contextmanager
def named() -> Iterator[None]:
    """Has the errors of what trains it speak of config.classifier, where its options stand."""
    try:
        yield
    except UserError as error:
        text = str(error)
        for theirs in ("config.training.", "training.", "config.model.", "model.", "loss."):
            text = re.sub(rf"(?<![.\w]){re.escape(theirs)}", "config.classifier.", text)
        if text == str(error):
            raise
        raise UserError(text) from error


def classifier_of(experiment: Experiment) -> Classifying:
    """The experiment of the config's classifier. Raises UserError where the config has none."""
    options, data = experiment.config["classifier"], experiment.data
    if not options or data.labels is None:
        raise UserError(
            "the config describes no classifier: give a section classifier, such as "
            "classifier=dict(features=32, multipliers=(1, 2), steps=1000, batch_size=64), and data "
            "that have classes"
        )
    test = experiment.test
    if test is not None and (test.labels is None or test.labels.max() >= _classes(data)):
        found = "none" if test.labels is None else f"{int(test.labels.max()) + 1}"
        raise UserError(
            f"config.classifier: the data {data.name} have {_classes(data)} classes and "
            f"config.test, {test.name}, has {found}; they must agree"
        )
    network = _network(data)
    own = {name: options[name] for name in options_of(network) if name not in DROPPED}
    if data.is_images:
        own["centered"] = experiment.encoding.centered
    module = network(classes=_classes(data), **own)
    module.check(data.shape)
    training = Training(**{name: options[name] for name in options_of(Training)})
    loss = cross_entropy(
        experiment.process, **{name: options[name] for name in options_of(cross_entropy)}
    )
    shared = ("data", "test", "process", "parameterization")
    config = {name: experiment.config[name] for name in shared}
    model = {"name": "classifier", "classes": module.classes} | own
    fields = experiment._asdict() | dict(
        config=config
        | {
            "model": model | {"dtype": experiment.computing.dtype},
            "loss": {"name": "cross_entropy"} | {n: options[n] for n in options_of(cross_entropy)},
            "training": {name: options[name] for name in options_of(Training)},
        },
        module=module,
        loss=loss,
        training=training,
        guide=None,
    )
    return Classifying(**fields)


def _classes(data):
    return int(data.labels.max()) + 1


def _network(data):
    return Classifier if data.is_images else PointClassifier
