"""The real data's features, which samples are compared with: made once, kept with their settings.

    reference = make_reference(experiment, extractor, workdir / "reference.npz")

The file holds `mu` [D] and `sigma` [D, D] of all examples, by the names that pytorch-fid and EDM
give them, the `features` [M, D] of M <= KEPT examples in random order, the `logits` [M, K] where
the network has any, and `settings` (JSON). A file with mu and sigma alone, as others publish them,
is enough for the Fréchet distance.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from score_jax.errors import UserError
from score_jax.evaluation.features import Extractor, Features, as_arrays, from_arrays
from score_jax.experiment import Experiment
from score_jax.files import arrays, whole
from score_jax.hosts import on_leader
from score_jax.metrics.frechet import Moments, moments
from score_jax.pieces import drop, in_pieces
from score_jax.workdir import fingerprint

KEPT = 10_000  # examples whose features are kept one by one
PIECE = 256  # images at a time


class Reference(NamedTuple):
    """moments: of all examples' features. some: of M examples, in random order, or None.

    settings: what they were made of, or of a file of others' that it is theirs.
    """

    moments: Moments
    some: Features | None
    settings: dict[str, Any]


def settings_of(experiment: Experiment, extractor: Extractor) -> dict[str, Any]:
    """What decides the numbers in a reference."""
    data = experiment.data
    return {"data": data.name, **fingerprint(data), "kept": KEPT, "extractor": extractor.identity}


def make_reference(
    experiment: Experiment,
    extractor: Extractor,
    path: Path,
    progress: Callable[[float], Any] = lambda fraction: None,
) -> Reference:
    """The reference of all of the data, as it lies at `path` or made now and kept there.

    In pieces that are kept until all are done, in the folder of the path, on every host. Raises
    UserError for features of which no mean and covariance can be made.
    """
    settings = settings_of(experiment, extractor)
    there = on_leader(lambda: _is_of(path, settings))
    if not there:
        x = experiment.data.examples

        def make(indices, tell):
            return as_arrays(extractor.extract(x[indices.start : indices.stop]))

        found = in_pieces(path.parent, "reference", settings, len(x), PIECE, make, progress)
        on_leader(lambda: _write(path, from_arrays(found), settings))
        drop(path.parent, "reference", settings)
    return read_reference(path, extractor)


def no_reference(path: Path) -> str:
    """What is said where there is no such file."""
    return (
        f"config.evaluation.reference: no file {path} (looked in {Path.cwd()}); --mode=reference "
        "makes it, and without the option the data are taken"
    )


def read_reference(path: Path, extractor: Extractor) -> Reference:
    """The reference in a file of ours, or moments that others publish.

    Raises UserError for a file that is not there, damaged, without mu and sigma, or of other
    features than the extractor's.
    """
    if not path.is_file():
        raise UserError(no_reference(path))
    found = arrays(path)
    if found is None:
        raise UserError(f"{path}: not a readable .npz of numbers")
    try:
        settings = json.loads(str(found.pop("settings", "{}")))
    except ValueError as error:
        raise UserError(f"{path}: its settings are not JSON ({error})") from error
    mu, sigma = found.get("mu"), found.get("sigma")
    if mu is None or sigma is None or mu.ndim != 1 or sigma.shape != (len(mu),) * 2:
        shapes = {name: x.shape for name, x in found.items()}
        raise UserError(f"{path}: expected mu [D] and sigma [D, D], found {shapes}")
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise UserError(f"{path}: its mu or sigma holds NaN or infinity")
    theirs = settings.get("extractor", extractor.identity)
    if theirs != extractor.identity:
        raise UserError(
            f"{path} holds other features ({theirs}) than config.evaluation.features asks for "
            f"({extractor.identity}); make it anew with --mode=reference"
        )
    count = int(settings.get("examples", 0))
    if not settings:
        settings = {"data": f"of others, {path.name}"}
    settings["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    some = from_arrays(found) if "features" in found else None
    return Reference(Moments(mu, sigma, count), some, settings)


def _is_of(path: Path, settings: dict[str, Any]) -> bool:
    """Whether the file is there, whole, and made with these settings."""
    return str((arrays(path) or {}).get("settings")) == json.dumps(settings)


def _write(path: Path, features: Features, settings: dict[str, Any]) -> None:
    try:
        found = moments(features.values)
    except ValueError as error:
        raise UserError(f"the features of the data are of no use: {error}") from error
    chosen = np.random.default_rng(0).permutation(len(features.values))[:KEPT]
    with whole(path) as partial:
        np.savez(
            partial,
            mu=found.mean,
            sigma=found.covariance,
            **{name: x[chosen] for name, x in as_arrays(features).items()},  # type: ignore[arg-type]  # no allow_pickle
            settings=np.array(json.dumps(settings)),
        )
