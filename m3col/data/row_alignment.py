"""Rows of one sample: whatever carries a pandas index is brought into one order by it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from m3col.data.columns import IntArray

_SHOWN = 5  # ids that are named in a message; the rest is counted


@dataclass(frozen=True)
class Alignment:
    """`index`: the common labels of the rows, None where nothing carries an index of its own; `orders`: positions [N]
    that bring a part into this order, for the parts that are in another one; `warnings`: where that may not be what was
    meant."""

    index: pd.Index | None = None
    orders: Mapping[str, IntArray] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def align(indexes: Mapping[str, pd.Index | None], where: str, faults: list[str], *, unique: bool) -> Alignment:
    """The order of the first part that has an index of its own, and how the others get into it.

    The index 0, 1, 2, ... that pandas gives to every table counts as an index of its own only beside others: where all
    parts have it, or none, rows are aligned by position.

    Args:
        indexes: per part (a modality, labels, groups, ids) its index; None for what has none, such as an array, whose
            rows are taken as they stand.
        where: the split, for messages; "" for none.
        faults: gets a line for each part whose ids differ from those of the first one, and for repeated ids.
        unique: repeated ids are a fault also where all parts have them in the same order.
    """
    carriers = {name: index for name, index in indexes.items() if index is not None}
    own = [name for name, index in carriers.items() if not is_default(index)]
    if not own:
        return Alignment()
    first = own[0]
    index, place = carriers[first], f"{where}: " if where else ""
    differing = [name for name, other in carriers.items() if not other.equals(index)]
    wrong = _id_faults(index, f"{place}{first}") if unique or differing else []
    orders: dict[str, IntArray] = {}
    for name in differing:
        other = carriers[name]
        repeated = [] if is_default(other) else _id_faults(other, f"{place}{name}")
        if repeated or wrong:
            wrong += repeated
            continue
        at = other.get_indexer(index)
        if len(other) != len(index) or (at < 0).any():
            wrong.append(f"{place}{_set_fault(name, other, first, index)}")
        else:
            orders[name] = np.asarray(at, dtype=np.int64)
    faults += wrong
    warnings = [
        f"{place}{name} has pandas' own index 0, 1, 2, ..., and {first} the same numbers in another order: rows were "
        f"matched by these numbers; if the rows of {name} are in the order of {first}, give it the index of {first}"
        for name in orders
        if is_default(carriers[name])
    ]
    return Alignment() if wrong else Alignment(index, orders, tuple(warnings))


def is_default(index: pd.Index) -> bool:
    """Whether an index is 0, 1, 2, ..., as pandas makes it where it is given none."""
    return isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1


def _id_faults(index: pd.Index, where: str) -> list[str]:
    found = []
    missing = np.zeros(len(index), bool) if isinstance(index, pd.MultiIndex) else np.asarray(index.isna())
    if missing.any():
        row = int(missing.argmax())
        found.append(f"{where}: row {row + 1} has no id: its index is missing")
    repeated = index[index.duplicated()].unique()
    if len(repeated):
        counts = index.value_counts()
        listed = ", ".join(f"{label!r} ({counts[label]} times)" for label in repeated[:_SHOWN])
        more = f" and {len(repeated) - _SHOWN} more" if len(repeated) > _SHOWN else ""
        found.append(
            f"{where}: every id must be unique, but its index holds {listed}{more}; give each row an id of its own, or "
            "call .reset_index(drop=True) on all parts if their rows are in the same order"
        )
    return found


def _set_fault(name: str, other: pd.Index, first: str, index: pd.Index) -> str:
    """Two parts whose rows have different ids."""
    sides = [_only(first, index.difference(other, sort=False)), _only(name, other.difference(index, sort=False))]
    listed = "; ".join(side for side in sides if side)
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
