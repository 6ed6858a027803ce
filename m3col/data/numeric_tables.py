"""Converts numeric tables in memory (DataFrames, arrays, tensors, lists) to float64 [N, D].

Faults name the row and the column.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from m3col.data import row_alignment
from m3col.data.columns import FloatArray
from m3col.data.formats import table_faults
from m3col.data.formats.missing_marks import is_missing
from m3col.errors import InputError, reason_of

_SHOWN = 5  # columns listed in a message; the others are only counted

_HELP = "keep the columns with numbers only, or turn them into numbers"


@dataclass(frozen=True, eq=False)
class Table:
    """A numeric table.

    Attributes:
        values: [N, D]; NaN means missing.
        columns: names of the D columns; None if the source has no column names.
        index: pandas index of the rows; None if the source has none.
    """

    values: FloatArray
    columns: tuple[str, ...] | None = None
    index: pd.Index | None = None


def plain(values: Any, where: str) -> tuple[Any, pd.Index | None]:
    """Converts values to pandas or NumPy objects.

    Converted are tensors (also with gradients, on a device, or sparse), sparse matrices, and tables with a method
    `to_pandas`. Other values are returned unchanged.

    Args:
        values: the values.
        where: beginning of each fault.

    Returns:
        The converted values, and their pandas index. It is None if they have none, or if the conversion created a
        default index 0, 1, 2, ...

    Raises:
        InputError: for a tensor without data, or if a package for the conversion is missing.
    """
    try:
        converted = _plain(values)
    except (RuntimeError, NotImplementedError, ImportError) as error:
        reason = reason_of(error)
        raise InputError([f"{where}: a {type(values).__name__} cannot be read ({reason}); give an array"]) from None
    is_pandas = isinstance(converted, pd.DataFrame | pd.Series)
    index = converted.index if is_pandas else None
    return converted, None if index is not None and converted is not values and row_alignment.is_default(
        index
    ) else index


def _plain(values: Any) -> Any:
    if hasattr(values, "detach") and hasattr(values, "cpu"):  # a torch tensor, without importing torch
        return _from_tensor(values)
    if isinstance(values, np.ma.MaskedArray):
        return np.ma.filled(values.astype(np.float64), np.nan) if values.dtype.kind in "biuf" else values
    if not isinstance(values, pd.DataFrame | pd.Series) and callable(getattr(values, "to_pandas", None)):
        return values.to_pandas()
    if callable(getattr(values, "toarray", None)):  # sparse matrices of SciPy
        return values.toarray()
    return values


def _from_tensor(tensor: Any) -> Any:
    tensor = tensor.detach()
    if tensor.is_complex():
        return tensor.resolve_conj().cpu().numpy()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if str(tensor.layout) != "torch.strided":
        tensor = tensor.to_dense()
    if str(tensor.dtype) in ("torch.bfloat16", "torch.float16"):
        tensor = tensor.float()
    return tensor.cpu().resolve_neg().numpy()


def read(values: Any, where: str, *, text_numbers: bool = False, width: int | None = None) -> Table:
    """Reads a numeric table.

    Args:
        values: DataFrame, array, tensor or list of N rows with D numbers each.
        where: name of the table; each fault begins with it.
        text_numbers: whether numbers may be written as text, like the fields of a file.
        width: the required D; None: any.

    Returns:
        The table as float64.

    Raises:
        InputError: the values are not such a table; with row, column and value of each fault.
    """
    expected = "[samples, features]" if width is None else f"[N, {width}]"
    if isinstance(values, str | bytes) or hasattr(values, "__fspath__"):
        raise InputError([f"{where}: must be a table of numbers, but is {values!r:.60}; read the file first"])
    values, index = plain(values, where)
    if isinstance(values, pd.DataFrame):
        if not values.shape[1] or values.shape[1] != (width or values.shape[1]):
            raise InputError([f"{where}: must have shape {expected}, but has {list(values.shape)}"])
        return _from_frame(values, index, where, text_numbers)
    hint = "; one sample is a table of one row: .to_frame().T" if isinstance(values, pd.Series) else ""
    try:
        array = np.array(values)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of different lengths
        raise InputError([f"{where}: must be a table of numbers ({error})"]) from None
    if array.ndim != 2 or not array.shape[1] or array.shape[1] != (width or array.shape[1]):
        raise InputError([f"{where}: must have shape {expected}, but has {list(array.shape)}{hint}"])
    if array.dtype.kind in "biuf":
        return Table(np.array(array, dtype=np.float64), None, index)
    return Table(_from_cells(pd.DataFrame(array), where, named=False, text_numbers=text_numbers), None, index)


def _from_frame(frame: pd.DataFrame, index: pd.Index | None, where: str, text_numbers: bool) -> Table:
    columns = tuple(str(column) for column in frame.columns)
    if all(_is_plain(dtype) for dtype in frame.dtypes):
        return Table(frame.to_numpy(np.float64, na_value=np.nan), columns, index)
    return Table(_from_cells(frame, where, named=True, text_numbers=text_numbers), columns, index)


def _is_plain(dtype: Any) -> bool:
    """Whether a dtype is real numeric: of NumPy, or a nullable or sparse one of pandas."""
    return pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype)


def _from_cells(frame: pd.DataFrame, where: str, *, named: bool, text_numbers: bool) -> FloatArray:
    """Converts a frame with non-numeric columns, column by column. Raises InputError with the first fault of each.

    `named`: whether faults identify a column by its name instead of its number.
    """
    faults, parts = [], []
    for index in range(frame.shape[1]):
        column = frame.iloc[:, index]
        place = f"column {str(frame.columns[index])!r}" if named else f"column {index + 1}"
        if _is_plain(column.dtype):
            parts.append(column.to_numpy(np.float64, na_value=np.nan))
        elif column.dtype == object or isinstance(column.dtype, pd.StringDtype) or column.dtype.kind in "US":
            numbers, fault = _from_objects(column.tolist(), text_numbers)
            parts.append(numbers)
            if fault is not None:
                faults.append(f"{where}: row {fault[0] + 1}, {place} must be a number, but is {fault[1]}")
        else:
            shown = column.iloc[0] if len(column) else ""
            faults.append(f"{where}: {place} holds {column.dtype}, such as {str(shown)!r:.40}, not numbers; {_HELP}")
    if faults:
        hidden = [f"{where}: {len(faults) - _SHOWN} more columns do not hold numbers"] if len(faults) > _SHOWN else []
        raise InputError([*faults[:_SHOWN], *hidden])
    return np.column_stack(parts)


def _from_objects(cells: list[Any], text_numbers: bool) -> tuple[NDArray[np.float64], tuple[int, str] | None]:
    """Converts a column of objects to numbers. Also returns row and description of the first fault, or None."""
    numbers = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        if is_missing(cell):
            continue
        is_text = isinstance(cell, str)
        try:
            if is_text and not text_numbers:
                raise ValueError(cell)
            numbers[row] = table_faults.to_number(cell) if is_text else float(cell)
        except (TypeError, ValueError, OverflowError):
            return numbers, (row, f"{cell!r:.40}{_reason(cell)}")
    return numbers, None


def _reason(cell: Any) -> str:
    if not isinstance(cell, str):
        return ""
    return (
        "; turn text into numbers with pandas.to_numeric"
        if table_faults.is_number(cell)
        else table_faults.why(cell.strip())
    )
