"""The other network that guides an experiment's samples: a classifier, or a weaker one.

experiment, guide, made = with_guide(experiment, workdir, made)
draw = make_draw(experiment, batch_size, guide)
"""

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from score_jax.build import build
from score_jax.classifying import classifier_of
from score_jax.config import load
from score_jax.errors import UserError
from score_jax.experiment import Experiment
from score_jax.models.base import Params
from score_jax.training.checkpoints import Checkpoints
from score_jax.training.state import create
from score_jax.workdir import check_run

CLASSIFIER = "classifier"  # its folder in a workdir


def with_guide(
    experiment: Experiment, workdir: Path, made: dict[str, Any]
) -> tuple[Experiment, Params, dict[str, Any]]:
    """(the experiment with its guide, the guide's parameters, `made` and which they are).

    (experiment, None, made) where the samples are guided by no other network. Raises UserError
    where the guide has no checkpoint, or does not fit.
    """
    options = experiment.guidance
    if options.weight == 0 or options.by == "class":
        return experiment, None, made
    check_is_there(experiment, workdir)
    folder = _folder(experiment, workdir)
    if options.by == "classifier":
        guide: Experiment = classifier_of(experiment)
        check_run(folder, guide.config, guide.data)
    else:
        guide = _weaker(experiment, folder)
    with Checkpoints(folder, guide.training, read_only=True) as checkpoints:
        steps = checkpoints.steps()
        if options.step is not None and options.step not in steps:
            raise UserError(
                f"config.guidance.step = {options.step}: {folder / 'checkpoints'} holds the steps "
                f"{', '.join(map(str, sorted(steps)))}; training.keep_every keeps more of them"
            )
        state = checkpoints.restore(like=create(guide), at_most=options.step)[0]
    if options.step is not None and int(state.step) != options.step:
        raise UserError(
            f"config.guidance.step = {options.step}: that checkpoint is damaged; give another step"
        )
    of = {"folder": str(folder), "step": int(state.step), "parameters_sha256": digest(state.ema)}
    return experiment._replace(guide=guide), state.ema, made | {"guide": of}


def check_is_there(experiment: Experiment, workdir: Path) -> None:
    """Raises UserError where a guide is asked for that no checkpoint holds."""
    options, folder = experiment.guidance, _folder(experiment, workdir) / "checkpoints"
    if options.weight == 0 or options.by == "class":
        return
    if not any(path.name.isdigit() for path in folder.glob("*")):
        mode = {"classifier": "--mode=classifier", "weaker": "--mode=train"}[options.by]
        raise UserError(
            f"config.guidance.by = {options.by!r}: no checkpoint in {folder}; train it first "
            f"({mode}), or guide by 'class'"
        )


def _folder(experiment, workdir):
    """The workdir of the guide's run."""
    options = experiment.guidance
    if options.by == "classifier":
        return workdir / CLASSIFIER
    return workdir if options.run is None else Path(options.run)


def digest(tree: Params) -> str:
    """Tells one set of parameters from another: 16 hex digits of the SHA-256 of their bytes."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(jax.device_get(tree)):
        found.update(np.ascontiguousarray(leaf).data)
    return found.hexdigest()[:16]


def _weaker(experiment: Experiment, folder: Path) -> Experiment:
    """The experiment of the run in the folder, which must noise the same data in the same way."""
    file = folder / "config.json"
    if not file.is_file():
        raise UserError(
            f"config.guidance.run = {folder}: no run in it (no config.json); give the --workdir of "
            "the weaker network's run"
        )
    theirs, ours = load(str(file)).to_dict(), experiment.config
    for section, option in (("process", None), ("data", "centered")):
        pair = [c.get(section, {}) if option is None else c.get(section, {}).get(option)
                for c in (theirs, ours)]  # fmt: skip
        if pair[0] != pair[1]:
            name = section if option is None else f"{section}.{option}"
            raise UserError(
                f"config.guidance.run = {folder}: its config.{name} = {pair[0]}, and here it is "
                f"{pair[1]}; a guide must be of the same process and the same numbers"
            )
    mine = {
        name: dict(ours[name]) for name in ("data", "process", "sampler", "training", "evaluation")
    }
    of_network = ("model", "parameterization", "loss", "training")
    kept = {name: dict(theirs[name]) for name in of_network}
    mine["evaluation"]["label"] = None
    guide = build(mine | kept, loaded=experiment)
    kinds = [
        "conditions" if e.computing.concat_condition else getattr(e.module, "classes", 0)
        for e in (guide, experiment)
    ]
    if kinds[0] not in (0, kinds[1]):
        raise UserError(
            f"config.guidance.run = {folder}: its network is told {kinds[0]} classes, this one "
            f"{kinds[1]}; they must agree, or the weaker one be told none"
            if "conditions" not in kinds
            else f"config.guidance.run = {folder}: one of the networks is told conditions and the "
            "other classes; they must agree, or the weaker one be told none"
        )
    return guide
