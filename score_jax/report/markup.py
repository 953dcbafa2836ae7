"""HTML as nested calls. All text is escaped where it is put in: no section can forget it."""

import html
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from score_jax.report.values import uncertainty, written

VOID = ("img", "meta", "br")  # elements that hold nothing and are not closed


class Markup(str):
    """Text that is HTML already."""


def join(*children: Any) -> Markup:
    """Children one after the other: Markup as it is, None as nothing, text escaped."""
    return Markup("".join(map(_put, children)))


def _put(child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, Iterable) and not isinstance(child, str):
        return join(*child)
    return html.escape(str(child))


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """<name ...>children</name>. An attribute that is None is left out; class_ is class, a_b a-b.

    >>> tag("p", "1 < 2", class_="note")
    '<p class="note">1 &lt; 2</p>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{join(*children)}</{name}>")


def paragraph(*children: Any) -> Markup:
    """<p>."""
    return tag("p", *children)


def code(text: str) -> Markup:
    """<code>."""
    return tag("code", text)


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], right: Collection[int] = ()):
    """A table in a box that scrolls where the page is narrow.

    The first cell of a row is its heading; the columns `right` hold numbers.
    """
    kind = lambda i: "number" if i in right else None
    top = [tag("th", cell, scope="col", class_=kind(i)) for i, cell in enumerate(head)]
    body = [
        tag("tr", tag("th", row[0], scope="row"),
            [tag("td", cell, class_=kind(i)) for i, cell in enumerate(row) if i])
        for row in rows
    ]  # fmt: skip
    content = [tag("thead", tag("tr", top)) if head else None, tag("tbody", body)]
    return tag("div", tag("table", content), class_="scroll")


def measured(value: float | None, error: float | None) -> Markup:
    """A number with its standard error, quieter, behind it."""
    return join(written(value, error), tag("small", f" {uncertainty(error)}") if error else None)


def figure(content: Any, *caption: Any) -> Markup:
    """<figure> with its caption."""
    return tag("figure", content, tag("figcaption", *caption))
