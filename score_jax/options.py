"""A config section and the function it is for: names, options and types checked by signature.

The signature of a factory is the one place that lists its options and their types, so a
section that would not fit is refused before anything runs, with the nearest known name.
"""

import inspect
import os
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args, get_origin

from score_jax.errors import UserError, shown, unknown

LARGEST = 3.4028234663852886e38  # of float32, which everything is computed in
_MODULE_FIELDS = {"parent", "name"}  # Flax's own


def choose(
    family: str, table: Mapping[str, Callable], section: Mapping[str, Any], also: Iterable[str] = ()
):
    """(factory, options) of a section {name: ..., option: ...}, checked.

    also: options of the section that somebody else takes; named in messages only.

    Raises UserError for a missing or unknown name and for what `check_options` refuses.
    """
    options = dict(section)
    name = options.pop("name", None)
    if name is None:
        raise UserError(f"config.{family} needs a name; known: {', '.join(sorted(table))}")
    if not isinstance(name, str) or name not in table:
        raise unknown(f"config.{family}.name", name, table)
    return table[name], check_options(f"config.{family}", table[name], options, also)


def check_options(
    what: str, factory: Callable, options: Mapping[str, Any], also: Iterable[str] = ()
) -> dict[str, Any]:
    """All options of `factory`, the given ones cast where nothing is lost (int to float,
    list to tuple, ~ to the home folder), the others at their defaults.

    Raises UserError for an option that `factory` does not have, a value of another type
    than its annotation, a number that is not finite in float32, and a required option left out.
    """
    known = options_of(factory)
    for name in options:
        if name not in known:
            raise unknown(f"option of {what}", name, [*known, *also])
    missing = [
        name
        for name, parameter in known.items()
        if parameter.default is parameter.empty and name not in options
    ]
    if missing:
        raise UserError(f"{what} needs {', '.join(missing)}; its options: {', '.join(known)}")
    given = {
        name: _cast(f"{what}.{name}", value, known[name].annotation)
        for name, value in options.items()
    }
    return {name: parameter.default for name, parameter in known.items()} | given


def options_of(factory: Callable) -> dict[str, inspect.Parameter]:
    """The parameters of a factory that a config can give: those of plain types."""
    return {
        name: parameter
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and name not in _MODULE_FIELDS
        and _is_plain(parameter.annotation)
    }


_PLAIN = (int, float, str, bool)


def _is_plain(annotation) -> bool:
    """A plain type, tuple[...] of them, or a union of such and None."""
    if isinstance(annotation, types.UnionType):
        return all(a is type(None) or _is_plain(a) for a in get_args(annotation))
    return annotation in _PLAIN or get_origin(annotation) is tuple


def _cast(what: str, value: Any, annotation: Any) -> Any:
    kind = annotation
    if isinstance(annotation, types.UnionType):
        if value is None:
            return None
        kind = next(a for a in get_args(annotation) if a is not type(None))
    if get_origin(kind) is tuple:
        if isinstance(value, (tuple, list)):
            (inner, _) = get_args(kind)
            return tuple(_cast(f"{what}[{i}]", item, inner) for i, item in enumerate(value))
    elif kind is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if not abs(value) <= LARGEST:
                raise UserError(f"{what} must be finite in float32, got {shown(value)}")
            return float(value)
    elif kind is str and isinstance(value, str):
        return os.path.expanduser(value)  # a path may begin with ~, and nothing else does
    elif isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
        return value
    expected = annotation.__name__ if annotation in _PLAIN else annotation
    raise UserError(f"{what} must be {expected}, got {shown(value)} ({type(value).__name__})")
