"""--mode=evaluate: the distance of samples to real data, beside what it is for noise and for
real data against itself."""

import math
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from score_jax.build import Experiment
from score_jax.errors import UserError
from score_jax.evaluation.features import FEATURES, classifier_features, train_classifier
from score_jax.evaluation.metrics import frechet_distance
from score_jax.files import whole
from score_jax.workdir import write_json

ENOUGH = 10  # examples a feature: with fewer the covariance is mostly noise


def check(experiment: Experiment) -> None:
    """Raises UserError for an experiment that cannot be evaluated, before it is sampled."""
    classifier = experiment.evaluation.features == "classifier"
    dimensions = FEATURES if classifier else math.prod(experiment.data.shape)
    least = ENOUGH * dimensions
    for what, n in (
        ("config.evaluation.samples", experiment.evaluation.samples),
        (f"the number of examples of {experiment.data.name}", len(experiment.data.examples)),
    ):
        if n < least:
            raise UserError(
                f"{what} = {n} is too few to compare {dimensions} features, whose covariance "
                f"would be mostly noise; at least {least} are needed"
            )
    if classifier and experiment.data.labels is None:
        raise UserError(
            f"{experiment.data.name} has no labels to train a classifier on; "
            "use --config.evaluation.features=none"
        )


def evaluate(experiment: Experiment, samples: np.ndarray, made: dict, workdir: Path) -> dict:
    """Measures samples, writes workdir/evaluation.json and returns what it holds.

    The Fréchet distance of the samples to as many real examples; of noise to them (uniform
    bytes, or draws of the prior for points); of one half of the real data to the other; and,
    since the distance of finite sets is biased upwards, the more the smaller they are, of as
    many samples as a half holds to a half: the fair comparison with the third.
    """
    real, rng = experiment.data.examples, np.random.default_rng(experiment.evaluation.seed)
    shuffled = rng.permutation(len(real))
    noise = _noise(experiment, rng, len(samples))
    name, features = _features(experiment, workdir)

    f_real, f_samples = features(real[np.sort(shuffled[: len(samples)])]), features(samples)
    first, second = (features(real[np.sort(half)]) for half in np.array_split(shuffled, 2))
    result = {
        "features": name,
        "samples": len(samples),
        "real": len(f_real),
        "frechet_distance": frechet_distance(f_samples, f_real),
        "frechet_distance_of_noise": frechet_distance(features(noise), f_real),
        "frechet_distance_of_two_halves_of_the_data": frechet_distance(first, second),
        "frechet_distance_to_half_of_the_data": frechet_distance(f_samples[: len(second)], second),
        "examples_in_a_half": len(second),
        "made": made,
    }
    write_json(workdir / "evaluation.json", result)
    return result


def report(result: dict) -> str:
    """The result as a small table for the terminal."""
    halves = result["frechet_distance_of_two_halves_of_the_data"]
    half = result["examples_in_a_half"]
    rows = [
        (f"{result['samples']} samples against {result['real']} real",
         result["frechet_distance"]),
        ("noise against real", result["frechet_distance_of_noise"]),
        (f"real against real, halves of {half}", halves),
        (f"{half} samples against a half", result["frechet_distance_to_half_of_the_data"]),
    ]  # fmt: skip
    lines = [f"Fréchet distance in {result['features']}"]
    lines += [f"  {name:42s} {value:10.3f}   {value / halves:8.2f} x" for name, value in rows]
    return "\n".join(lines)


def _arrays(path: Path) -> dict[str, np.ndarray] | None:
    """What a .npz holds; None where it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except Exception:  # NumPy, zipfile and zlib raise a dozen kinds
        return None


def _noise(experiment, rng, n):
    if experiment.data.is_images:
        return rng.integers(0, 256, (n, *experiment.data.shape), dtype=np.uint8)
    scale = np.float32(experiment.process.sigma(1.0))
    return scale * rng.standard_normal((n, *experiment.data.shape))


def _features(experiment, workdir):
    data = experiment.data
    if experiment.evaluation.features == "none":
        return "the numbers themselves", lambda x: x.reshape(len(x), -1)
    path = workdir / "classifier.npz"
    if _arrays(path) is None:
        print(f"training a classifier of {data.name}, for its features", flush=True)
        with whole(path) as partial:
            np.savez(partial, **flatten_dict(train_classifier(data.examples, data.labels), sep="/"))
    params = unflatten_dict(_arrays(path), sep="/")
    name = f"the features of a small classifier of {data.name} (not FID)"
    return name, lambda x: classifier_features(params, x)
