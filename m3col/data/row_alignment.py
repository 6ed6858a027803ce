"""Aligns the rows of modalities, labels, ids and groups by their pandas index."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from m3col.data.columns import IntArray

_SHOWN = 5  # ids listed in a message; the others are only counted


@dataclass(frozen=True)
class Alignment:
    """How to bring all parts (modalities, labels, ids, groups) into one row order.

    Attributes:
        index: the common index; None if no part has an explicit index.
        orders: by part, positions [N] that reorder its rows; parts already in the common order are absent.
        warnings: one line for each part whose alignment may not be what the user meant.
    """

    index: pd.Index | None = None
    orders: Mapping[str, IntArray] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def align(indexes: Mapping[str, pd.Index | None], where: str, faults: list[str], *, unique: bool) -> Alignment:
    """Aligns all parts to the row order of the first part with an explicit index.

    An explicit index is any index other than the default 0, 1, 2, ... of pandas. If no part has an explicit index,
    rows are aligned by position. If one has, parts with the default index are aligned by its numbers.

    Args:
        indexes: the index of each part (a modality, labels, groups, ids); None for parts without an index, such as
            arrays, whose rows are not reordered.
        where: the split, for messages; "" for none.
        faults: gets a line for each part whose ids differ from those of the first one, and for repeated ids.
        unique: whether repeated ids are a fault even if all parts have them in the same order.

    Returns:
        The alignment; an empty one if there are faults.
    """
    indexed = {name: index for name, index in indexes.items() if index is not None}
    explicit = [name for name, index in indexed.items() if not is_default(index)]
    if not explicit:
        return Alignment()
    first = explicit[0]
    index, prefix = indexed[first], f"{where}: " if where else ""
    differing = [name for name, other in indexed.items() if not other.equals(index)]
    new_faults = _id_faults(index, f"{prefix}{first}") if unique or differing else []
    orders: dict[str, IntArray] = {}
    for name in differing:
        other = indexed[name]
        repeated = [] if is_default(other) else _id_faults(other, f"{prefix}{name}")
        if repeated or new_faults:
            new_faults += repeated
            continue
        positions = other.get_indexer(index)
        if len(other) != len(index) or (positions < 0).any():
            new_faults.append(f"{prefix}{_set_fault(name, other, first, index)}")
        else:
            orders[name] = np.asarray(positions, dtype=np.int64)
    faults += new_faults
    warnings = [
        f"{prefix}{name} has pandas' own index 0, 1, 2, ..., and {first} the same numbers in another order: rows were "
        f"matched by these numbers; if the rows of {name} are in the order of {first}, give it the index of {first}"
        for name in orders
        if is_default(indexed[name])
    ]
    return Alignment() if new_faults else Alignment(index, orders, tuple(warnings))


def is_default(index: pd.Index) -> bool:
    """Whether an index is the default one of pandas: 0, 1, 2, ..."""
    return isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1


def _id_faults(index: pd.Index, where: str) -> list[str]:
    faults = []
    missing = np.zeros(len(index), bool) if isinstance(index, pd.MultiIndex) else np.asarray(index.isna())
    if missing.any():
        row = int(missing.argmax())
        faults.append(f"{where}: row {row + 1} has no id: its index is missing")
    repeated = index[index.duplicated()].unique()
    if len(repeated):
        counts = index.value_counts()
        listed = ", ".join(f"{label!r} ({counts[label]} times)" for label in repeated[:_SHOWN])
        more = f" and {len(repeated) - _SHOWN} more" if len(repeated) > _SHOWN else ""
        faults.append(
            f"{where}: every id must be unique, but its index holds {listed}{more}; give each row an id of its own, or "
            "call .reset_index(drop=True) on all parts if their rows are in the same order"
        )
    return faults


def _set_fault(name: str, other: pd.Index, first: str, index: pd.Index) -> str:
    """The fault of two parts whose rows have different ids."""
    differences = [_only(first, index.difference(other, sort=False)), _only(name, other.difference(index, sort=False))]
    listed = "; ".join(difference for difference in differences if difference)
    return f"{first} and {name} have rows of different ids: {listed}{_advice(name, other, first, index)}"


def _only(name: str, labels: pd.Index) -> str:
    if not len(labels):
        return ""
    shown = ", ".join(repr(label) for label in labels.tolist()[:_SHOWN])
    return f"only in {name}: {shown}" + (f", ... ({len(labels)} in all)" if len(labels) > _SHOWN else "")


def _advice(name: str, other: pd.Index, first: str, index: pd.Index) -> str:
    if is_default(other) and len(other) == len(index):
        return (
            f"; {name} has pandas' own index 0, 1, 2, ...: give it the index of {first}, or hand over an array "
            "(.to_numpy()) if its rows are in the same order"
        )
    if set(map(str, index)) == set(map(str, other)):
        return "; their ids are texts on one side and numbers on the other: make them alike with .index.astype(str)"
    if not len(index.intersection(other)):
        return "; the two have no id in common: are they written alike (case, blanks, dots, types)?"
    return "; keep the rows that both have"
