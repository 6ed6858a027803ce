"""Tables of numbers in memory (DataFrames, arrays, tensors, lists) as float64 [N, D], or refused by row and column."""

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

_SHOWN = 5  # columns that are named in a message; the rest is counted

_HELP = "keep the columns with numbers only, or turn them into numbers"


@dataclass(frozen=True, eq=False)
class Table:
    """`values` [N, D], NaN for a missing one; `columns`: names of the D columns and `index`: labels of the rows, None
    where what was given has none."""

    values: FloatArray
    columns: tuple[str, ...] | None = None
    index: pd.Index | None = None


def plain(values: Any, where: str) -> tuple[Any, pd.Index | None]:
    """The same values as pandas or NumPy hold them, and their pandas index, if they carry one.

    Taken are tensors (with gradients, on a device, sparse), sparse matrices, and tables of libraries that turn theirs
    into pandas': the index 0, 1, 2, ... that is made on the way is none. What cannot be turned is returned as it is.
    Raises InputError that begins with `where` for a tensor without data, and where a package is missing.
    """
    try:
        found = _plain(values)
    except (RuntimeError, NotImplementedError, ImportError) as error:
        reason = reason_of(error)
        raise InputError([f"{where}: a {type(values).__name__} cannot be read ({reason}); give an array"]) from None
    is_pandas = isinstance(found, pd.DataFrame | pd.Series)
    index = found.index if is_pandas else None
    return found, None if index is not None and found is not values and row_alignment.is_default(index) else index


def _plain(values: Any) -> Any:
    if hasattr(values, "detach") and hasattr(values, "cpu"):  # a torch tensor, without importing torch
        return _from_tensor(values)
    if isinstance(values, np.ma.MaskedArray):
        return np.ma.filled(values.astype(np.float64), np.nan) if values.dtype.kind in "biuf" else values
    if not isinstance(values, pd.DataFrame | pd.Series) and callable(getattr(values, "to_pandas", None)):
        return values.to_pandas()
    if callable(getattr(values, "toarray", None)):  # SciPy's sparse matrices
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
    """A table of numbers.

    Args:
        values: DataFrame, array, tensor or list of N rows with D numbers each.
        where: what the table is, with which each fault begins.
        text_numbers: numbers may be written as text, as the fields of a file are.
        width: the D that is wanted; None for any.

    Raises:
        InputError: where it is no such table, with row, column and value of what is no number.
    """
    wanted = "[samples, features]" if width is None else f"[N, {width}]"
    if isinstance(values, str | bytes) or hasattr(values, "__fspath__"):
        raise InputError([f"{where}: must be a table of numbers, but is {values!r:.60}; read the file first"])
    values, index = plain(values, where)
    if isinstance(values, pd.DataFrame):
        if not values.shape[1] or values.shape[1] != (width or values.shape[1]):
            raise InputError([f"{where}: must have shape {wanted}, but has {list(values.shape)}"])
        return _from_frame(values, index, where, text_numbers)
    hint = "; one sample is a table of one row: .to_frame().T" if isinstance(values, pd.Series) else ""
    try:
        array = np.array(values)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of different lengths
        raise InputError([f"{where}: must be a table of numbers ({error})"]) from None
    if array.ndim != 2 or not array.shape[1] or array.shape[1] != (width or array.shape[1]):
        raise InputError([f"{where}: must have shape {wanted}, but has {list(array.shape)}{hint}"])
    if array.dtype.kind in "biuf":
        return Table(np.array(array, dtype=np.float64), None, index)
    return Table(_from_cells(pd.DataFrame(array), where, named=False, text_numbers=text_numbers), None, index)


def _from_frame(frame: pd.DataFrame, index: pd.Index | None, where: str, text_numbers: bool) -> Table:
    columns = tuple(str(column) for column in frame.columns)
    if all(_is_plain(dtype) for dtype in frame.dtypes):
        return Table(frame.to_numpy(np.float64, na_value=np.nan), columns, index)
    return Table(_from_cells(frame, where, named=True, text_numbers=text_numbers), columns, index)


def _is_plain(dtype: Any) -> bool:
    """Numbers as NumPy holds them, or pandas' nullable and sparse ones."""
    return pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype)


def _from_cells(frame: pd.DataFrame, where: str, *, named: bool, text_numbers: bool) -> FloatArray:
    """Columns that may hold something else than numbers, one after the other. `named`: say names of columns, not their
    numbers. Raises InputError with the first fault of each column."""
    faults, parts = [], []
    for at in range(frame.shape[1]):
        column = frame.iloc[:, at]
        place = f"column {str(frame.columns[at])!r}" if named else f"column {at + 1}"
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
        more = [f"{where}: {len(faults) - _SHOWN} more columns do not hold numbers"] if len(faults) > _SHOWN else []
        raise InputError([*faults[:_SHOWN], *more])
    return np.column_stack(parts)


def _from_objects(cells: list[Any], text_numbers: bool) -> tuple[NDArray[np.float64], tuple[int, str] | None]:
    """The numbers of a column of any objects; position and description of the first cell that is none."""
    found = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        if is_missing(cell):
            continue
        is_text = isinstance(cell, str)
        try:
            if is_text and not text_numbers:
                raise ValueError(cell)
            found[row] = table_faults.to_number(cell) if is_text else float(cell)
        except (TypeError, ValueError, OverflowError):
            return found, (row, f"{cell!r:.40}{_reason(cell)}")
    return found, None


def _reason(cell: Any) -> str:
    if not isinstance(cell, str):
        return ""
    return (
        "; turn text into numbers with pandas.to_numeric"
        if table_faults.is_number(cell)
        else table_faults.why(cell.strip())
    )
