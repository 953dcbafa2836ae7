"""What can be done next with a run, and the options it wants: the commands that its report shows.

hints(experiment, workdir)["evaluate"]      # {"evaluation.allow_fewer": True}; {}; None
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from score_jax.errors import UserError
from score_jax.evaluation import bound as bounds
from score_jax.evaluation import likelihood as likelihoods
from score_jax.evaluation.refusals import check as check_evaluation
from score_jax.experiment import Experiment
from score_jax.guides import check_is_there

PIXELS: dict[str, Any] = {"features": "none", "reference": None}  # need no labels, no download
FEWER = {"allow_fewer": True}
EVALUATE: tuple[dict[str, Any], ...] = ({}, FEWER, PIXELS, PIXELS | FEWER)
LIKELIHOOD: tuple[dict[str, Any], ...] = ({}, {"by": "ode"}, {"by": "bound"})


def hints(experiment: Experiment, workdir: Path) -> dict[str, dict[str, Any] | None]:
    """{mode: the options with which it works, {} for none, None where it does not work at all}.

    Of train, sample, evaluate and likelihood: the first options that the mode's check lets pass.
    """
    drawn = _works(partial(check_is_there, experiment, workdir))
    found: dict[str, dict[str, Any] | None] = {"train": {}, "sample": {} if drawn else None}
    if not len(experiment.data.examples):
        return found | {"train": None, "evaluate": None, "likelihood": None}
    unguided = experiment._replace(given=experiment.given._replace(shown=None, sha256=None))
    found["evaluate"] = _first(unguided, "evaluation", EVALUATE, check_evaluation)
    found["likelihood"] = _first(experiment, "likelihood", LIKELIHOOD, _check_likelihood)
    return found if drawn else found | {"evaluate": None}


def _first(experiment, section, choices, check) -> dict[str, Any] | None:
    """What is to be changed for the first of the choices of a section's options that works."""
    now = getattr(experiment, section)
    for options in choices:
        changed = experiment._replace(**{section: replace(now, **options)})
        if _works(partial(check, changed)):
            return {
                f"{section}.{name}": value
                for name, value in options.items()
                if value != getattr(now, name)
            }
    return None


def _check_likelihood(experiment):
    {"ode": likelihoods, "bound": bounds}[experiment.likelihood.by].check(experiment)


def _works(check: Callable[[], Any]) -> bool:
    try:
        check()
    except UserError:
        return False
    return True
