"""What a network is told, and what samples are asked to be, must fit the network and the data.

Each raises UserError that names both sides. config: the resolved config, as nested dicts.
"""

import flax.linen as nn

from score_jax.data.base import Dataset
from score_jax.errors import UserError
from score_jax.given.options import Guidance
from score_jax.inverse import PREDICTIONS
from score_jax.models.base import is_conditional
from score_jax.processes import GaussianProcess
from score_jax.samplers.base import Sampler


def check_told(module: nn.Module, data: Dataset, test: Dataset | None, config: dict) -> None:
    """The network is told classes that the data have; and what it is told the test data have too.

    (That the data have conditions is asked before, by `check_conditions`: the network's input is
    made of them.)
    """
    check_classes(module, data, config)
    if test is None:
        return
    check_classes(module, test, config)
    if not config["model"]["concat_condition"]:
        return
    ours, theirs = (None if x is None else x.shape[1:] for x in (data.conditions, test.conditions))
    if theirs != ours:
        raise UserError(
            f"config.test: {test.name} has conditions of shape {theirs}, the data {data.name} of "
            f"{ours}; they must agree"
        )


def check_classes(module: nn.Module, data: Dataset, config: dict) -> None:
    """A network that is told classes needs data that have them."""
    name, classes = config["model"]["name"], getattr(module, "classes", 0)
    if not classes or not len(data.examples):
        return
    if data.labels is None:
        raise UserError(
            f"config.model.classes = {classes}, but the data {data.name} have no classes; use 0"
        )
    least, most = int(data.labels.min()), int(data.labels.max())
    if least < 0 or most >= classes:
        raise UserError(
            f"config.model.classes = {classes}, but the labels of the data {data.name} run from "
            f"{least} to {most}; {name} needs at least {most + 1}"
        )


def check_conditions(module: nn.Module, data: Dataset, config: dict) -> None:
    """A network that sees the data's conditions needs data that have them, mirrored with them."""
    model, options = config["model"], config["data"]
    if not model["concat_condition"]:
        return
    if data.conditions is None:
        raise UserError(
            f"config.model.concat_condition = True, but the data {data.name} have no conditions: "
            "give them with the examples, under `conditions` in the .npz of data.name = 'array' "
            "(digits have some: config.data.condition = 'coarse' or 'ink')"
        )
    if getattr(module, "classes", 0):
        raise UserError(
            f"config.model.classes = {module.classes} and config.model.concat_condition = True: a "
            "network is told one or the other; put the class into the condition, or use classes = 0"
        )
    if options["flip"] and data.conditions.ndim == 4:
        raise UserError(
            "config.data.flip = True would mirror the images and not the conditions beside them; "
            "use False"
        )


def check_label(asked_for: int, config: dict) -> None:
    """The class of the samples is one that can be asked for, of so many."""
    label = config["evaluation"]["label"]
    if label is not None and not -1 <= label < asked_for:
        what = "classes"
        if config["model"]["concat_condition"]:
            what = "conditions, which are those of the test data"
        raise UserError(
            f"config.evaluation.label = {label} must be -1 (none) or one of the {asked_for} {what} "
            f"that can be asked for: config.model.classes = {config['model'].get('classes', 0)}"
        )


def check_guidance(
    module: nn.Module,
    process: GaussianProcess,
    sampler: Sampler,
    data: Dataset,
    guidance: Guidance,
    config: dict,
) -> None:
    """Samples can be guided so by these networks, and drawn so by this sampler."""
    name, drawing = config["guidance"]["name"], config["sampler"]
    by_classifier = guidance.weight > 0 and guidance.by == "classifier"
    if by_classifier:
        _check_classifier(module, data, config)
    elif guidance.weight > 0:
        _check_guided_by(module, guidance, config)
    if guidance.weight > 0 and sampler.calibrate is not None:
        raise UserError(
            "config.sampler.variance = 'analytic' is calibrated on samples that are not guided, "
            f"and config.guidance.weight = {guidance.weight}; use 'small' or 'large'"
        )
    adaptive = sampler.evaluations is not None or name == "interpolation"
    if guidance.interval is not None and adaptive:
        raise UserError(
            f"config.guidance.interval = {guidance.interval}: guidance that sets in at a noise "
            "level is a jump, which an adaptive solver would follow in ever smaller steps "
            f"(config.sampler.name = {drawing['name']!r}, config.guidance.name = {name!r}); use "
            "another sampler, or None"
        )
    divides = by_classifier and guidance.interval is None
    divides |= name in PREDICTIONS
    asked = sampler.asked()
    first = float(sampler.start if asked is None else asked[0])
    if divides and name != "interpolation" and float(process.alpha(first)) == 0.0:
        what = "by a classifier" if by_classifier else f"by {name}"
        raise UserError(
            f"config.sampler.start = {first}: nothing of the data is left there, and "
            f"guidance {what} divides by what is left; start a little later, "
            "config.sampler.start=0.999"
        )


def _check_guided_by(module, guidance, config):
    """The network, or a weaker one, has another answer."""
    model = config["model"]
    if guidance.by != "class":
        return
    told = "condition" if model["concat_condition"] else "class"
    if not model["concat_condition"] and not is_conditional(module):
        raise UserError(
            f"config.guidance.weight = {guidance.weight}: the network is told no class, "
            "config.model.classes = 0, that it could be guided by; guide it by 'classifier' or "
            "'weaker'"
        )
    option = {"condition": "condition_dropout", "class": "label_dropout"}[told]
    rate = model["condition_dropout"] if told == "condition" else module.label_dropout
    if not rate > 0:
        raise UserError(
            f"config.guidance.weight = {guidance.weight}: the network has not learned to do "
            f"without the {told}, config.model.{option} = 0.0; train with 0.1, or guide by "
            "'classifier' or 'weaker'"
        )


def _check_classifier(module, data, config):
    if not config["classifier"] or data.labels is None:
        raise UserError(
            "config.guidance.by = 'classifier': the config describes none; give a section "
            "classifier, such as classifier=dict(features=32, multipliers=(1, 2), steps=1000, "
            "batch_size=64), and data that have classes, and train it with --mode=classifier"
        )
    if config["evaluation"]["label"] == -1:
        raise UserError(
            "config.evaluation.label = -1 asks for no class, and config.guidance.by = 'classifier' "
            "for one; give a class, or config.guidance.weight=0.0"
        )
    classes, known = getattr(module, "classes", 0), int(data.labels.max()) + 1
    if classes > known:
        raise UserError(
            f"config.model.classes = {classes}, but the data have {known}, and so has a classifier "
            f"of them; guide by 'class', or use config.model.classes = {known}"
        )
    if config["model"]["concat_condition"]:
        raise UserError(
            "config.guidance.by = 'classifier' asks for classes, and config.model."
            "concat_condition = True for the test data's conditions; guide by 'class', which is by "
            "the condition"
        )
