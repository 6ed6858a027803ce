"""Explains why fields of a table are not numbers, and how to fix the file."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m3col.data.formats.missing_marks import MARKS
from m3col.data.formats.text_files import short

_SAMPLE = 100  # rows that are checked for decimal commas

_SHOWN = 5  # faults of one kind listed individually; the others are only counted

_DECIMAL_COMMA = re.compile(r"[+-]?\d{1,3}(\.\d{3})*,\d+([eE][+-]?\d+)?|[+-]?\d+,\d+([eE][+-]?\d+)?")

_WHOLE = re.compile(r"[+-]?\d+([eE][+-]?\d+)?")

_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?|[+-]?\d{1,3}([ '\u00a0\u202f]\d{3})+([.,]\d+)?")

_DATE = re.compile(r"(?i)\d{1,2}-[a-z]{3}(-\d{2,4})?|[a-z]{3}-\d{2}|\d{1,4}[./-]\d{1,2}[./-]\d{1,4}|\d{1,2}:\d{2}.*")

_EXCEL_ERRORS = ("#DIV/0!", "#REF!", "#VALUE!", "#NAME?", "#NUM!", "#NULL!", "#SPILL!", "########")

_OTHER_MARKS = ("-", "--", ".", "..", "?", "*", "ND", "n.d.", "nd", "missing", "Missing", "#", "x", "not available")

_WITH_UNIT = re.compile(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?\s*[A-Za-z%\u00b5\u00b0][\w/%\u00b0.^-]*")

_MINUS = ("\u2212", "\u2013", "\u2014")  # minus sign and dashes other than the hyphen


@dataclass(frozen=True)
class Cells:
    """The fields of a file.

    Attributes:
        path: the file.
        rows: the fields; all rows have the same length.
        first: number of the first row in the file.
        separator: the separator of the fields; None for blanks.
    """

    path: Path
    rows: list[list[str]]
    first: int
    separator: str | None


def are_decimal_commas(fields: Sequence[str]) -> bool:
    """Whether there are several fields, each a whole number or a number with a decimal comma."""
    return len(fields) > 1 and all(_DECIMAL_COMMA.fullmatch(field) or _WHOLE.fullmatch(field) for field in fields)


def to_number(cell: str) -> float:
    """The value of a field; NaN if it is missing. Raises ValueError for text."""
    cell = cell.strip()
    if cell in MARKS:
        return float("nan")
    if "_" in cell:  # Python reads 1_000 as a number, other programs do not
        raise ValueError(cell)
    return float(cell)


def is_number(cell: str) -> bool:
    """Whether a field is a number or a mark of a missing value."""
    try:
        to_number(cell)
    except ValueError:
        return False
    return True


def of(cells: Cells) -> tuple[list[str], int]:
    """Finds all faults of fields that should be numbers.

    Returns:
        The faults, one line each, and the number of header rows. That number is 0 unless all fields below are numbers.
    """
    commas = _comma_faults(cells)
    if commas:
        return commas, 0
    empty = _empty_columns(cells)
    non_numeric = {(r, c) for r, row in enumerate(cells.rows) for c, cell in enumerate(row) if not is_number(cell)}
    if not non_numeric:
        return empty, 0
    if len(non_numeric) == len(cells.rows) * len(cells.rows[0]):
        return [f"{cells.path}: holds no number: row {cells.first}, column 1 is {short(cells.rows[0][0])}"], 0
    columns = _text_columns(cells, non_numeric)
    headers = _text_rows(cells, non_numeric, columns)
    faults = [*empty, *_column_faults(cells, columns), *_header_faults(cells, headers, columns)]
    other_cells = sorted((r, c) for r, c in non_numeric if c not in columns and r not in headers)
    faults += [_cell_fault(cells, r, c) for r, c in other_cells[:_SHOWN]]
    hidden = len(other_cells) - _SHOWN + max(0, len(columns) - _SHOWN)
    faults += [f"{cells.path}: {hidden} more places hold text"] if hidden > 0 else []
    return faults, 0 if columns or other_cells else len(headers)


def _empty_columns(cells: Cells) -> list[str]:
    """Faults of a first or last column that is empty because every row begins or ends with a separator."""
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
    """The fault of decimal commas, if most of the non-numeric fields have them. Only the first rows are checked."""
    fields = [(r, c, cell.strip()) for r, row in enumerate(cells.rows[:_SAMPLE]) for c, cell in enumerate(row)]
    non_numeric = [field for field in fields if not is_number(field[2])]
    commas = [field for field in non_numeric if _DECIMAL_COMMA.fullmatch(field[2])]
    if not commas or 2 * len(commas) <= len(non_numeric):
        return []
    r, c, cell = commas[0]
    if all(_THOUSANDS.fullmatch(field[2]) for field in commas):
        text = "has a comma before three digits, a separator of thousands or a decimal comma; save the numbers with "
        return [f"{_place(cells, r, c)}: {short(cell)} {text}decimal points, and without separators of thousands"]
    return [f"{_place(cells, r, c)}: {short(cell)} has a decimal comma; save the numbers with decimal points"]


def _place(cells: Cells, r: int, c: int) -> str:
    return f"{cells.path}: row {r + cells.first}, column {c + 1}"


def _text_columns(cells: Cells, bad: set[tuple[int, int]]) -> list[int]:
    """Columns that contain text in every row below the first."""
    height = len(cells.rows)
    counts = Counter(c for r, c in bad if r)
    return [c for c, count in sorted(counts.items()) if count == height - 1 and height > 2]


def _text_rows(cells: Cells, bad: set[tuple[int, int]], columns: list[int]) -> list[int]:
    """The first rows (at most three) with text in all columns but `columns`. The first header field may be empty."""
    others = [c for c in range(len(cells.rows[0])) if c not in columns]
    header_rows: list[int] = []
    for r in range(min(3, len(cells.rows) - 1)):
        checked = others[1:] if len(others) > 2 and cells.rows[r][0].strip() in MARKS else others
        if not checked or any((r, c) not in bad for c in checked):
            break
        header_rows.append(r)
    return header_rows


def _column_faults(cells: Cells, columns: list[int]) -> list[str]:
    faults = []
    for c in columns[:_SHOWN]:
        example = short(cells.rows[1][c].strip())
        advice = "keep the columns with numbers only"
        if c == 0:
            advice = (
                "if these are names of samples, save the table without them (pandas: to_csv(..., index=False, "
                "header=False); R: row.names=FALSE)"
            )
        faults.append(f"{cells.path}: column {c + 1}: holds text in every row, such as {example}; {advice}")
    return faults


def _header_faults(cells: Cells, rows: list[int], columns: list[int]) -> list[str]:
    faults = []
    for r in rows:
        c = next(c for c, cell in enumerate(cells.rows[r]) if c not in columns and not is_number(cell))
        what = "a header line" if r == 0 else "a line of units or a second header"
        faults.append(
            f"{cells.path}: row {r + cells.first}: holds text, such as {short(cells.rows[r][c].strip())}; if it is "
            f"{what}, delete it (names of columns belong in <k>_featname.csv)"
        )
    return faults


def _cell_fault(cells: Cells, r: int, c: int) -> str:
    cell = cells.rows[r][c].strip()
    return f"{_place(cells, r, c)}: {short(cell)} is not a number{why(cell)}"


def why(cell: str) -> str:
    """The end of a message: why a text is not a number, and what to write instead."""
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
