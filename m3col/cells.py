"""What a caller hands over for one modality, judged: tables of numbers, pictures, texts."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from m3col.data import cache
from m3col.data.columns import WORDS, Records
from m3col.faults import BadInput, nearest

_SHOWN = 5


def numbers(values: Any, columns: Sequence[str], *, where: str, may_miss: bool) -> np.ndarray:
    """[N, D_m] float64 from an array, or from a DataFrame with these columns. `may_miss`: NaN is filled later.

    Raises BadInput that begins with `where`.
    """
    if isinstance(values, pd.DataFrame):
        # Names that are no text (0, 1, 2) were turned into text in training as well.
        values = values.set_axis([str(column) for column in values.columns], axis=1)
        missing = [column for column in columns if column not in values.columns]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            close = nearest(missing[0], values.columns)
            close = close if "did you mean" in close else ""
            raise BadInput([f"{where}: columns {', '.join(missing[:5])}{more} are missing{close}"])
        values = values[list(columns)]
    try:
        # In one memory layout: sums over a DataFrame's columns would differ in the last bits.
        array = np.ascontiguousarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise BadInput([f"{where}: {_first_text(values)}"]) from None
    if array.ndim != 2 or array.shape[1] != len(columns):
        raise BadInput([f"{where}: must have shape [N, {len(columns)}], but got {list(array.shape)}"])
    if not may_miss and not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        place = f"{where}: row {row + 1}, column {columns[column]!r}"
        raise BadInput([f"{place} is {array[row, column]}, but the model was trained without `impute`; fill the gaps"])
    return array


def _first_text(values: Any) -> str:
    """Where a table holds something other than a number."""
    for column, cells in pd.DataFrame(values).items():
        wrong = pd.to_numeric(cells, errors="coerce").isna() & cells.notna()
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            return f"row {row + 1}, column {column!r} must be a number, but is {cells.iloc[row]!r}"
    return "must hold numbers only"


def records(kind: Literal["image", "text"], values: Any, *, where: str) -> Records:
    """N pictures (paths, or contents of files as bytes) or N texts; a DataFrame gives its first column. Records are
    taken as they are.

    Raises BadInput that begins with `where` and names every row that cannot be used.
    """
    if isinstance(values, Records):
        return cache.keep(values)
    if isinstance(values, str | bytes):
        raise BadInput([f"{where}: must be a list of {WORDS[kind]}, but is a single one; put it in a list"])
    if isinstance(values, pd.DataFrame):
        values = values.iloc[:, 0]
    try:
        items = [str(item) if hasattr(item, "__fspath__") else item for item in values]
    except TypeError:
        raise BadInput([f"{where}: must be a list of {WORDS[kind]}, but is a {type(values).__name__}"]) from None
    found = cache.faults(Records.of(kind, items))
    lines = [
        f"{where}: row {row + 1}: {f'{items[row]}: ' if kind == 'image' and isinstance(items[row], str) else ''}{text}"
        for row, text in sorted(found.items())[:_SHOWN]
    ]
    if len(found) > _SHOWN:
        lines.append(f"{where}: {len(found) - _SHOWN} more rows that cannot be used")
    if lines:
        raise BadInput(lines)
    return cache.keep(Records.of(kind, items))
