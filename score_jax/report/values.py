"""What JSON files hold, taken for what it should be, and written as a person reads it."""

import json
import math
from typing import Any


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is a dict, else an empty one."""
    return value if isinstance(value, dict) else {}


def number(value: Any) -> float | None:
    """The value if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond float64
        return None


def numbers(value: Any) -> list[float | None]:
    """The members of a list, by `number`; none for what is no list."""
    return [number(item) for item in value] if isinstance(value, list) else []


def measurement(value: Any) -> tuple[float | None, float | None]:
    """(value, standard error) of `v` or `{"value": v, "standard_error": e}`."""
    if isinstance(value, dict):
        return number(value.get("value")), number(value.get("standard_error"))
    return number(value), None


def count(value: Any) -> str:
    """A number of things, thousands marked; "?" for what is none."""
    found = number(value)
    return "?" if found is None else f"{found:,.0f}"


def written(value: float | None, error: float | None = None) -> str:
    """A number to four digits, or to its standard error's second one.

    >>> written(3.14159, 0.0123), written(3.14159), written(123456.7)
    ('3.142', '3.142', '123,457')
    """
    if value is None:
        return "–"
    if abs(value) >= 1e7:
        return f"{value:.4g}"
    if error and error > 0:
        decimals = 1 - math.floor(math.log10(error))
        if decimals <= 8:
            return f"{value:,.{max(0, decimals)}f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def uncertainty(error: float | None) -> str:
    """A standard error to two digits, after its sign; nothing where there is none."""
    return "" if error is None else f"± {written(error, error)}"


def plain(value: Any) -> str:
    """A config's or protocol's value in a line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
