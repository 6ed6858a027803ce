"""Reads numeric tables without a header from text files, or refuses them with the cause.

The separator (comma, semicolon, tab or blanks) is detected from the content. Numbers have decimal points. Numbers in
quotes and Excel's first line `sep=;` are accepted. Common additions of exporters (row numbers, column numbers, a
header, sample names, units, an empty last column) are recognized and refused, see `m3col.data.formats.table_faults`.
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

_SHOWN = 5  # rows of one file listed individually; the others are only counted

_FEW_ROWS = 5  # with fewer rows, a column 0, 1, 2, ... may be chance

_MANY_COLUMNS = 8  # with at least so many columns, a row 0, 1, 2, ... is not chance


@dataclass(frozen=True)
class _Lines:
    """The lines of a table.

    Attributes:
        rows: the lines below Excel's `sep=` line.
        first: number of the first of them in the file, from 1.
        separator: the separator of the fields; None for blanks.
    """

    rows: list[str]
    first: int
    separator: str | None


def read_matrix(path: Path, faults: list[str]) -> FloatArray | None:
    """Reads the numbers [rows, columns] of a file without a header; NaN means missing.

    Returns None and adds all faults to `faults` if the file cannot be used.
    """
    lines = text_files.read_lines(path, faults)
    if lines is None:
        return None
    table = _separated(lines)
    if table is None:
        faults.append(f"{path}: has no rows below its first line, which names the separator")
        return None
    matrix, new_faults = _parsed(table, path)
    if matrix is not None:
        new_faults = _exporter_faults(matrix, path, table.first)
    faults += new_faults
    return None if new_faults else matrix


def _separated(lines: list[str]) -> _Lines | None:
    named = text_files.separator_line(lines)
    if named is not None:
        rows, separator = lines[1:], None if named == " " else named
        return _Lines(rows, 2, separator) if rows else None
    return _Lines(lines, 1, _separator(lines))


def _separator(lines: Sequence[str]) -> str | None:
    """Detects the separator from the first lines; None for blanks.

    A semicolon or tab in most lines is the separator, because numbers contain neither. Blanks separate numbers with
    decimal commas. Otherwise it is a comma if most lines have one, else blanks.
    """
    sample = [line.strip(" \r\n") for line in lines[:200] if line.strip()]
    for mark in (";", "\t"):
        if 2 * sum(mark in line for line in sample) > len(sample):
            return mark
    if sample and all(table_faults.are_decimal_commas(line.split()) for line in sample):
        return None
    if 2 * sum("," in line for line in sample) > len(sample):
        return ","
    has_blanks = 2 * sum(len(line.split()) > 1 for line in sample) > len(sample)
    return None if has_blanks else ","


def _parsed(lines: _Lines, path: Path) -> tuple[FloatArray | None, list[str]]:
    rows = lines.rows
    quoted = any('"' in line for line in rows)
    if not quoted:
        ragged = list(_ragged([_width(line, lines.separator) for line in rows], lines, path))
        if ragged:
            return None, ragged
        try:
            return np.loadtxt(rows, delimiter=lines.separator, comments=None, ndmin=2, dtype=np.float64), []
        except ValueError:  # text, or a mark of a missing value that NumPy does not accept
            cells = [_split(line, lines.separator) for line in rows]
    else:
        cells = []
        for number, line in enumerate(rows):
            try:
                cells.append(_unquoted(line, lines.separator))
            except csv.Error as error:
                return None, [f"{path}: row {lines.first + number}: is not CSV ({error}); look for a quote that is "
                              "not closed"]  # fmt: skip
        ragged = list(_ragged([len(row) for row in cells], lines, path))
        if ragged:
            return None, ragged
    number_faults, header_rows = table_faults.of(Cells(path, cells, lines.first, lines.separator))
    if number_faults and not header_rows:
        return None, number_faults
    matrix = np.array([[to_number(cell) for cell in row] for row in cells[header_rows:]], dtype=np.float64)
    if number_faults:  # the numbers below a header may have a column of row numbers, too
        return None, [*number_faults, *_exporter_faults(matrix, path, lines.first + header_rows)]
    return matrix, []


def _width(line: str, separator: str | None) -> int:
    return len(line.split()) if separator is None else line.count(separator) + 1


def _split(line: str, separator: str | None) -> list[str]:
    return line.split() if separator is None else line.split(separator)


def _unquoted(line: str, separator: str | None) -> list[str]:
    """The fields of a line with quotes. Raises csv.Error if a quote is not closed."""
    if separator is None:
        line = " ".join(line.split())
    return next(csv.reader([line], delimiter=separator or " ", strict=True, skipinitialspace=True), [])


def _ragged(widths: list[int], lines: _Lines, path: Path) -> Iterator[str]:
    """Yields faults of rows that are blank or have another number of fields than most rows."""
    usual = Counter(widths).most_common(1)[0][0]
    deviating = [row for row, line in enumerate(lines.rows) if widths[row] != usual or not line.strip()]
    for row in deviating[:_SHOWN]:
        prefix = f"{path}: row {row + lines.first}"
        if not lines.rows[row].strip():
            yield f"{prefix}: is blank"
            continue
        hint = ""
        if row == 0 and widths[0] == usual - 1 and len(deviating) == 1:
            hint = "; a header line that is one field shorter is what R writes: use row.names=FALSE, col.names=FALSE"
        yield f"{prefix}: has {widths[row]} fields, but most rows have {usual}{hint}"
    if len(deviating) > _SHOWN:
        yield f"{path}: {len(deviating) - _SHOWN} more rows have another number of fields than {usual} or are blank"


def _exporter_faults(x: FloatArray, path: Path, first: int) -> list[str]:
    """Faults of row numbers and column numbers that a program has added to the table."""
    faults = []
    height, width = x.shape
    if is_column_numbers(x):
        numbers = ", ".join(f"{value:g}" for value in x[0, np.isfinite(x[0])][:2])
        faults.append(
            f"{path}: row {first}: holds the column numbers {numbers}, ... {x[0, -1]:g}, a header that pandas or R "
            "writes; save the table without it (pandas: to_csv(..., header=False, index=False))"
        )
    below = x[1:] if faults else x
    if height - len(faults) >= _FEW_ROWS and width > 1 and below[0, 0] in (0, 1) and counts_rows(below[:, 0]):
        faults.append(
            f"{path}: column 1: is the row number {below[0, 0]:g}, {below[1, 0]:g}, ... {below[-1, 0]:g} in every row, "
            "an index that pandas or R writes; save the table without it (pandas: to_csv(..., header=False, "
            "index=False))"
        )
    return faults


def is_column_numbers(x: FloatArray) -> bool:
    """Whether the first row is a header of column numbers: 0, 1, 2, ... or 1, 2, 3, ..., or a rising selection of them.

    Its first field is empty if pandas has written row numbers below it. Measurements can look like that in one row.
    With few columns, or with gaps, a row is therefore a header only if every column has fractions below it.
    """
    row = x[0, 1:] if np.isnan(x[0, 0]) and x.shape[1] > 2 else x[0]
    width, below = len(row), x[1:, len(x[0]) - len(row) :]
    if width < 3 or not len(below) or not np.isfinite(row).all() or (row % 1).any() or (np.diff(row) <= 0).any():
        return False
    has_fractions = bool(((below % 1 != 0) & np.isfinite(below)).any(axis=0).all())
    is_consecutive = row[0] in (0, 1) and bool((np.diff(row) == 1).all())
    return has_fractions if width < _MANY_COLUMNS or not is_consecutive else True


def counts_rows(column: FloatArray) -> bool:
    """Whether a column [N] contains whole numbers that increase by 1 from row to row."""
    if not len(column) or not np.isfinite(column[0]) or column[0] % 1:
        return False
    return np.array_equal(column, column[0] + np.arange(len(column)))


def read_labels(path: Path, faults: list[str]) -> list[str] | None:
    """Reads one label per line, as text without quotes; None if there are faults. `m3col.data.labels` parses them."""
    lines = text_files.read_lines(path, faults)
    if lines is None:
        return None
    first = 1
    if text_files.separator_line(lines) is not None:
        lines, first = lines[1:], 2
    separator = _separator(lines) or ","  # blanks do not separate fields: a label may contain them
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
    labels = ["".join(fields) for fields in cells]
    parts = [label.split() for label in labels]
    is_pair = len(parts) >= _FEW_ROWS and all(len(part) == 2 and part[0].isdigit() for part in parts)
    if is_pair and counts_rows(np.array([float(part[0]) for part in parts])):
        faults.append(f"{path}: must hold one label per line, but has 2 columns, and column 1 is the row number")
        return None
    return labels


def read_label_table(path: Path, faults: list[str]) -> tuple[tuple[str, ...] | None, list[list[str]]] | None:
    """Reads a table of labels or numbers, one row per sample, whose first line may name the columns.

    Returns:
        The names of the columns, None without such a line, and the fields of each row as text for
        `m3col.data.label_tables`; None if there are faults.
    """
    lines = text_files.read_lines(path, faults)
    if lines is None:
        return None
    table = _separated(lines)
    if table is None:
        faults.append(f"{path}: has no rows below its first line, which names the separator")
        return None
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(table.rows, delimiter=table.separator or " ")]
    except csv.Error as error:
        faults.append(f"{path}: is not CSV ({error}); look for a quote that is not closed")
        return None
    names = None if all(map(table_faults.is_number, rows[0])) else tuple(rows.pop(0))
    first, width = table.first + (names is not None), len(names if names is not None else rows[0])
    uneven = [number for number, row in enumerate(rows) if len(row) != width]
    faults += [f"{path}: row {first + at}: has {len(rows[at])} fields, but the first row has {width}" for at in
               uneven[:_SHOWN]]  # fmt: skip
    if (
        names is not None
        and not names[0]
        and rows
        and not uneven
        and [row[0] for row in rows] == [str(number) for number in range(len(rows))]
    ):
        faults.append(
            f"{path}: column 1 is the row number; save the table without it (pandas: to_csv(..., index=False))"
        )
        return None
    return None if uneven else (names, rows)


def _columns_fault(cells: list[list[str]], wide: list[int], path: Path, first: int) -> str:
    """The fault of a label file in which the rows `wide` have more than one field."""
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
