"""Sequences in a long CSV: a header with `id`, `time` and the names of the features, then one row for each step."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m3col.data.formats import image_text_csv, table_faults
from m3col.data.formats.missing_marks import MARKS
from m3col.data.formats.pairs import FaultCollector
from m3col.data.sequences.values import FaultsByRule
from m3col.errors import nearest

ID, TIME = "id", "time"

Parts = tuple[tuple[str, ...], tuple[str, ...], NDArray[np.float64], NDArray[np.int64]]


def read(path: Path, faults: FaultsByRule, lines: list[str]) -> Parts | None:
    """Reads a long CSV. Rows of several ids may alternate; those of one id are sorted by time.

    Args:
        path: the file.
        faults: gets the faults of its rows.
        lines: gets the faults of the file: no text, no CSV, rows of another length.

    Returns:
        Ids in the order of their first rows, names of the features, all steps [S, F], and the number of steps of each
        id. None if the file cannot be read or lacks columns.
    """
    collector = FaultCollector()
    table = image_text_csv.read_table(path, collector)
    lines += collector.lines()
    if table is None:
        return None
    features = tuple(name for name in table.header if name not in (ID, TIME, ""))  # pandas' row numbers have no name
    for name in (ID, TIME):
        if name not in table.header:
            faults.add("header", f"column {name!r} is missing{nearest(name, table.header)}")
    if not features:
        faults.add("header", "there is no column of a feature beside 'id' and 'time'")
    if not features or not {ID, TIME} <= set(table.header) or not table.rows:
        return None
    steps: dict[str, list[list[float]]] = {}
    last: dict[str, tuple[float, int]] = {}
    for number, row in table.rows:
        name = row[ID].strip()
        if name in MARKS:
            faults.add("the id is missing", f"row {number}: the id is missing ({row[ID]!r})")
            continue
        moment = _moment(row[TIME], number, faults)
        if moment is not None:
            before, at = last.get(name, (-np.inf, 0))
            if moment <= before:
                text = f"time {row[TIME].strip()!r} of id {name!r} does not come after that of row {at}"
                faults.add("time does not increase", f"row {number}: {text}; sort the rows of each id by time")
            last[name] = (moment, number)
        steps.setdefault(name, []).append([_number(row[column], column, number, faults) for column in features])
    if not steps:
        return None
    lengths = np.array([len(rows) for rows in steps.values()], dtype=np.int64)
    values = np.array([step for rows in steps.values() for step in rows], dtype=np.float64)
    return tuple(steps), features, values, lengths


def _moment(cell: str, number: int, faults: FaultsByRule) -> float | None:
    """A time as a number, which alone orders the steps: a number, or a date and time in ISO 8601 (seconds)."""
    text = cell.strip()
    try:
        if text in MARKS:
            raise ValueError(text)
        return table_faults.to_number(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        rule = "must be a number or a date such as 2024-05-31T08:15:00"
        faults.add("time is not a number or date", f"row {number}: time {rule}, but is {text!r:.40}")
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(cell: str, column: str, number: int, faults: FaultsByRule) -> float:
    try:
        return table_faults.to_number(cell)
    except ValueError:
        text = f"row {number}, column {column!r}: {cell.strip()!r:.40} is not a number{table_faults.why(cell.strip())}"
        faults.add("not a number", text)
        return float("nan")
