"""Whether numbers fit into the type that a model computes in: float32 holds at most 3.4e38, float64 1.8e308."""

from collections.abc import Sequence

import numpy as np

from m3col.data.columns import FloatArray

_SHOWN = 5  # values that are named one by one; the rest is counted


def limit(precision: str) -> float:
    """The largest number of a `train.precision`; bfloat16 means autocast, whose weights and inputs are float32."""
    return float(np.finfo(np.float64 if precision == "float64" else np.float32).max)


def faults(
    x: FloatArray,
    where: str,
    columns: Sequence[str] | None,
    *,
    precision: str = "float32",
    ids: Sequence[str] | None = None,
) -> list[str]:
    """Values of a table [N, D] that are infinite or too large for `precision`; NaN is none of them.

    Args:
        x: the table, as float64.
        where: file or modality, with which each line begins.
        columns: names of the columns; None for a file, whose columns are numbers only.
        precision: what the model computes in.
        ids: names of the rows, which may stand in another order than the caller's own.
    """
    with np.errstate(invalid="ignore"):
        rows, at = np.nonzero(np.abs(x) > limit(precision))
    found = []
    for row, column in list(zip(rows.tolist(), at.tolist(), strict=True))[:_SHOWN]:
        named = "" if columns is None else f" ({columns[column]})"
        row_name = f"row {row + 1}" if ids is None else f"row {row + 1} (id {ids[row]!r})"
        found.append(f"{where}: {row_name}, column {column + 1}{named}: {_fault(float(x[row, column]), precision)}")
    if len(rows) > _SHOWN:
        found.append(f"{where}: {len(rows) - _SHOWN} more values are infinite or too large")
    return found


def _fault(value: float, precision: str) -> str:
    if np.isinf(value):
        return f"{value:g} is infinite; leave it empty (or NaN) if it is missing, else write a number"
    other = "scale the column" if precision == "float64" else "scale the column, or train with train.precision=float64"
    return f"{value:g} does not fit into {_name(precision)} (at most {limit(precision):.3g}); {other}"


def _name(precision: str) -> str:
    return precision if precision == "float64" else "float32"
