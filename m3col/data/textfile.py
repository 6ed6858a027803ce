"""Text files read strictly: numbers, names. Every fault is a line with file, row and column."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from m3col.data.dataset import FloatArray
from m3col.faults import nearest

MISSING = ("", "NA", "N/A", "n/a", "<NA>", "NaN", "nan", "-nan", "NULL", "null", "None")
_SHOWN = 5  # cells or rows of one file that are named one by one; the rest is counted


def read_lines(path: Path, faults: list[str]) -> list[str] | None:
    """The lines of a UTF-8 file without trailing blank ones; None and a fault where it is missing, empty,
    unreadable or in another encoding.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        present = [p.name for p in path.parent.glob("*.csv")] if path.parent.is_dir() else []
        near = nearest(path.name, present)
        faults.append(f"{path}: the file is missing{near if near.startswith('; did') else ''}")
        return None
    except OSError as error:
        faults.append(f"{path}: cannot be read ({error.strerror or error})")
        return None
    if not raw.strip():
        faults.append(f"{path}: the file is empty")
        return None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = raw.count(b"\n", 0, error.start) + 1
        faults.append(f"{path}: row {row}: byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8")
        return None
    if "\0" in text:
        row = text.count("\n", 0, text.index("\0")) + 1
        faults.append(f"{path}: row {row}: holds a zero byte, so it is not UTF-8 text; save the file as UTF-8")
        return None
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while not lines[-1].strip():
        lines.pop()
    return lines


def read_matrix(path: Path, faults: list[str]) -> FloatArray | None:
    """The headerless numbers of a comma-separated file [rows, columns]; an empty field is NaN. None on a
    fault.
    """
    lines = read_lines(path, faults)
    if lines is None:
        return None
    ragged = list(_ragged(lines, path))
    if ragged:
        faults += ragged
        return None
    try:
        return np.loadtxt(lines, delimiter=",", comments=None, ndmin=2, dtype=np.float64)
    except ValueError:  # text, or a spelling of "missing" that numpy does not know
        found = _cell_faults(lines, path)
    if found:
        faults += found
        return None
    return np.array([[_number(cell) for cell in line.split(",")] for line in lines])


def _ragged(lines: list[str], path: Path) -> Iterator[str]:
    widths = [line.count(",") + 1 for line in lines]
    usual = Counter(widths).most_common(1)[0][0]
    odd = [row for row, line in enumerate(lines) if widths[row] != usual or not line.strip()]
    for row in odd[:_SHOWN]:
        if not lines[row].strip():
            yield f"{path}: row {row + 1}: is blank"
        else:
            yield f"{path}: row {row + 1}: has {widths[row]} fields, but most rows have {usual}"
    if len(odd) > _SHOWN:
        yield f"{path}: {len(odd) - _SHOWN} more rows have another number of fields than {usual} or are blank"


def _number(cell: str) -> float:
    """The value of a field. Raises ValueError for text."""
    cell = cell.strip()
    if cell in MISSING:
        return float("nan")
    if "_" in cell:  # a number in Python, text elsewhere
        raise ValueError(cell)
    return float(cell)


def _is_number(cell: str) -> bool:
    try:
        _number(cell)
    except ValueError:
        return False
    return True


def _cell_faults(lines: list[str], path: Path) -> list[str]:
    """What is text in a table of numbers: another separator, a header, a column of ids, or single cells."""
    rows = [line.split(",") for line in lines]
    if len(rows[0]) == 1:
        for mark in (";", "\t"):
            if all(mark in line for line in lines):
                return [f"{path}: row 1: fields are separated by {mark!r}, but must be separated by ','"]
    bad = {(r, c) for r, row in enumerate(rows) for c, cell in enumerate(row) if not _is_number(cell)}
    found = []
    height, width = len(rows), len(rows[0])
    per_column = Counter(c for r, c in bad if r)
    columns = [c for c, count in sorted(per_column.items()) if count == height - 1 and height > 2]
    for c in columns[:_SHOWN]:
        found.append(f"{path}: column {c + 1}: holds text in every row, such as {_short(rows[1][c])}; delete it")
    bad = {(r, c) for r, c in bad if c not in columns}
    if height > 1 and sum(r == 0 for r, _ in bad) == width - len(columns) and width > len(columns):
        first = next(c for c in range(width) if c not in columns)
        found.append(f"{path}: row 1: holds text, such as {_short(rows[0][first])}; delete the header line")
        bad = {(r, c) for r, c in bad if r}
    cells = sorted(bad)
    for r, c in cells[:_SHOWN]:
        found.append(
            f"{path}: row {r + 1}, column {c + 1}: {_short(rows[r][c])} is not a number; leave a missing value empty"
        )
    more = len(cells) - _SHOWN + max(0, len(columns) - _SHOWN)
    return [*found, f"{path}: {more} more places hold text"] if more > 0 else found


def _short(text: str) -> str:
    return repr(text if len(text) <= 30 else text[:27] + "...")


def read_column(path: Path, faults: list[str]) -> FloatArray | None:
    """One number per line [rows]; None on a fault."""
    matrix = read_matrix(path, faults)
    if matrix is not None and matrix.shape[1] != 1:
        faults.append(f"{path}: must hold one number per line, but has {matrix.shape[1]} columns")
        return None
    return None if matrix is None else matrix[:, 0]


def read_names(path: Path, faults: list[str]) -> tuple[str, ...] | None:
    """One name per line; None on a fault."""
    lines = read_lines(path, faults)
    if lines is None:
        return None
    blank = [row for row, line in enumerate(lines, start=1) if not line.strip()]
    if blank:
        faults.append(f"{path}: row {blank[0]}: the name is blank")
        return None
    return tuple(line.strip().strip('"') for line in lines)


def read_classes(path: Path, faults: list[str]) -> tuple[str, ...] | None:
    """Class names of a file with the header `index,name` and the indices 0..C-1 in order; None on a fault."""
    lines = read_lines(path, faults)
    if lines is None:
        return None
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines)]
    if rows[0] != ["index", "name"]:
        faults.append(f"{path}: row 1: must be the header `index,name`, but is {_short(lines[0])}")
        return None
    count = len(faults)
    for number, row in enumerate(rows[1:]):
        if len(row) != 2 or row[0] != str(number) or not row[1]:
            faults.append(f"{path}: row {number + 2}: must be `{number},<name>`, but is {_short(lines[number + 1])}")
    names = tuple(row[-1] for row in rows[1:] if row)
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    faults += [f"{path}: the name {name!r} occurs more than once" for name in repeated]
    return names if len(faults) == count else None
