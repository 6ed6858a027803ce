"""What a caller hands over for one modality, checked: tables of numbers, images, texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from m3col.data import modality_kinds, numeric_tables
from m3col.data.checks import number_limits as ranges
from m3col.data.columns import Kind, MediaColumn
from m3col.data.images import cache
from m3col.errors import InputError, nearest

_SHOWN = 5


def numbers(
    values: Any, columns: Sequence[str], *, where: str, may_miss: bool, precision: str = "float32"
) -> np.ndarray:
    """[N, D_m] float64 from an array, or from a DataFrame with these columns.

    Args:
        values: anything that `m3col.data.numeric_tables.read` takes; columns of a DataFrame are found by name.
        columns: names of the D_m columns of the training.
        where: file or modality, with which each fault begins.
        may_miss: NaN is filled later.
        precision: what the model computes in; larger values are faults.

    Raises:
        InputError: with row, column and value of what cannot be used.
    """
    values, _ = numeric_tables.plain(values, where)
    if isinstance(values, pd.DataFrame):
        values = _chosen(values, columns, where)
    # In one memory layout: sums over a DataFrame's columns would differ in the last bits.
    array = np.ascontiguousarray(numeric_tables.read(values, where, text_numbers=True, width=len(columns)).values)
    faults = ranges.faults(array, where, columns, precision=precision)
    if not may_miss and np.isnan(array).any():
        row, column = np.argwhere(np.isnan(array))[0]
        place = f"{where}: row {row + 1}, column {columns[column]!r}"
        faults.append(f"{place} is missing, but the model was trained without `impute`; fill the gaps")
    if faults:
        raise InputError(faults)
    return array


def _chosen(frame: pd.DataFrame, columns: Sequence[str], where: str) -> pd.DataFrame:
    """The columns of these names, in this order. Raises InputError where one is missing or there twice."""
    # Names that are no text (0, 1, 2) were turned into text in training as well.
    names = [str(column) for column in frame.columns]
    missing = [column for column in columns if column not in set(names)]
    if missing == list(columns) and all(name.endswith(f"_{at}") for at, name in enumerate(columns)):
        raise InputError([f"{where}: the model was trained on a table without names of columns; hand over .to_numpy()"])
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        close = nearest(missing[0], names)
        close = close if "did you mean" in close else ""
        raise InputError([f"{where}: columns {', '.join(missing[:_SHOWN])}{more} are missing{close}"])
    wanted = set(columns)
    repeated = sorted({name for name in wanted if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        listed = ", ".join(map(repr, repeated[:_SHOWN]))
        raise InputError([f"{where}: columns {listed} stand more than once; keep one of each"])
    return frame.set_axis(names, axis=1)[list(columns)]


def images(values: Any, columns: Sequence[str], *, where: str, may_miss: bool, precision: str) -> MediaColumn:
    """N new images, checked. Only `values` and `where` are read, see `records`."""
    return records("image", values, where=where)


def texts(values: Any, columns: Sequence[str], *, where: str, may_miss: bool, precision: str) -> MediaColumn:
    """N new texts, checked. Only `values` and `where` are read, see `records`."""
    return records("text", values, where=where)


def records(kind: Kind, values: Any, *, where: str) -> MediaColumn:
    """N images (paths, or contents of files as bytes) or N texts; a DataFrame must have one column. Records are taken
    as they are.

    Raises InputError that begins with `where` and names every row that cannot be used.
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
    found = cache.faults(MediaColumn.of(kind, items))
    lines = [
        f"{where}: row {row + 1}: {f'{items[row]}: ' if kind == 'image' and isinstance(items[row], str) else ''}{text}"
        for row, text in sorted(found.items())[:_SHOWN]
    ]
    if len(found) > _SHOWN:
        lines.append(f"{where}: {len(found) - _SHOWN} more rows that cannot be used")
    if lines:
        raise InputError(lines)
    return cache.keep(MediaColumn.of(kind, items))
