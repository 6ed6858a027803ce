"""Validates what a user passes for one modality: a numeric table, images or texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from m3col.data import media_values, modality_kinds, numeric_tables
from m3col.data.checks import number_limits as ranges
from m3col.data.columns import Kind, MediaColumn
from m3col.data.images import cache
from m3col.errors import InputError, nearest

_SHOWN = 5  # columns or rows listed in a message; the others are only counted


def numbers(
    values: Any, columns: Sequence[str], *, where: str, may_miss: bool, precision: str = "float32"
) -> np.ndarray:
    """Converts a numeric table to float64 [N, D_m] and validates it.

    Args:
        values: any value that `m3col.data.numeric_tables.read` accepts; columns of a DataFrame are selected by name.
        columns: names of the D_m training columns.
        where: file or modality; each fault begins with it.
        may_miss: whether NaN is allowed, because the model imputes it.
        precision: the precision of the model; values that do not fit into it are faults.

    Raises:
        InputError: with row, column and value of each fault.
    """
    values, _ = numeric_tables.plain(values, where)
    if isinstance(values, pd.DataFrame):
        values = _chosen(values, columns, where)
    # Same memory layout for arrays and DataFrames; otherwise sums over columns differ in the last bits.
    array = np.ascontiguousarray(numeric_tables.read(values, where, text_numbers=True, width=len(columns)).values)
    faults = ranges.faults(array, where, columns, precision=precision)
    if not may_miss and np.isnan(array).any():
        row, column = np.argwhere(np.isnan(array))[0]
        cell = f"{where}: row {row + 1}, column {columns[column]!r}"
        faults.append(f"{cell} is missing, but the model was trained without `impute`; fill the gaps")
    if faults:
        raise InputError(faults)
    return array


def _chosen(frame: pd.DataFrame, columns: Sequence[str], where: str) -> pd.DataFrame:
    """Selects the columns by name, in this order. Raises InputError if a column is missing or occurs twice."""
    # Names that are not text (0, 1, 2) were converted to text in training, too.
    names = [str(column) for column in frame.columns]
    missing = [column for column in columns if column not in set(names)]
    if missing == list(columns) and all(name.endswith(f"_{at}") for at, name in enumerate(columns)):
        raise InputError([f"{where}: the model was trained on a table without names of columns; hand over .to_numpy()"])
    if missing:
        others = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        suggestion = nearest(missing[0], names)
        suggestion = suggestion if "did you mean" in suggestion else ""
        raise InputError([f"{where}: columns {', '.join(missing[:_SHOWN])}{others} are missing{suggestion}"])
    required = set(columns)
    repeated = sorted({name for name in required if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        listed = ", ".join(map(repr, repeated[:_SHOWN]))
        raise InputError([f"{where}: columns {listed} stand more than once; keep one of each"])
    return frame.set_axis(names, axis=1)[list(columns)]


def images(values: Any, columns: Sequence[str], *, where: str, may_miss: bool, precision: str) -> MediaColumn:
    """Validates N images, see `records`. The other arguments are unused."""
    return records("image", values, where=where)


def texts(values: Any, columns: Sequence[str], *, where: str, may_miss: bool, precision: str) -> MediaColumn:
    """Validates N texts, see `records`. The other arguments are unused."""
    return records("text", values, where=where)


def records(kind: Kind, values: Any, *, where: str) -> MediaColumn:
    """Validates N images (paths, contents of files as bytes, images of Pillow, or arrays [H, W, 3]) or N texts.

    A DataFrame must have one column. A `MediaColumn` is not validated again.

    Raises:
        InputError: each line begins with `where`, and names a row that cannot be used.
    """
    if isinstance(values, MediaColumn):
        return cache.keep(values)
    given_as = modality_kinds.of(kind).given_as
    if isinstance(values, str | bytes):
        raise InputError([f"{where}: must be a list of {given_as}, but is a single one; put it in a list"])
    if isinstance(values, pd.DataFrame):
        if values.shape[1] != 1:
            names = ", ".join(map(str, values.columns[:_SHOWN]))
            raise InputError([f"{where}: must be one column of {given_as}, but has {values.shape[1]} ({names})"])
        values = values.iloc[:, 0]
    try:
        items = [str(item) if hasattr(item, "__fspath__") else item for item in values]
    except TypeError:
        raise InputError([f"{where}: must be a list of {given_as}, but is a {type(values).__name__}"]) from None
    faults: dict[int, str] = {}
    for row, item in enumerate(items if kind == "image" else ()):
        try:
            items[row] = media_values.as_file(item)
        except (ValueError, OSError) as error:
            items[row], faults[row] = None, str(error)
    fault_of_row = {**cache.faults(MediaColumn.of(kind, items)), **faults}
    lines = [
        f"{where}: row {row + 1}: {f'{items[row]}: ' if kind == 'image' and isinstance(items[row], str) else ''}{text}"
        for row, text in sorted(fault_of_row.items())[:_SHOWN]
    ]
    if len(fault_of_row) > _SHOWN:
        lines.append(f"{where}: {len(fault_of_row) - _SHOWN} more rows that cannot be used")
    if lines:
        raise InputError(lines)
    return cache.keep(MediaColumn.of(kind, items))
