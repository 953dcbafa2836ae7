"""What stands against an evaluation, found before it begins."""

from collections.abc import Iterator
from pathlib import Path

from score_jax.errors import UserError
from score_jax.evaluation.features import check_features
from score_jax.evaluation.reference import no_reference
from score_jax.experiment import Experiment

PUBLISHED = 50_000  # samples that figures are published with


def check(experiment: Experiment) -> None:
    """Raises UserError for an evaluation that cannot be, or is not meant, before it begins: of all
    that stands against it at once."""
    reasons = list(_against(experiment))
    if len(reasons) > 1:
        listed = "".join(f"\n  {i}. {reason}" for i, reason in enumerate(reasons, 1))
        raise UserError(f"there are {len(reasons)} reasons against this --mode=evaluate:{listed}")
    if reasons:
        raise UserError(reasons[0])


def _against(experiment: Experiment) -> Iterator[str]:
    """Why it cannot be, or may not be meant; and what to do."""
    options, given = experiment.evaluation, experiment.given
    if given.shown is not None or given.sha256 is not None:
        yield (
            f"config.guidance.name = {experiment.config['guidance']['name']!r} draws samples of "
            "one image, which compare with no data set; --mode=evaluate needs "
            "config.guidance.name = 'none'"
        )
    if options.samples < PUBLISHED and not options.allow_fewer:
        yield (
            f"config.evaluation.samples = {options.samples:,} is fewer than the {PUBLISHED:,} that "
            "figures are published with, and they depend on the number; draw as many, or say that "
            "fewer are meant: --config.evaluation.allow_fewer=True"
        )
    for what, n in (
        ("config.evaluation.samples", options.samples),
        (f"the number of examples of {experiment.data.name}", len(experiment.data.examples)),
    ):
        if n < 2:
            yield f"{what} = {n}: nothing can be said of a single one"
    try:
        check_features(experiment)
    except UserError as error:
        yield str(error)
    reference = options.reference
    if reference is not None and not Path(reference).is_file():
        yield no_reference(Path(reference))
