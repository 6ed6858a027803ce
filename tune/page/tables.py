"""Tables that sort and filter in the browser."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tune.page.markup import Html, escaped, tag
from tune.results.formatting import EMPTY

_LONG = 40  # with more rows a table scrolls inside of its frame


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        content: what is shown.
        value: what sorts the column; None: the content as text.
        class_: class in the style sheet.
    """

    content: Any
    value: Any = None
    class_: str | None = None


def number(text: str, value: Any) -> Cell:
    """Returns the cell of a number: its text, and the value that sorts it. Missing numbers sort last."""
    try:
        finite = value is not None and math.isfinite(value)
    except TypeError:
        return Cell(text, str(value), "num")
    return Cell(text if finite else EMPTY, repr(float(value)) if finite else "", "num")


def table(
    heads: Sequence[str], rows: Sequence[Sequence[Cell]], *, name: str, marked: Sequence[int] = (),
    kinds: Sequence[str] | None = None,
) -> Html:  # fmt: skip
    """Returns a table with a field that filters its rows. A click on a heading sorts.

    Args:
        heads: the headings.
        rows: the cells of each row, as many as headings.
        name: of the table, for readers who cannot see it.
        marked: numbers of rows that stand out.
        kinds: of each row a kind to choose from, such as the state of a trial; None: no choice.

    Returns:
        The table with its controls.
    """
    head = []
    for at, title in enumerate(heads):
        is_number = bool(rows) and rows[0][at].class_ == "num"
        head.append(tag("th", tag("button", title, type="button"), scope="col", class_="num" if is_number else None))
    body = []
    for at, row in enumerate(rows):
        cells = [tag("td", cell.content, class_=cell.class_, data_v=cell.value) for cell in row]
        kind = None if kinds is None else kinds[at]
        body.append(tag("tr", *cells, class_="marked" if at in marked else None, data_kind=kind))
    grid = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body), aria_label=name)
    scroll = tag("div", grid, class_="scroll long" if len(rows) > _LONG else "scroll", tabindex=0, role="region",
                 aria_label=name)  # fmt: skip
    return tag("div", _controls(len(rows), kinds), scroll, class_="tool")


def _controls(count: int, kinds: Sequence[str] | None) -> Html:
    field = tag("input", type="search", placeholder="Filter rows", aria_label="Filter rows", class_="filter")
    choice = escaped("")
    if kinds is not None and len(set(kinds)) > 1:
        options = [tag("option", f"all {count}", value="")]
        options += [tag("option", f"{kind} ({list(kinds).count(kind)})", value=kind) for kind in dict.fromkeys(kinds)]
        choice = tag("select", *options, aria_label="Kind of row", class_="kind")
    said = tag("span", f"{count} rows", class_="count", aria_live="polite")
    return tag("div", field, choice, said, class_="controls")


def plain(heads: Sequence[str], rows: Sequence[Sequence[Any]], *, numbers: bool = True) -> Html:
    """Returns a table without controls; its first column is left-aligned, the others are numbers unless said."""
    style = "num" if numbers else None
    head = [tag("th", title, scope="col", class_=style if at else None) for at, title in enumerate(heads)]
    body = [tag("tr", *(tag("td", x, class_=style if at else None) for at, x in enumerate(row))) for row in rows]
    return tag("div", tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body)), class_="scroll")
