"""Checks that numbers fit into the precision of the model: at most 3.4e38 for float32, 1.8e308 for float64."""

from collections.abc import Sequence

import numpy as np

from m3col.data.columns import FloatArray

_SHOWN = 5  # values listed individually; the others are only counted


def limit(precision: str) -> float:
    """The largest number of a `train.precision`. With bfloat16 (autocast), weights and inputs are float32."""
    return float(np.finfo(np.float64 if precision == "float64" else np.float32).max)


def faults(
    x: FloatArray,
    where: str,
    columns: Sequence[str] | None,
    *,
    precision: str = "float32",
    ids: Sequence[str] | None = None,
) -> list[str]:
    """Faults of values of a table [N, D] that are infinite or too large for `precision`. NaN is allowed.

    Args:
        x: the table, as float64.
        where: file or modality; each line begins with it.
        columns: names of the columns; None: columns have numbers only.
        precision: the precision of the model.
        ids: ids of the rows, shown because the rows may be in another order than those of the caller.

    Returns:
        One line per fault, at most `_SHOWN` and a count of the others.
    """
    with np.errstate(invalid="ignore"):
        rows, columns_at = np.nonzero(np.abs(x) > limit(precision))
    lines = []
    for row, column in list(zip(rows.tolist(), columns_at.tolist(), strict=True))[:_SHOWN]:
        named = "" if columns is None else f" ({columns[column]})"
        row_name = f"row {row + 1}" if ids is None else f"row {row + 1} (id {ids[row]!r})"
        lines.append(f"{where}: {row_name}, column {column + 1}{named}: {_fault(float(x[row, column]), precision)}")
    if len(rows) > _SHOWN:
        lines.append(f"{where}: {len(rows) - _SHOWN} more values are infinite or too large")
    return lines


def _fault(value: float, precision: str) -> str:
    if np.isinf(value):
        return f"{value:g} is infinite; leave it empty (or NaN) if it is missing, else write a number"
    other = "scale the column" if precision == "float64" else "scale the column, or train with train.precision=float64"
    return f"{value:g} does not fit into {_name(precision)} (at most {limit(precision):.3g}); {other}"


def _name(precision: str) -> str:
    return precision if precision == "float64" else "float32"
