"""Tables of numbers without a header, read from text files or refused with the cause.

Fields may be separated by commas, semicolons, tabs or blanks; which one is read from the content. Numbers have decimal
points. Numbers in quotes and Excel's first line `sep=;` are read. What exporters add (row numbers, column numbers, a
header, names of samples, units, an empty last column) is refused by name, see `m3col.data.formats.table_faults`.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from m3col.data.columns import FloatArray
from m3col.data.formats import table_faults, text_files
from m3col.data.formats.table_faults import Cells, to_number

_SHOWN = 5  # rows of one file that are named one by one; the rest is counted

_FEW_ROWS = 5  # below these a column 0, 1, 2, ... may be chance

_MANY_COLUMNS = 8  # in so many, a row 0, 1, 2, ... is no chance


@dataclass(frozen=True)
class _Lines:
    """`rows`: lines below Excel's `sep=` line; `first`: number of the first one in the file, from 1; `separator`: None
    for blanks."""

    rows: list[str]
    first: int
    separator: str | None


def read_matrix(path: Path, faults: list[str]) -> FloatArray | None:
    """The numbers [rows, columns] of a file without a header; a missing value is NaN. None, and every fault, where it
    cannot be used."""
    lines = text_files.read_lines(path, faults)
    if lines is None:
        return None
    found = _separated(lines)
    if found is None:
        faults.append(f"{path}: has no rows below its first line, which names the separator")
        return None
    matrix, wrong = _parsed(found, path)
    if matrix is not None:
        wrong = _exporter_faults(matrix, path, found.first)
    faults += wrong
    return None if wrong else matrix


def _separated(lines: list[str]) -> _Lines | None:
    named = text_files.separator_line(lines)
    if named is not None:
        rows, separator = lines[1:], None if named == " " else named
        return _Lines(rows, 2, separator) if rows else None
    return _Lines(lines, 1, _separator(lines))


def _separator(lines: Sequence[str]) -> str | None:
    """What separates the fields of most lines: a semicolon or a tab, which stand in no number; blanks (None) between
    numbers with decimal commas; else a comma, else blanks."""
    some = [line.strip(" \r\n") for line in lines[:200] if line.strip()]
    for mark in (";", "\t"):
        if 2 * sum(mark in line for line in some) > len(some):
            return mark
    if some and all(table_faults.are_decimal_commas(line.split()) for line in some):
        return None
    if 2 * sum("," in line for line in some) > len(some):
        return ","
    has_blanks = 2 * sum(len(line.split()) > 1 for line in some) > len(some)
    return None if has_blanks else ","


def _parsed(lines: _Lines, path: Path) -> tuple[FloatArray | None, list[str]]:
    text = lines.rows
    quoted = any('"' in line for line in text)
    if not quoted:
        ragged = list(_ragged([_width(line, lines.separator) for line in text], lines, path))
        if ragged:
            return None, ragged
        try:
            return np.loadtxt(text, delimiter=lines.separator, comments=None, ndmin=2, dtype=np.float64), []
        except ValueError:  # text, or a spelling of "missing" that numpy does not know
            cells = [_split(line, lines.separator) for line in text]
    else:
        cells = []
        for number, line in enumerate(text):
            try:
                cells.append(_unquoted(line, lines.separator))
            except csv.Error as error:
                return None, [f"{path}: row {lines.first + number}: is not CSV ({error}); look for a quote that is "
                              "not closed"]  # fmt: skip
        ragged = list(_ragged([len(row) for row in cells], lines, path))
        if ragged:
            return None, ragged
    found, headers = table_faults.of(Cells(path, cells, lines.first, lines.separator))
    if found and not headers:
        return None, found
    matrix = np.array([[to_number(cell) for cell in row] for row in cells[headers:]], dtype=np.float64)
    if found:  # the numbers below a header may have row numbers beside them
        return None, [*found, *_exporter_faults(matrix, path, lines.first + headers)]
    return matrix, []


def _width(line: str, separator: str | None) -> int:
    return len(line.split()) if separator is None else line.count(separator) + 1


def _split(line: str, separator: str | None) -> list[str]:
    return line.split() if separator is None else line.split(separator)


def _unquoted(line: str, separator: str | None) -> list[str]:
    """The fields of a line with quotes. Raises csv.Error where a quote is not closed."""
    if separator is None:
        line = " ".join(line.split())
    return next(csv.reader([line], delimiter=separator or " ", strict=True, skipinitialspace=True), [])


def _ragged(widths: list[int], lines: _Lines, path: Path) -> Iterator[str]:
    """Rows that are blank or have another number of fields than most rows."""
    usual = Counter(widths).most_common(1)[0][0]
    odd = [row for row, line in enumerate(lines.rows) if widths[row] != usual or not line.strip()]
    for row in odd[:_SHOWN]:
        place = f"{path}: row {row + lines.first}"
        if not lines.rows[row].strip():
            yield f"{place}: is blank"
            continue
        hint = ""
        if row == 0 and widths[0] == usual - 1 and len(odd) == 1:
            hint = "; a header line that is one field shorter is what R writes: use row.names=FALSE, col.names=FALSE"
        yield f"{place}: has {widths[row]} fields, but most rows have {usual}{hint}"
    if len(odd) > _SHOWN:
        yield f"{path}: {len(odd) - _SHOWN} more rows have another number of fields than {usual} or are blank"


def _exporter_faults(x: FloatArray, path: Path, first: int) -> list[str]:
    """Row and column numbers that a program has written beside the numbers."""
    found = []
    height, width = x.shape
    if is_column_numbers(x):
        numbers = ", ".join(f"{value:g}" for value in x[0, np.isfinite(x[0])][:2])
        found.append(
            f"{path}: row {first}: holds the column numbers {numbers}, ... {x[0, -1]:g}, a header that pandas or R "
            "writes; save the table without it (pandas: to_csv(..., header=False, index=False))"
        )
    below = x[1:] if found else x
    if height - len(found) >= _FEW_ROWS and width > 1 and below[0, 0] in (0, 1) and counts_rows(below[:, 0]):
        found.append(
            f"{path}: column 1: is the row number {below[0, 0]:g}, {below[1, 0]:g}, ... {below[-1, 0]:g} in every row, "
            "an index that pandas or R writes; save the table without it (pandas: to_csv(..., header=False, "
            "index=False))"
        )
    return found


def is_column_numbers(x: FloatArray) -> bool:
    """Whether the first row holds numbers of columns, as a header does: 0, 1, 2, ... or 1, 2, 3, ..., or some of them
    that rise. Its first field is empty where pandas has written row numbers below it.

    Measurements can look like that in one row; in few columns, or with gaps, a row is taken for a header only where
    every column holds fractions below it.
    """
    row = x[0, 1:] if np.isnan(x[0, 0]) and x.shape[1] > 2 else x[0]
    width, rest = len(row), x[1:, len(x[0]) - len(row) :]
    if width < 3 or not len(rest) or not np.isfinite(row).all() or (row % 1).any() or (np.diff(row) <= 0).any():
        return False
    has_fractions = bool(((rest % 1 != 0) & np.isfinite(rest)).any(axis=0).all())
    is_consecutive = row[0] in (0, 1) and bool((np.diff(row) == 1).all())
    return has_fractions if width < _MANY_COLUMNS or not is_consecutive else True


def counts_rows(column: FloatArray) -> bool:
    """Whether a column [N] is a whole number that grows by 1 from row to row."""
    if not len(column) or not np.isfinite(column[0]) or column[0] % 1:
        return False
    return np.array_equal(column, column[0] + np.arange(len(column)))


def read_labels(path: Path, faults: list[str]) -> list[str] | None:
    """One label per line, as text without quotes; None on a fault. `m3col.data.labels` says what a label means."""
    lines = text_files.read_lines(path, faults)
    if lines is None:
        return None
    first = 1
    if text_files.separator_line(lines) is not None:
        lines, first = lines[1:], 2
    separator = _separator(lines) or ","  # a label may hold blanks
    cells = []
    for number, line in enumerate(lines):
        try:
            cells.append(_unquoted(line, separator) if '"' in line else line.split(separator))
        except csv.Error as error:
            faults.append(f"{path}: row {first + number}: is not CSV ({error}); look for a quote that is not closed")
            return None
    wide = [row for row, fields in enumerate(cells) if len(fields) > 1]
    if wide:
        faults.append(_columns_fault(cells, wide, path, first))
        return None
    found = ["".join(fields) for fields in cells]
    parts = [label.split() for label in found]
    is_pair = len(parts) >= _FEW_ROWS and all(len(part) == 2 and part[0].isdigit() for part in parts)
    if is_pair and counts_rows(np.array([float(part[0]) for part in parts])):
        faults.append(f"{path}: must hold one label per line, but has 2 columns, and column 1 is the row number")
        return None
    return found


def _columns_fault(cells: list[list[str]], wide: list[int], path: Path, first: int) -> str:
    """More than one field in the lines of labels `wide`."""
    if len(wide) < len(cells):
        row = wide[0]
        return (
            f"{path}: row {row + first}: must hold one label, but has {len(cells[row])} fields; put a label that holds "
            "the separator in quotes"
        )
    width = max(len(fields) for fields in cells)
    if width == 2 and not any(fields[-1].strip() for fields in cells):
        return f"{path}: must hold one label per line, but each line ends with a separator; delete it"
    fault = f"{path}: must hold one label per line, but has {width} columns"
    try:
        numbers = np.array([to_number(fields[0]) for fields in cells[1:]])
    except ValueError:
        return f"{fault}; keep the one with the labels"
    if len(numbers) and counts_rows(numbers):
        return (
            f"{fault}, and column 1 is the row number; save it without (pandas: to_csv(..., header=False, index=False))"
        )
    return f"{fault}; keep the one with the labels"
