"""Sequences from Python: lists of arrays, tensors or DataFrames [T_i, F], and arrays [N, T, F].

Every fault is reported at once, with sequence, step and feature.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from m3col.data import numeric_tables
from m3col.data.sequences.column import SequenceColumn
from m3col.errors import InputError, nearest

_SHOWN = 5  # faults of one rule listed individually; the others are only counted

_LIMIT = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class SequenceValues:
    """Sequences without faults.

    Attributes:
        column: the sequences.
        features: names of the F features; None if the source has none.
        index: pandas index of the samples; None if the source has none.
    """

    column: SequenceColumn
    features: tuple[str, ...] | None = None
    index: pd.Index | None = None


class FaultsByRule:
    """Collects faults by the rule that is broken; of each rule the first few are listed."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {}

    def add(self, rule: str, line: str) -> None:
        """Adds a fault. `rule`: what is counted where there are many."""
        self._lines.setdefault(rule, []).append(line)

    def lines(self, where: str) -> list[str]:
        """The listed faults, and for each rule the number of the others."""
        listed = []
        for rule, lines in self._lines.items():
            listed += [f"{where}: {line}" for line in lines[:_SHOWN]]
            if len(lines) > _SHOWN:
                listed.append(f"{where}: {len(lines) - _SHOWN} more: {rule}")
        return listed


def are_sequences(values: Any) -> bool:
    """Whether values are sequences and not a numeric table: an array [N, T, F], or N items of two dimensions each."""
    if isinstance(values, SequenceColumn) or getattr(values, "ndim", 0) == 3:
        return True
    if isinstance(values, pd.Series) or (isinstance(values, np.ndarray) and values.dtype == object):
        values = values.tolist()
    if not isinstance(values, list | tuple):
        return False
    return any(_dimensions(item) == 2 for item in values[:_SHOWN])


def _dimensions(item: Any) -> int:
    if isinstance(item, list | tuple):
        return 1 + (_dimensions(item[0]) if item else 0)
    dimensions = getattr(item, "ndim", 0)
    return dimensions if isinstance(dimensions, int) else 0


def read(values: Any, where: str, *, features: Sequence[str] | None = None) -> SequenceValues:
    """Reads the sequences of one modality.

    Args:
        values: N arrays, tensors, DataFrames or lists [T_i, F]; an array [N, T, F]; a Series of such items, whose index
            is that of the samples; or a `SequenceColumn`. NaN means missing.
        where: name of the modality; each fault begins with it.
        features: names of the F features that are required; None: any. DataFrames are reordered by them.

    Returns:
        The sequences as float32.

    Raises:
        InputError: with every sequence that has no step, another number of features, an infinite value, or no value.
    """
    if isinstance(values, SequenceColumn):
        _require_width(values.width, features, where)
        return SequenceValues(values)
    if isinstance(values, str | bytes | Mapping) or hasattr(values, "__fspath__"):
        raise InputError([f"{where}: must be a list of arrays [steps, features], but is {values!r:.60}"])
    values, index = numeric_tables.plain(values, where)
    if isinstance(values, np.ndarray) and values.ndim == 3 and values.dtype.kind in "biuf":
        return SequenceValues(_from_cube(values, where, features), None, index)
    try:
        items = values.tolist() if isinstance(values, pd.Series) else list(values)
    except TypeError:
        text = f"must be a list of arrays [steps, features], but is a {type(values).__name__}"
        raise InputError([f"{where}: {text}"]) from None
    if isinstance(values, pd.DataFrame) or (items and all(_dimensions(item) < 2 for item in items)):
        text = "must be a list of arrays [steps, features], one for each sample; one feature is an array [steps, 1]"
        raise InputError([f"{where}: {text}"])
    return _from_items(items, where, features, index)


def _require_width(width: int, features: Sequence[str] | None, where: str) -> None:
    if features is not None and width != len(features):
        raise InputError([f"{where}: must have {len(features)} features at each step, but has {width}"])


def _from_cube(values: NDArray[Any], where: str, features: Sequence[str] | None) -> SequenceColumn:
    count, length, width = values.shape
    _require_width(width, features, where)
    if not width or (count and not length):
        raise InputError([f"{where}: must have shape [samples, steps, features], but has {list(values.shape)}"])
    table = values.reshape(count * length, width).astype(np.float64)
    lengths, faults = np.full(count, length, dtype=np.int64), FaultsByRule()
    add_value_faults(faults, table, lengths, [f"sequence {row + 1}" for row in range(count)], features)
    return _column(table, lengths, faults.lines(where))


def _from_items(
    items: Sequence[Any], where: str, features: Sequence[str] | None, index: pd.Index | None
) -> SequenceValues:
    faults = FaultsByRule()
    names = None if features is None else tuple(features)
    arrays: list[NDArray[np.float64]] = []
    places: list[str] = []
    width, first = (0 if names is None else len(names)), ""
    for row, item in enumerate(items):
        place = f"sequence {row + 1}"
        if isinstance(item, pd.DataFrame):
            names = names or tuple(map(str, item.columns))
            item = _ordered(item, names, place, faults, exact=features is None)
        array = None if item is None else _array(item, place, faults)
        if array is None:
            continue
        if not width:
            width, first = array.shape[1], place
        if array.shape[1] != width:
            expected = f"{first} has {width}" if first else f"the model has {width}"
            faults.add("another number of features", f"{place}: has {array.shape[1]} features, but {expected}")
            continue
        arrays.append(array)
        places.append(place)
    lengths = np.array([len(array) for array in arrays], dtype=np.int64)
    table = np.concatenate(arrays) if arrays else np.zeros((0, width))
    add_value_faults(faults, table, lengths, places, names)
    return SequenceValues(_column(table, lengths, faults.lines(where)), names, index)


def _ordered(
    frame: pd.DataFrame, names: Sequence[str], place: str, faults: FaultsByRule, *, exact: bool
) -> pd.DataFrame | None:
    """The columns `names` of a DataFrame in this order; None and a fault if one is missing. `exact`: no others."""
    own = [str(column) for column in frame.columns]
    missing = [name for name in names if name not in own]
    if missing:
        faults.add("a feature is missing", f"{place}: the feature {missing[0]!r} is missing{nearest(missing[0], own)}")
        return None
    others = [name for name in own if name not in names]
    if len(set(own)) < len(own) or (exact and others):
        text = f"has the feature {others[0]!r}, which sequence 1 lacks" if others else "has a feature twice"
        faults.add("other features", f"{place}: {text}")
        return None
    return frame.set_axis(own, axis=1)[list(names)]


def _array(item: Any, place: str, faults: FaultsByRule) -> NDArray[np.float64] | None:
    """One sequence [T, F] in float64; None and a fault if it is none."""
    if hasattr(item, "__len__") and not len(item):
        faults.add("no steps", f"{place}: has no steps; leave the sample out")
        return None
    try:
        return numeric_tables.read(item, place).values
    except InputError as error:
        for line in error.faults:
            faults.add("not a sequence of numbers", line.replace(": row ", ": step ", 1))
        return None


def add_value_faults(
    faults: FaultsByRule,
    table: NDArray[np.float64],
    lengths: NDArray[np.int64],
    places: Sequence[str],
    features: Sequence[str] | None,
) -> None:
    """Adds a fault for each value that is infinite or does not fit into float32, and each sequence without a value.

    Args:
        faults: gets the faults.
        table: [S, F] steps of N sequences, one after the other.
        lengths: [N] their numbers of steps.
        places: [N] how messages name them.
        features: names of the features; None: they have numbers only.
    """
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    with np.errstate(invalid="ignore"):
        rows, columns = np.nonzero(np.abs(table) > _LIMIT)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        sample = int(np.searchsorted(offsets, row, side="right")) - 1
        named = "" if features is None else f" ({features[column]})"
        value = float(table[row, column])
        reason = "is infinite; leave it empty (or NaN) if it is missing, else write a number"
        if np.isfinite(value):
            reason = f"does not fit into float32 (at most {_LIMIT:.3g}); scale the feature"
        place = f"{places[sample]}: step {row - int(offsets[sample]) + 1}, feature {column + 1}{named}"
        faults.add("values that are infinite or too large", f"{place}: {value:g} {reason}")
    if not len(table):
        return
    empty = np.logical_and.reduceat(np.isnan(table).all(axis=1), offsets[:-1])
    for sample in np.flatnonzero(empty).tolist():
        faults.add("no value", f"{places[sample]}: every value is missing; leave the sample out")


def _column(table: NDArray[np.float64], lengths: NDArray[np.int64], lines: list[str]) -> SequenceColumn:
    if lines:
        raise InputError(lines)
    return SequenceColumn.from_offsets(table.astype(np.float32), np.concatenate([[0], np.cumsum(lengths)]))


def user_sequences(
    values: Any, columns: Sequence[str], *, where: str, may_miss: bool, precision: str = "float32"
) -> SequenceColumn:
    """Validates what a user passes for a prediction, see `read`. Missing values are always imputed.

    Args:
        values: N sequences.
        columns: names of the F features of the training; DataFrames are matched by them.
        where: file or modality; each fault begins with it.
        may_miss: unused.
        precision: unused, sequences are stored in float32.

    Raises:
        InputError: with every fault.
    """
    return read(values, where, features=columns).column
