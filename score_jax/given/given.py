"""Maps of samplers and predictions, of the words in config.guidance.

    given = make_given("repaint", {"repeats": 10}, options, place)
    given.sampler, given.predict(predict)

GIVEN maps a name to a function with keyword options: a map of predictions or of samplers, of what
is known (`score_jax.inverse`), or a function of this file. These raise UserError for options of
config.guidance that are not for them, and as `observed.read_image`.
"""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from score_jax.data.encoding import Encoding
from score_jax.editing import interpolation, started_from
from score_jax.errors import UserError
from score_jax.given.observed import encoded, known, read_image
from score_jax.given.options import Guidance
from score_jax.inverse import PREDICTIONS, SAMPLINGS
from score_jax.predictions import PredictFn
from score_jax.processes import GaussianProcess
from score_jax.samplers.base import Sampler
from score_jax.types import Array


class Given(NamedTuple):
    """What the samples of an experiment are given.

    predict: a map of predictions. sampler: what draws them. sampler_of: the sampler of the sample
    with this index, where each has its own. shown: uint8 images [M, H, W, C] of what they are
    given, for pictures. sha256: of what was read from files. None where there is none.
    """

    predict: Callable[[PredictFn], PredictFn]
    sampler: Sampler
    sampler_of: Callable[[Array], Sampler] | None = None
    shown: np.ndarray | None = None
    sha256: str | None = None


class Place(NamedTuple):
    """Where samples are drawn: their shape, numbers and number, by which process and sampler."""

    shape: tuple[int, ...]
    encoding: Encoding
    process: GaussianProcess
    sampler: Sampler
    samples: int


def none(place: Place, options: Guidance) -> Given:
    """Samples of which nothing is known."""
    _refuse(options, unused("none"), "samples of which something is known")
    return Given(lambda predict: predict, place.sampler)


def sdedit(place: Place, options: Guidance) -> Given:
    """Samples that start from the image with the noise of sampler.start: `editing.started_from`.

    Raises UserError as that does.
    """
    _refuse(options, unused("sdedit"), "samples of which a part is known")
    image, digest = _image(place, options.image, "config.guidance.image")
    sampler = started_from(place.sampler, place.process, encoded(image, place.encoding))
    return Given(lambda predict: predict, sampler, shown=image[None], sha256=digest)


def interpolated(
    place: Place,
    options: Guidance,
    *,
    to: str,
    end: float = 1e-3,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_evaluations: int = 10_000,
) -> Given:
    """Samples on the way from the image to the image `to`: `editing.interpolation`.

    Sample i of N is at the fraction i/(N - 1); config.sampler is not used. Options and errors as
    there.
    """
    _refuse(options, unused("sdedit"), "samples of which a part is known")
    ends = [
        _image(place, file, f"config.guidance.{name}")
        for name, file in (("image", options.image), ("to", to))
    ]
    a, b = (encoded(image, place.encoding) for image, _ in ends)
    solver: dict[str, Any] = dict(end=end, rtol=rtol, atol=atol, max_evaluations=max_evaluations)
    at = lambda fraction: interpolation(place.process, a, b, fraction=fraction, **solver)
    return Given(
        lambda predict: predict,
        at(0.0),
        lambda index: at(index / max(1, place.samples - 1)),
        np.stack([image for image, _ in ends]),
        "-".join(digest for _, digest in ends),
    )


_OF_OBSERVATIONS = ("operator", "mask", "observed", "factor", "width", "measurements", "noise")
GIVEN: dict[str, Callable[..., Any]] = {
    **{"none": none, "sdedit": sdedit, "interpolation": interpolated},
    **PREDICTIONS,
    **SAMPLINGS,
}


def unused(name: str) -> set[str]:
    """The options of config.guidance that are not for this name, of those that all share."""
    if name in PREDICTIONS or name in SAMPLINGS:
        return set()
    return {*_OF_OBSERVATIONS, "image"} if name == "none" else set(_OF_OBSERVATIONS)


def make_given(name: str, more: dict[str, Any], options: Guidance, place: Place) -> Given:
    """What the samples are given, by a name of GIVEN with its own options, `more`.

    Raises UserError for files that do not fit, for a sampler with which it makes no sense, and as
    the function of this name.
    """
    if name not in PREDICTIONS and name not in SAMPLINGS:
        return GIVEN[name](place, options, **more)
    if place.sampler.calibrate is not None:
        raise UserError(
            "config.sampler.variance = 'analytic' is calibrated on unconditional samples, and "
            f"config.guidance.name = {name!r} makes others; use 'small' or 'large'"
        )
    observation, shown, digest = known(options, place.shape, place.encoding)
    predict, sampler = lambda predict: predict, place.sampler
    if name in PREDICTIONS:
        guide = PREDICTIONS[name]
        predict = lambda predict: guide(predict, place.process, observation, **more)
    else:
        sampler = SAMPLINGS[name](sampler, place.process, observation, **more)
    return Given(predict, sampler, shown=shown, sha256=digest)


def _image(place, file, option):
    """(the image in the file, its digest)."""
    if file is None:
        raise UserError(f"{option}: which image? Give a PNG file of the data's size")
    image = read_image(file, option, place.shape)
    return image, hashlib.sha256(image.tobytes()).hexdigest()[:16]


def _refuse(options, names, what):
    """Raises UserError where one of these options is given, which are for `what`."""
    for name in sorted(names):
        if getattr(options, name) not in (None, 0.0):
            raise UserError(
                f"config.guidance.{name} = {getattr(options, name)!r} is for {what}: say by which "
                f"method, config.guidance.name = {', '.join([*PREDICTIONS, *SAMPLINGS])}"
                + (", sdedit or interpolation" if name == "image" else "")
            )
