"""Options: a section is checked against the signature of what it is for, and against no list."""

import inspect
import math
from dataclasses import dataclass

import pytest

from score_jax.data import DATASETS
from score_jax.errors import UserError
from score_jax.losses import LOSSES
from score_jax.models import MODELS
from score_jax.options import check_options, choose
from score_jax.processes import PROCESSES
from score_jax.samplers import SAMPLERS


def factory(
    process=None,
    *,
    count: int,
    rate: float = 0.5,
    name_of: str = "x",
    on: bool = False,
    limit: float | None = None,
    every: int | None = 3,
    folder: str | None = None,
    sizes: tuple[int, ...] = (1, 2),
    rates: tuple[float, ...] = (),
):
    """Stands for any of ours: takes one argument of the program's and nine options."""


def checked(**options):
    return check_options("config.x", factory, {"count": 1} | options)


def refusal(call, *args, **options):
    with pytest.raises(UserError) as error:
        call(*args, **options)
    return str(error.value)


@pytest.mark.parametrize(
    ("option", "given", "taken"),
    [
        ("count", -3, -3),
        ("rate", 2, 2.0),
        ("rate", 2.5, 2.5),
        ("name_of", "y", "y"),
        ("on", True, True),
        ("limit", None, None),
        ("limit", 4, 4.0),
        ("every", None, None),
        ("every", 7, 7),
        ("folder", None, None),
        ("folder", "a/b", "a/b"),
        ("sizes", [3, 4, 5], (3, 4, 5)),
        ("sizes", (), ()),
        ("rates", [1, 2.5], (1.0, 2.5)),
    ],
)
def test_a_value_that_loses_nothing_is_taken_with_the_type_of_the_signature(option, given, taken):
    value = checked(**{option: given})[option]
    assert value == taken and type(value) is type(taken)
    if isinstance(taken, tuple):
        assert [type(item) for item in value] == [type(item) for item in taken]


@pytest.mark.parametrize(
    ("option", "given", "expected"),
    [
        ("count", 1.0, "int"),
        ("count", True, "int"),
        ("count", "3", "int"),
        ("count", None, "int"),
        ("rate", "fast", "float"),
        ("rate", False, "float"),
        ("rate", None, "float"),
        ("name_of", 3, "str"),
        ("on", 1, "bool"),
        ("on", "yes", "bool"),
        ("limit", "none", "float | None"),
        ("limit", True, "float | None"),
        ("every", 2.0, "int | None"),
        ("folder", 7, "str | None"),
        ("sizes", 3, "tuple[int, ...]"),
        ("sizes", "12", "tuple[int, ...]"),
        ("sizes", {"a": 1}, "tuple[int, ...]"),
    ],
)
def test_any_other_value_is_refused_with_its_name_its_type_and_the_type_expected(
    option, given, expected
):
    assert refusal(checked, **{option: given}) == (
        f"config.x.{option} must be {expected}, got {given!r} ({type(given).__name__})"
    )


def test_a_wrong_item_is_named_by_its_place():
    assert "config.x.sizes[1] must be int, got 2.0" in refusal(checked, sizes=(1, 2.0))


@pytest.mark.parametrize("given", [math.inf, -math.inf, math.nan, 10**400])
def test_a_number_that_is_no_finite_float_is_refused(given):
    assert "config.x.rate must be finite" in refusal(checked, rate=given)
    assert "config.x.limit must be finite" in refusal(checked, limit=given)


def test_what_is_left_out_stands_at_its_default():
    """So the resolved config in a workdir names every option, whatever the config named."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(factory).parameters.items()
        if name not in ("process", "count")
    }
    assert checked() == {"count": 1} | defaults


def test_checking_what_was_checked_changes_nothing():
    once = checked(rate=2, sizes=[3], limit=1)
    assert check_options("config.x", factory, once) == once


def test_required_options_left_out_are_all_named():
    def needs(*, first: int, second: str, third: float = 1.0):
        """Two options without a default."""

    message = refusal(check_options, "config.x", needs, {})
    assert message.startswith("config.x needs first, second;")
    assert "third" in message


def test_an_unknown_option_is_answered_with_the_nearest_and_with_all():
    message = refusal(checked, limmit=3)
    assert "unknown option of config.x 'limmit'" in message
    assert "Did you mean 'limit'?" in message
    assert all(name in message for name in checked())


def test_what_the_program_itself_passes_is_no_option():
    assert "process" not in checked()
    assert "unknown option" in refusal(checked, process=3)


def test_the_options_of_somebody_else_are_suggested_but_not_taken():
    options = {"count": 1, "centred": True}
    message = refusal(check_options, "config.x", factory, options, also=("centered",))
    assert "Did you mean 'centered'?" in message
    assert "unknown option" in refusal(
        check_options, "config.x", factory, {"count": 1, "centered": True}, also=("centered",)
    )


@pytest.mark.parametrize("name", sorted(MODELS))
def test_fields_of_flax_itself_are_no_options_of_a_network(name):
    required = {"levels": 3} if name == "refinenet" else {}
    assert not {"name", "parent"} & set(check_options("config.model", MODELS[name], required))
    for field in ("name", "parent"):
        options = required | {field: "x"}
        assert "unknown option" in refusal(check_options, "config.model", MODELS[name], options)


FAMILIES = {
    "process": PROCESSES,
    "model": MODELS,
    "loss": LOSSES,
    "sampler": SAMPLERS,
    "data": DATASETS,
}


@pytest.mark.parametrize(
    ("family", "name"), [(family, name) for family in FAMILIES for name in sorted(FAMILIES[family])]
)
def test_no_parameter_of_anything_of_ours_is_out_of_a_config_s_reach(family, name):
    """An option whose type `check_options` does not know would be hidden without a word."""
    kind = FAMILIES[family][name]
    parameters = set(inspect.signature(kind).parameters) - {"process", "parent", "name"}
    required = {"int": 2, "float": 1.0, "str": "x"}
    given = {
        key: required[parameter.annotation.__name__]
        for key, parameter in inspect.signature(kind).parameters.items()
        if key in parameters and parameter.default is parameter.empty
    }
    assert set(check_options(f"config.{family}", kind, given)) == parameters


TABLE = {"first": factory, "second": dataclass(type("Second", (), {"__annotations__": {}}))}


def test_the_name_of_a_section_chooses_and_is_no_option():
    kind, options = choose("x", TABLE, {"name": "first", "count": 2})
    assert kind is factory and options == checked(count=2)
    assert choose("x", TABLE, {"name": "second"}) == (TABLE["second"], {})


def test_choosing_leaves_the_section_as_it_was():
    section = {"name": "first", "count": 2}
    choose("x", TABLE, section)
    assert section == {"name": "first", "count": 2}


@pytest.mark.parametrize("given", ["frist", 3, ["first"], {"first": 1}, ""])
def test_a_name_that_is_not_in_the_table_is_refused_with_those_that_are(given):
    message = refusal(choose, "x", TABLE, {"name": given, "count": 1})
    assert "unknown config.x.name" in message and str(given) in message
    assert "known: first, second" in message


def test_a_section_without_a_name_is_refused_with_the_names():
    assert refusal(choose, "x", TABLE, {"count": 1}) == (
        "config.x needs a name; known: first, second"
    )
