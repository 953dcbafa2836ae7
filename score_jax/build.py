"""The composition root: one config becomes one Experiment, and every choice is checked here.

    experiment = build(config)
    experiment.loss(key, predict, x_0)

No other file knows both the names in a config and the things they stand for.
"""

from collections.abc import Callable, Mapping
from typing import Any

from score_jax import checks, classifying
from score_jax.data import DATASETS
from score_jax.data.encoding import Encoding
from score_jax.errors import UserError, shown, unknown
from score_jax.experiment import Experiment
from score_jax.given import checks as told
from score_jax.given.given import GIVEN, Place, make_given, unused
from score_jax.given.options import Guidance
from score_jax.losses import LOSSES
from score_jax.models import MODELS
from score_jax.models.base import beside_shape
from score_jax.options import check_options, choose, options_of
from score_jax.parameterization import Parameterization, check_parameterization, check_start
from score_jax.processes import PROCESSES
from score_jax.samplers import SAMPLERS
from score_jax.sections import Computing, Drawing, Evaluation, Likelihood, Reading, Training

SECTIONS = (
    "data",
    "process",
    "model",
    "parameterization",
    "loss",
    "sampler",
    "training",
    "evaluation",
    "likelihood",
    "test",
    "guidance",
    "classifier",
)
OPTIONAL = ("likelihood", "test", "guidance", "classifier")  # sections: a config may leave them out

FAMILIES: dict[str, tuple[Mapping[str, Callable[..., Any]], type | None]] = {
    "data": (DATASETS, Encoding),
    "test": (DATASETS, None),
    "process": (PROCESSES, None),
    "model": (MODELS, Computing),
    "loss": (LOSSES, Drawing),
    "sampler": (SAMPLERS, Reading),
    "guidance": (GIVEN, Guidance),
}


ALONE = {
    "parameterization": Parameterization,
    "training": Training,
    "evaluation": Evaluation,
    "likelihood": Likelihood,
}


def known_options(section: str, name: Any) -> dict[str, Any] | None:
    """The options that a section has under a name, with their types; None where there is no such
    name. (The sections that are no family have theirs under any.)
    """
    if section in ALONE:
        return _types(ALONE[section])
    table, shared = FAMILIES.get(section, ({}, None))
    if not isinstance(name, str) or name not in table:
        return None
    found = _types(table[name]) | (_types(shared) if shared else {})
    left_out = unused(name) if section == "guidance" else ()
    return {option: kind for option, kind in found.items() if option not in left_out}


def _types(kind: Callable[..., Any]) -> dict[str, Any]:
    return {name: parameter.annotation for name, parameter in options_of(kind).items()}


def build(config: Mapping[str, Any], loaded: Experiment | None = None) -> Experiment:
    """The Experiment of a config. Raises UserError for whatever could not run, before it runs.

    loaded: another experiment, of a config with the same data, which are then not loaded again.
    """
    sections = {name: {} for name in OPTIONAL} | _plain(config)
    for name in sections:
        if name not in SECTIONS:
            raise unknown("config section", name, SECTIONS)
    missing = [name for name in SECTIONS if name not in sections]
    if missing:
        raise UserError(f"the config lacks the section {', '.join(missing)}")
    resolved: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}

    def take(family, kind):
        """The options of `kind`, out of a section that may hold others'."""
        section = sections[family]
        names = _names(kind)
        mine = {key: section[key] for key in section if key in names}
        sections[family] = {key: section[key] for key in section if key not in names}
        options = check_options(f"config.{family}", kind, mine)
        resolved[family] |= options
        return kind(**options)

    def whole(family, kind):
        """The options of `kind`, which has the section to itself."""
        options = check_options(f"config.{family}", kind, sections[family])
        resolved[family] = options
        return kind(**options)

    def make(family, table, *args, also=(), there=None):
        """What the section names, made with its options, unless it is there."""
        factory, options = choose(family, table, sections[family], also)
        resolved[family] |= {"name": sections[family]["name"]} | options
        return factory(*args, **options) if there is None else there

    sections["guidance"] = {"name": "none"} | sections["guidance"]
    training, evaluation = whole("training", Training), whole("evaluation", Evaluation)
    process = make("process", PROCESSES)
    parameterization = whole("parameterization", Parameterization)
    check_parameterization(process, parameterization)
    drawing = take("loss", Drawing)
    loss = make("loss", LOSSES, process, also=_names(Drawing))
    reading = take("sampler", Reading)
    sampler = make("sampler", SAMPLERS, process, also=_names(Reading))
    asked_first = sampler.schedule[0][0] if sampler.steps else sampler.start
    check_start(process, parameterization.view, float(asked_first))
    checks.check_at(process, resolved)
    checks.check_sigma_data(resolved)
    computing = take("model", Computing)
    module = make("model", MODELS, also=_names(Computing))
    encoding = take("data", Encoding)
    if hasattr(module, "levels"):
        checks.check_indexed(module, process, sampler, resolved)
    data = make("data", DATASETS, also=_names(Encoding), there=loaded and loaded.data)
    told.check_conditions(module, data, resolved)
    seen = data.shape
    if computing.concat_condition:
        seen = beside_shape(data.shape, data.conditions.shape[1:])
    module.check(seen)
    checks.check_network(module, seen, resolved)
    checks.check_batches(data, resolved)
    if len(data.examples) and sections["test"]:
        mine = {name: resolved["data"][name] for name in sections["data"]}
        sections["test"] = checks.test_section(mine, sections["test"])
        test = make("test", DATASETS, there=loaded and loaded.test)
        if loaded is None:  # which reads much of the data
            checks.check_test(data, test)
    else:
        test = None
    told.check_told(module, data, test, resolved)
    checks.check_learned_variance(module, seen, resolved)
    checks.check_decoder(data, resolved)
    checks.check_centered(module, resolved)
    checks.check_density(data, resolved)
    if not data.is_images:
        checks.check_points(resolved)

    resolved["classifier"] = classifying.resolved(sections["classifier"], process, data)
    guidance = take("guidance", Guidance)
    name = sections["guidance"]["name"]
    _, more = choose("guidance", GIVEN, sections["guidance"], _names(Guidance))
    resolved["guidance"] |= {"name": name} | more
    told.check_guidance(module, process, sampler, data, guidance, resolved)
    place = Place(data.shape, encoding, process, sampler, evaluation.samples)
    given = make_given(name, more, guidance, place)
    if hasattr(module, "levels") and name != "none":
        checks.check_indexed(module, process, given.sampler, resolved)

    experiment = Experiment(
        config=resolved,
        data=data,
        test=test,
        encoding=encoding,
        process=process,
        module=module,
        computing=computing,
        parameterization=parameterization,
        loss=loss,
        draws=drawing.draws,
        sampler=given.sampler,
        clip=reading.clip,
        guidance=guidance,
        given=given,
        training=training,
        evaluation=evaluation,
        likelihood=whole("likelihood", Likelihood),
    )
    told.check_label(experiment.asked_for, resolved)
    return experiment


def _names(kind: type) -> set[str]:
    """The options that a class of options has."""
    return set(kind.__annotations__)


def _plain(config) -> dict[str, Any]:
    """Nested dicts, with tuples, of a ConfigDict or of any mapping."""
    if hasattr(config, "to_dict"):
        return config.to_dict()
    for name, section in config.items():
        if not isinstance(section, Mapping):
            raise UserError(
                f"config.{name} must be a section {{option: value}}, got {shown(section)}"
            )
    return {name: dict(section) for name, section in config.items()}
