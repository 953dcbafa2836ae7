"""What samples are compared by: numbers that say what is in an image.

    extractor = make_extractor(experiment, workdir)
    features, logits = extractor.extract(images)        # of uint8 images [N, H, W, C], or of points

config.evaluation.features chooses: "inception", "classifier", "none" (the numbers themselves), or
a Python file of yours that defines

    def features(images):       # uint8 [N, H, W, C] -> numbers [N, D]
        ...

which is run, so use your own or one that you have read. What it gives is known by the file's
digest: where it loads weights or other code, name them in `IDENTITY = "..."`, so that features made
with others are not taken for them.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from score_jax.config import module_of
from score_jax.errors import UserError
from score_jax.evaluation import classifier, inception, inception_weights
from score_jax.experiment import Experiment
from score_jax.files import arrays, whole
from score_jax.hosts import leader_first
from score_jax.workdir import fingerprint

WIDEST = 8_192  # features, of which a covariance is made


class Features(NamedTuple):
    """values: float32 [N, D]. logits: [N, K] of the network's classes, None where it has none."""

    values: np.ndarray
    logits: np.ndarray | None = None


def as_arrays(features: Features) -> dict[str, np.ndarray]:
    """By the names that files have them under."""
    logits = {} if features.logits is None else {"logits": features.logits}
    return {"features": features.values} | logits


def from_arrays(found: Mapping[str, np.ndarray]) -> Features:
    """The inverse of `as_arrays`."""
    return Features(found["features"], found.get("logits"))


def rows(features: Features, begin: int, end: int) -> Features:
    """Those of the examples begin .. end - 1."""
    logits = features.logits
    return Features(features.values[begin:end], None if logits is None else logits[begin:end])


class Extractor(NamedTuple):
    """kind: inception, classifier, own or none. name: for people. identity: what tells its features
    from others', in JSON. extract: images -> Features; of your own file, UserError for what it
    should not give."""

    kind: str
    name: str
    identity: dict[str, Any]
    extract: Callable[[np.ndarray], Features]


def check_features(experiment: Experiment) -> None:
    """Raises UserError for features that this experiment's data cannot have, and where Inception's
    weights are not there."""
    kind, data = experiment.evaluation.features, experiment.data
    if kind == "inception":
        path = experiment.evaluation.inception
        inception_weights.check_is_there(None if path is None else Path(path))
    if kind == "classifier" and data.labels is None:
        raise UserError(
            f"{data.name} has no labels to train a classifier on; use "
            "--config.evaluation.features=none, inception, or a Python file of yours"
        )
    if kind == "none":
        _check_width("config.evaluation.features = 'none'", math.prod(data.shape))


def _check_width(what: str, width: int) -> None:
    if width > WIDEST:
        raise UserError(
            f"{what}: {width:,} features an example, more than the {WIDEST:,} that a covariance is "
            "made of; use fewer, or another --config.evaluation.features"
        )


def make_extractor(experiment: Experiment, folder: Path) -> Extractor:
    """The extractor that the config asks for; a classifier is trained once and kept in folder.

    The same on all hosts. Raises UserError for a file that is missing or of no use.
    """
    check_features(experiment)
    choice = experiment.evaluation.features
    if choice == "none":
        flat = lambda x: Features(np.asarray(x, np.float32).reshape(len(x), -1))
        return Extractor("none", "the numbers themselves", {"features": "none"}, flat)
    if choice == "inception":
        return _inception(experiment.evaluation.inception)
    if choice == "classifier":
        return leader_first(lambda: _classifier(experiment, folder))
    return _own(Path(choice))


def _inception(path):
    weights = inception_weights.read_inception(None if path is None else Path(path))
    name = "Inception-v3, TensorFlow's of 2015-12-05" + (
        "" if weights.published else " (weights from safetensors, not checked against any checksum)"
    )
    identity = {"features": "inception", "sha256": weights.sha256}
    extract = lambda x: Features(*map(np.asarray, inception.inception_features(weights.params, x)))
    return Extractor("inception", name, identity, extract)


def _classifier(experiment, folder):
    data, path = experiment.data, folder / "classifier.npz"
    of = fingerprint(data) | {"labels": hashlib.sha256(data.labels.tobytes()).hexdigest()[:16]}
    params = arrays(path) or {}
    if str(params.pop("of", "")) != json.dumps(of):
        print(f"training a classifier of {data.name}, for its features", flush=True)
        params = classifier.train_classifier(data.examples, data.labels)
        params = flatten_dict(params, sep="/")
        with whole(path) as partial:
            np.savez(partial, **params, of=np.array(json.dumps(of)))
    digest = hashlib.sha256()
    for name in sorted(params):
        digest.update(name.encode() + np.ascontiguousarray(params[name]).tobytes())
    identity = {"features": "classifier", "sha256": digest.hexdigest()}
    name = f"the features of a small classifier of {data.name} (not FID)"
    tree = unflatten_dict(params, sep="/")
    extract = lambda x: Features(*classifier.classifier_features(tree, x))
    return Extractor("classifier", name, identity, extract)


def _own(path):
    module = module_of("config.evaluation.features", path, "features")
    theirs = module.features

    def extract(images):
        try:
            values = np.asarray(theirs(images), np.float32)
        except Exception as error:
            raise UserError(f"{path}: features(images): {type(error).__name__}: {error}") from error
        if values.ndim != 2 or len(values) != len(images):
            raise UserError(
                f"{path}: features(images) of {len(images)} images must be numbers "
                f"[{len(images)}, D], got {list(values.shape)}"
            )
        if not np.isfinite(values).all():
            raise UserError(f"{path}: features(images) holds NaN or infinity")
        _check_width(str(path), values.shape[1])
        return Features(values)

    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    identity = {"features": path.name, "sha256": sha256, "of": str(getattr(module, "IDENTITY", ""))}
    return Extractor("own", path.name, identity, extract)
