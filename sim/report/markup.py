"""HTML in which nothing is markup that was not meant to be: all text is escaped where it is put in.

Elements are functions of their children; a child that is a `Markup` stands as it is, anything else is text.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

VOID = {"meta", "br", "line", "circle", "rect", "path", "polygon", "polyline"}


class Markup(str):
    """Text that is HTML already."""


def text(child: Any) -> Markup:
    """A child as HTML: nothing for None, the parts of a list one after the other."""
    if isinstance(child, Markup):
        return child
    if child is None:
        return Markup("")
    if isinstance(child, list | tuple) or (
        isinstance(child, Iterable) and not isinstance(child, str | bytes)
    ):
        return Markup("".join(text(part) for part in child))
    return Markup(escape(str(child)))


def tag(element: str, /, *children: Any, **attributes: Any) -> Markup:
    """An element. `class_` is class, other underscores are hyphens; an attribute that is None is left out."""
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    given = "".join(f' {key}="{escape(str(value))}"' for key, value in pairs if value is not None)
    if element in VOID:
        return Markup(f"<{element}{given}/>")
    return Markup(f"<{element}{given}>{text(children)}</{element}>")


def table(head: list[Any], rows: list[list[Any]], numeric: Iterable[int] = (), **attributes: Any) -> Markup:
    """A table that scrolls by itself where a screen is narrow; `numeric` are the columns set to the right."""
    right = set(numeric)

    def cells(kind: str, row: list[Any], **also: Any) -> list[Markup]:
        return [tag(kind, c, class_="n" if i in right else None, **also) for i, c in enumerate(row)]

    body = [tag("tr", cells("td", row)) for row in rows]
    made = tag("table", tag("thead", tag("tr", cells("th", head, scope="col"))), tag("tbody", body))
    return tag("div", made, **({"class_": "scroll", "tabindex": "0", "role": "region"} | attributes))


def number(value: float, digits: int = 3) -> str:
    """So many significant digits, without an exponent where people would write none."""
    if value == 0 or not abs(value) < float("inf"):
        return "0" if value == 0 else str(value)
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:.0f}"
    return f"{value:.{digits}g}"
