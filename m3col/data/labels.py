"""Reads labels, which are integers or names of classes, as integers 0..C-1.

Integers stay as they are. Names are numbered in the order of known class names, else sorted. A missing label is a fault
that names its row; it never becomes a class of its own.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from m3col.data.columns import FloatArray, IntArray
from m3col.data.dataset import MAX_LISTED
from m3col.data.formats.missing_marks import is_missing
from m3col.errors import nearest

_SHOWN = 5  # rows named one by one in a message; the rest is counted


@dataclass(frozen=True)
class Labels:
    """The labels of one split.

    Attributes:
        values: [N] integers.
        classes: names in the order of the integers, where the labels are names; else None.
        warnings: what was changed while reading, a line each.
    """

    values: IntArray
    classes: tuple[str, ...] | None = None
    warnings: tuple[str, ...] = ()


def parse(
    labels: Iterable[Any],
    where: str,
    faults: list[str],
    *,
    classes: Sequence[str] | None = None,
    training: Labels | None = None,
) -> Labels | None:
    """Reads the labels of one split.

    Args:
        labels: N integers (also as floats, such as 2.0, or text, such as "2") or N names.
        where: file or argument, for messages.
        faults: gets a line for each label that is missing or cannot be read.
        classes: names of the classes, by number; a label that is none of them is a fault.
        training: the training labels, where `labels` are those of another split; both must be integers, or both names.

    Returns:
        The labels; None where there are faults.
    """
    cells = [cell.item() if getattr(cell, "ndim", None) == 0 else cell for cell in labels]  # also of 0-d tensors
    if not cells:
        return Labels(np.zeros(0, dtype=np.int64))
    missing = [row for row, cell in enumerate(cells) if is_missing(cell)]
    faults += _lines(where, missing, lambda row: f"the label is missing ({_shown(cells[row])}); add it, or leave the "
                     "sample out", "the label is missing")  # fmt: skip
    gaps = set(missing)
    there = [row for row in range(len(cells)) if row not in gaps]
    numbers = {row: _number(cells[row]) for row in there}
    text = [row for row in there if numbers[row] is None]
    parsed: Labels | None = None
    if training is not None and training.classes is not None:
        parsed = _named(cells, there, where, faults, training.classes)
    elif len(text) == len(there) and training is not None and classes is None and there:
        faults.append(f"{where}: labels must be integers, as in training, but row 1 is {_shown(cells[there[0]])}")
    elif len(text) == len(there):
        parsed = _named(cells, there, where, faults, classes)
    elif text:
        faults += _mixed(cells, text, where)
    elif classes is not None and (fault := _number_names_fault(classes)):
        faults.append(f"{where}: {fault}")
    else:
        # Missing ones are faults already: 0 in their place keeps the row numbers of the others.
        values = to_labels(np.array([numbers.get(row, 0.0) for row in range(len(cells))], np.float64), where, faults)
        parsed = None if values is None else Labels(values)
    return None if missing else parsed


def _number_names_fault(classes: Sequence[str]) -> str:
    """A fault where class names are numbers other than their positions: a label could then mean a name or a position.
    "" where there is none."""
    numbers = [_number(name) for name in classes]
    if None in numbers or numbers == list(range(len(classes))):
        return ""
    return (
        f"labels are numbers, and so are the names of the classes ({', '.join(map(str, classes[:_SHOWN]))}), which are "
        "not their positions 0..C-1; rename the classes, so that a label can mean one of them only"
    )


def _number(cell: Any) -> float | None:
    """The number that a label is, also one written as text; None for a name."""
    if isinstance(cell, str):
        try:
            return None if "_" in cell else float(cell)
        except ValueError:
            return None
    return float(cell) if isinstance(cell, Real | np.number | np.bool_) else None


def _shown(cell: Any) -> str:
    return f"{cell!r:.40}" if isinstance(cell, str) else "NaN" if isinstance(cell, float) else f"{cell}"


def _lines(where: str, rows: Sequence[int], line: Any, kind: str) -> list[str]:
    """A line for each of the first rows, and one with the number of the others."""
    lines = [f"{where}: row {row + 1}: {line(row)}" for row in rows[:_SHOWN]]
    if len(rows) > _SHOWN:
        lines.append(f"{where}: {len(rows) - _SHOWN} more rows: {kind}")
    return lines


def _mixed(cells: Sequence[Any], text: list[int], where: str) -> list[str]:
    if text == [0] and len(cells) > 2:
        return [
            f"{where}: row 1: {_shown(cells[0])} is a header, as all other rows hold numbers; delete that line: labels "
            "have no header here"
        ]
    rule = "labels must be integers 0..C-1 in all rows, or names of classes in all rows"
    return _lines(where, text, lambda row: f"{rule}, but this one is {_shown(cells[row])} and others are numbers", rule)


def _named(
    cells: Sequence[Any], there: Sequence[int], where: str, faults: list[str], classes: Sequence[str] | None
) -> Labels | None:
    """Labels that are names, from the rows `there`, in which they are not missing."""
    strange = [row for row in there if not isinstance(cells[row], str | Real | np.number | np.bool_)]
    if strange:
        rule = "a label must be an integer or the name of a class"
        faults += _lines(where, strange, lambda row: f"{rule}, but is {cells[row]!r:.60}", rule)
        return None
    raw = {row: str(cells[row]) for row in there}
    names = {row: name.strip() for row, name in raw.items()}
    known = tuple(classes) if classes is not None else tuple(sorted(set(names.values())))
    places = {name: number for number, name in enumerate(known)}
    unknown = [row for row, name in names.items() if name not in places]
    if unknown:
        rule = "the label is not among the classes"
        faults += _lines(
            where, unknown, lambda row: f"label {names[row]!r} is none of the classes{nearest(names[row], known)}", rule
        )
        return None
    values = np.array([places[name] for name in names.values()], dtype=np.int64)
    return Labels(values, known, tuple(blank_warnings(raw.values(), where)))


def blank_warnings(raw: Iterable[str], where: str) -> list[str]:
    """Warnings about labels with blanks around them; the blanks are left out."""
    counts = Counter(name for name in raw if name != name.strip())
    return [
        f"{where}: label {name!r}, with blanks around it, stands in {count} rows and is read as {name.strip()!r}"
        for name, count in sorted(counts.items())[:_SHOWN]
    ]


def case_warnings(names: Sequence[str], counts: Sequence[int], where: str) -> list[str]:
    """Warnings about classes whose names differ only in case or in blanks. `counts`: samples of each class."""
    alike: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        alike.setdefault(" ".join(name.casefold().split()), []).append(number)
    groups = [group for group in alike.values() if len(group) > 1]
    listed = [" and ".join(f"{names[k]!r} ({counts[k]} samples)" for k in group) for group in groups]
    return [f"{where}: the classes {each} differ only in case or blanks; are they one class?" for each in listed]


def to_labels(values: FloatArray, where: str, faults: list[str]) -> IntArray | None:
    """Checks that numbers are labels.

    Args:
        values: [N] numbers; whole ones >= 0, such as 2.0, are labels.
        where: file or argument, for messages.
        faults: gets a line for each of the first rows that hold no label.

    Returns:
        The labels as integers; None where one of them is none.
    """
    good = np.isfinite(values) & (values >= 0) & (values < 2**31)
    good[good] = values[good] == np.floor(values[good])
    bad = np.flatnonzero(~good)
    for row in bad[:MAX_LISTED]:
        value = float(values[row])
        near = f"; nearest {max(0, round(value))}" if np.isfinite(value) else ""
        faults.append(f"{where}: row {row + 1}: a label must be one of the integers 0..C-1, but is {value:g}{near}")
    if len(bad) > MAX_LISTED:
        faults.append(f"{where}: {len(bad) - MAX_LISTED} more rows whose label is not one of the integers 0..C-1")
    return None if len(bad) else values.astype(np.int64)


def training_label_faults(labels: IntArray, where: str, classes: Sequence[str] | None = None) -> list[str]:
    """Faults of the training labels, of which every class 0..C-1 must occur, with C >= 2.

    Args:
        labels: [N] integers.
        where: file or argument, for messages.
        classes: the C names, where there are any.

    Returns:
        A line for each fault.
    """
    if not len(labels):
        return [f"{where}: there is no training sample"]
    present = np.unique(labels)
    named = None if classes is None else len(classes)
    if named is not None and present[-1] >= named:
        return [f"{where}: labels must be 0..{named - 1} ({named} class names), but {present[-1]} occurs"]
    if len(present) == 1:
        only = _class_name(int(present[0]), classes)
        return [f"{where}: at least two classes are needed, but every training label is {only}"]
    count = int(present[-1]) + 1 if named is None else named
    if len(present) == count:
        return []
    absent = sorted(set(range(min(count, 1000))) - set(present.tolist()))
    listed = ", ".join(_class_name(number, classes) for number in absent[:MAX_LISTED])
    hint = "; subtract 1 from every label" if present[0] == 1 and len(present) == present[-1] else ""
    return [
        f"{where}: labels must be the integers 0..C-1 and each must occur in training, but of 0..{count - 1} "
        f"{listed}{' and more' if len(absent) > MAX_LISTED else ''} never occurs{hint}"
    ]


def unseen_label_faults(
    labels: IntArray, training: IntArray, where: str, classes: Sequence[str] | None = None
) -> list[str]:
    """Faults of the labels of a validation or test split, each of which must occur in training.

    Args:
        labels: [N] integers.
        training: [N_train] labels of the training split.
        where: file or argument, for messages.
        classes: the names, where there are any.

    Returns:
        A line for each class that never occurs in training.
    """
    unseen = np.setdiff1d(labels, training)
    seen = ", ".join(_class_name(int(label), classes) for label in np.unique(training)[:20])
    return [
        f"{where}: row {np.flatnonzero(labels == label)[0] + 1}: label {_class_name(int(label), classes)} never occurs "
        f"in training (labels {seen})"
        for label in unseen[:MAX_LISTED]
    ]


def _class_name(number: int, classes: Sequence[str] | None) -> str:
    """A label as messages show it: its number, and its name where the name says more."""
    if classes is None or number >= len(classes) or classes[number] == str(number):
        return str(number)
    return f"{number} ({classes[number]})"
