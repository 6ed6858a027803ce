"""Why the fields of a table are not numbers: the cause that a person can see in the file, and what to do about it."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m3col.data.formats.missing_marks import MARKS
from m3col.data.formats.text_files import short

_SAMPLE = 100  # rows that are looked at for decimal commas

_SHOWN = 5  # places of one kind that are named one by one; the rest is counted

_DECIMAL_COMMA = re.compile(r"[+-]?\d{1,3}(\.\d{3})*,\d+([eE][+-]?\d+)?|[+-]?\d+,\d+([eE][+-]?\d+)?")

_WHOLE = re.compile(r"[+-]?\d+([eE][+-]?\d+)?")

_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?|[+-]?\d{1,3}([ '\u00a0\u202f]\d{3})+([.,]\d+)?")

_DATE = re.compile(r"(?i)\d{1,2}-[a-z]{3}(-\d{2,4})?|[a-z]{3}-\d{2}|\d{1,4}[./-]\d{1,2}[./-]\d{1,4}|\d{1,2}:\d{2}.*")

_EXCEL_ERRORS = ("#DIV/0!", "#REF!", "#VALUE!", "#NAME?", "#NUM!", "#NULL!", "#SPILL!", "########")

_OTHER_MARKS = ("-", "--", ".", "..", "?", "*", "ND", "n.d.", "nd", "missing", "Missing", "#", "x", "not available")

_WITH_UNIT = re.compile(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?\s*[A-Za-z%\u00b5\u00b0][\w/%\u00b0.^-]*")

_MINUS = ("\u2212", "\u2013", "\u2014")  # minus sign and dashes that are no hyphen


@dataclass(frozen=True)
class Cells:
    """Fields of a file, all rows equally long. `first`: number of the first row in the file; `separator`: None for
    blanks."""

    path: Path
    rows: list[list[str]]
    first: int
    separator: str | None


def are_decimal_commas(fields: Sequence[str]) -> bool:
    """Whether there are several fields, and all of them are numbers with a decimal comma or whole numbers."""
    return len(fields) > 1 and all(_DECIMAL_COMMA.fullmatch(field) or _WHOLE.fullmatch(field) for field in fields)


def to_number(cell: str) -> float:
    """The value of a field, NaN for a missing one. Raises ValueError for text."""
    cell = cell.strip()
    if cell in MARKS:
        return float("nan")
    if "_" in cell:  # a number in Python, text elsewhere
        raise ValueError(cell)
    return float(cell)


def is_number(cell: str) -> bool:
    """Whether a field is a number or stands for a missing one."""
    try:
        to_number(cell)
    except ValueError:
        return False
    return True


def of(cells: Cells) -> tuple[list[str], int]:
    """Every fault of fields that should be numbers, none where all of them are; and the number of rows at the top that
    are no numbers, where everything below is."""
    commas = _comma_faults(cells)
    if commas:
        return commas, 0
    empty = _empty_columns(cells)
    bad = {(r, c) for r, row in enumerate(cells.rows) for c, cell in enumerate(row) if not is_number(cell)}
    if not bad:
        return empty, 0
    if len(bad) == len(cells.rows) * len(cells.rows[0]):
        return [f"{cells.path}: holds no number: row {cells.first}, column 1 is {short(cells.rows[0][0])}"], 0
    columns = _text_columns(cells, bad)
    headers = _text_rows(cells, bad, columns)
    found = [*empty, *_column_faults(cells, columns), *_header_faults(cells, headers, columns)]
    single = sorted((r, c) for r, c in bad if c not in columns and r not in headers)
    found += [_cell_fault(cells, r, c) for r, c in single[:_SHOWN]]
    more = len(single) - _SHOWN + max(0, len(columns) - _SHOWN)
    found += [f"{cells.path}: {more} more places hold text"] if more > 0 else []
    return found, 0 if columns or single else len(headers)


def _empty_columns(cells: Cells) -> list[str]:
    """A first or last column that is empty in every row, as when every row begins or ends with a separator."""
    width = len(cells.rows[0])
    if cells.separator is None or width < 2:
        return []
    return [
        f"{cells.path}: column {at % width + 1} is empty in every row, because each row {verb} with "
        f"{cells.separator!r}; delete that {which} separator, or write NA where values are missing"
        for at, verb, which in ((0, "begins", "first"), (-1, "ends", "last"))
        if not any(row[at].strip() for row in cells.rows)
    ]


def _comma_faults(cells: Cells) -> list[str]:
    """The fault of decimal commas, where most of the first fields that are no numbers have them. A large table is not
    read to its end for that."""
    some = [(r, c, cell.strip()) for r, row in enumerate(cells.rows[:_SAMPLE]) for c, cell in enumerate(row)]
    bad = [place for place in some if not is_number(place[2])]
    commas = [place for place in bad if _DECIMAL_COMMA.fullmatch(place[2])]
    if not commas or 2 * len(commas) <= len(bad):
        return []
    r, c, cell = commas[0]
    if all(_THOUSANDS.fullmatch(place[2]) for place in commas):
        text = "has a comma before three digits, a separator of thousands or a decimal comma; save the numbers with "
        return [f"{_place(cells, r, c)}: {short(cell)} {text}decimal points, and without separators of thousands"]
    return [f"{_place(cells, r, c)}: {short(cell)} has a decimal comma; save the numbers with decimal points"]


def _place(cells: Cells, r: int, c: int) -> str:
    return f"{cells.path}: row {r + cells.first}, column {c + 1}"


def _text_columns(cells: Cells, bad: set[tuple[int, int]]) -> list[int]:
    """Columns that hold text in every row below the first."""
    height = len(cells.rows)
    counts = Counter(c for r, c in bad if r)
    return [c for c, count in sorted(counts.items()) if count == height - 1 and height > 2]


def _text_rows(cells: Cells, bad: set[tuple[int, int]], columns: list[int]) -> list[int]:
    """The first rows, at most three, that hold text in every other column; the first field of a header may be empty."""
    others = [c for c in range(len(cells.rows[0])) if c not in columns]
    found: list[int] = []
    for r in range(min(3, len(cells.rows) - 1)):
        named = others[1:] if len(others) > 2 and cells.rows[r][0].strip() in MARKS else others
        if not named or any((r, c) not in bad for c in named):
            break
        found.append(r)
    return found


def _column_faults(cells: Cells, columns: list[int]) -> list[str]:
    found = []
    for c in columns[:_SHOWN]:
        example = short(cells.rows[1][c].strip())
        advice = "keep the columns with numbers only"
        if c == 0:
            advice = (
                "if these are names of samples, save the table without them (pandas: to_csv(..., index=False, "
                "header=False); R: row.names=FALSE)"
            )
        found.append(f"{cells.path}: column {c + 1}: holds text in every row, such as {example}; {advice}")
    return found


def _header_faults(cells: Cells, rows: list[int], columns: list[int]) -> list[str]:
    found = []
    for r in rows:
        c = next(c for c, cell in enumerate(cells.rows[r]) if c not in columns and not is_number(cell))
        what = "a header line" if r == 0 else "a line of units or a second header"
        found.append(
            f"{cells.path}: row {r + cells.first}: holds text, such as {short(cells.rows[r][c].strip())}; if it is "
            f"{what}, delete it (names of columns belong in <k>_featname.csv)"
        )
    return found


def _cell_fault(cells: Cells, r: int, c: int) -> str:
    cell = cells.rows[r][c].strip()
    return f"{_place(cells, r, c)}: {short(cell)} is not a number{why(cell)}"


def why(cell: str) -> str:
    """What a text that should be a number is, and what to write instead, as the end of a message."""
    if _DECIMAL_COMMA.fullmatch(cell) and not _THOUSANDS.fullmatch(cell):
        return ": it has a decimal comma; use a decimal point"
    if _THOUSANDS.fullmatch(cell):
        return ": it has a separator of thousands, or a decimal comma; write it with a decimal point alone"
    if cell in _EXCEL_ERRORS or cell.startswith("####"):
        return ": it is an error value of Excel; mend the cell, or leave it empty"
    if cell.startswith(_MINUS):
        return ": its minus is a dash; write it with a hyphen"
    if _DATE.fullmatch(cell):
        return ": it is a date or a time, which Excel may have made of a name or a number"
    if cell.startswith(("<", ">", "\u2264", "\u2265")):
        return ": it is a bound, as of a limit of detection; write a number, or leave it empty"
    if cell.endswith("%"):
        return ": it has a percent sign; write the number alone"
    if _WITH_UNIT.fullmatch(cell):
        return ": it has a unit; write the number alone"
    if cell in _OTHER_MARKS:
        return "; write NA, or leave it empty, where a value is missing"
    return "; leave a missing value empty"
