"""Reads labels, which are integers or class names, as integers 0..C-1.

Integers are not changed. Names are numbered in the order of the class names if these are known, else in sorted order.
A missing label is a fault with its row, never a class.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3col.data.columns import FloatArray, IntArray
from m3col.data.dataset import MAX_LISTED
from m3col.data.formats.missing_marks import is_missing
from m3col.errors import nearest

_SHOWN = 5  # rows listed individually in a message; the others are only counted


@dataclass(frozen=True)
class Labels:
    """The labels of one split.

    Attributes:
        values: [N] integers; or a table [N, C], see m3col.data.label_tables.
        classes: class names in the order of the integers if the labels are names; else None. Of a table the names of
            its columns.
        warnings: changes made while reading, one line each.
    """

    values: NDArray[Any]
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
        classes: class names, by number; other names are faults.
        training: the training labels, if `labels` are those of another split. Either both are integers or both names.

    Returns:
        The labels; None if there are faults.
    """
    # Unpacks 0-d arrays and tensors.
    cells = [cell.item() if getattr(cell, "ndim", None) == 0 else cell for cell in labels]
    if not cells:
        return Labels(np.zeros(0, dtype=np.int64))
    missing = [row for row, cell in enumerate(cells) if is_missing(cell)]
    faults += _lines(where, missing, lambda row: f"the label is missing ({_shown(cells[row])}); add it, or leave the "
                     "sample out", "the label is missing")  # fmt: skip
    gaps = set(missing)
    present = [row for row in range(len(cells)) if row not in gaps]
    numbers = {row: _number(cells[row]) for row in present}
    text = [row for row in present if numbers[row] is None]
    parsed: Labels | None = None
    if training is not None and training.classes is not None:
        parsed = _named(cells, present, where, faults, training.classes)
    elif len(text) == len(present) and training is not None and classes is None and present:
        faults.append(f"{where}: labels must be integers, as in training, but row 1 is {_shown(cells[present[0]])}")
    elif len(text) == len(present):
        parsed = _named(cells, present, where, faults, classes)
    elif text:
        faults += _mixed(cells, text, where)
    elif classes is not None and (fault := _number_names_fault(classes)):
        faults.append(f"{where}: {fault}")
    else:
        # Missing labels are faults already. 0 in their place keeps the row numbers of the others.
        values = to_labels(np.array([numbers.get(row, 0.0) for row in range(len(cells))], np.float64), where, faults)
        parsed = None if values is None else Labels(values)
    return None if missing else parsed


def _number_names_fault(classes: Sequence[str]) -> str:
    """The fault of class names that are numbers but not 0..C-1: a label could be a name or a position. "" for none."""
    numbers = [_number(name) for name in classes]
    if None in numbers or numbers == list(range(len(classes))):
        return ""
    return (
        f"labels are numbers, and so are the names of the classes ({', '.join(map(str, classes[:_SHOWN]))}), which are "
        "not their positions 0..C-1; rename the classes, so that a label can mean one of them only"
    )


def _number(cell: Any) -> float | None:
    """The value of a label that is a number or a number written as text; None for a name."""
    if isinstance(cell, str):
        try:
            return None if "_" in cell else float(cell)
        except ValueError:
            return None
    return float(cell) if isinstance(cell, Real | np.number | np.bool_) else None


def _shown(cell: Any) -> str:
    return f"{cell!r:.40}" if isinstance(cell, str) else "NaN" if isinstance(cell, float) else f"{cell}"


def _lines(where: str, rows: Sequence[int], line: Any, kind: str) -> list[str]:
    """One line for each of the first rows, and one with the number of the others."""
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
    cells: Sequence[Any], present: Sequence[int], where: str, faults: list[str], classes: Sequence[str] | None
) -> Labels | None:
    """Parses labels that are class names. `present`: rows whose label is not missing."""
    wrong_type = [row for row in present if not isinstance(cells[row], str | Real | np.number | np.bool_)]
    if wrong_type:
        rule = "a label must be an integer or the name of a class"
        faults += _lines(where, wrong_type, lambda row: f"{rule}, but is {cells[row]!r:.60}", rule)
        return None
    raw = {row: str(cells[row]) for row in present}
    names = {row: name.strip() for row, name in raw.items()}
    class_names = tuple(classes) if classes is not None else tuple(sorted(set(names.values())))
    numbers = {name: number for number, name in enumerate(class_names)}
    unknown = [row for row, name in names.items() if name not in numbers]
    if unknown:
        rule = "the label is not among the classes"
        faults += _lines(
            where,
            unknown,
            lambda row: f"label {names[row]!r} is none of the classes{nearest(names[row], class_names)}",
            rule,
        )
        return None
    values = np.array([numbers[name] for name in names.values()], dtype=np.int64)
    return Labels(values, class_names, tuple(blank_warnings(raw.values(), where)))


def blank_warnings(raw: Iterable[str], where: str) -> list[str]:
    """Warnings about labels with surrounding blanks, which are removed."""
    counts = Counter(name for name in raw if name != name.strip())
    return [
        f"{where}: label {name!r}, with blanks around it, stands in {count} rows and is read as {name.strip()!r}"
        for name, count in sorted(counts.items())[:_SHOWN]
    ]


def case_warnings(names: Sequence[str], counts: Sequence[int], where: str) -> list[str]:
    """Warnings about class names that differ only in case or blanks. `counts`: number of samples of each class."""
    numbers_by_name: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        numbers_by_name.setdefault(" ".join(name.casefold().split()), []).append(number)
    groups = [group for group in numbers_by_name.values() if len(group) > 1]
    listed = [" and ".join(f"{names[k]!r} ({counts[k]} samples)" for k in group) for group in groups]
    return [f"{where}: the classes {group} differ only in case or blanks; are they one class?" for group in listed]


def to_labels(values: FloatArray, where: str, faults: list[str]) -> IntArray | None:
    """Converts numbers to integer labels.

    Args:
        values: [N] numbers; whole numbers >= 0, such as 2.0, are valid labels.
        where: file or argument, for messages.
        faults: gets a line for each of the first rows whose number is not a valid label.

    Returns:
        The labels as integers; None if one of them is not valid.
    """
    valid = np.isfinite(values) & (values >= 0) & (values < 2**31)
    valid[valid] = values[valid] == np.floor(values[valid])
    invalid = np.flatnonzero(~valid)
    for row in invalid[:MAX_LISTED]:
        value = float(values[row])
        nearest_hint = f"; nearest {max(0, round(value))}" if np.isfinite(value) else ""
        faults.append(
            f"{where}: row {row + 1}: a label must be one of the integers 0..C-1, but is {value:g}{nearest_hint}"
        )
    if len(invalid) > MAX_LISTED:
        faults.append(f"{where}: {len(invalid) - MAX_LISTED} more rows whose label is not one of the integers 0..C-1")
    return None if len(invalid) else values.astype(np.int64)


def training_label_faults(labels: IntArray, where: str, classes: Sequence[str] | None = None) -> list[str]:
    """Faults of the training labels: every class 0..C-1 must occur, and C must be at least 2.

    Args:
        labels: [N] integers.
        where: file or argument, for messages.
        classes: the C class names, if there are any.

    Returns:
        One line per fault.
    """
    if not len(labels):
        return [f"{where}: there is no training sample"]
    present = np.unique(labels)
    num_names = None if classes is None else len(classes)
    if num_names is not None and present[-1] >= num_names:
        return [f"{where}: labels must be 0..{num_names - 1} ({num_names} class names), but {present[-1]} occurs"]
    if len(present) == 1:
        only = _class_name(int(present[0]), classes)
        return [f"{where}: at least two classes are needed, but every training label is {only}"]
    count = int(present[-1]) + 1 if num_names is None else num_names
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
    """Faults of the labels of a validation or test split: each label must occur in training.

    Args:
        labels: [N] integers.
        training: [N_train] labels of the training split.
        where: file or argument, for messages.
        classes: the class names, if there are any.

    Returns:
        One line for each class that never occurs in training.
    """
    unseen = np.setdiff1d(labels, training)
    seen = ", ".join(_class_name(int(label), classes) for label in np.unique(training)[:20])
    return [
        f"{where}: row {np.flatnonzero(labels == label)[0] + 1}: label {_class_name(int(label), classes)} never occurs "
        f"in training (labels {seen})"
        for label in unseen[:MAX_LISTED]
    ]


def _class_name(number: int, classes: Sequence[str] | None) -> str:
    """A label for messages: its number, followed by its name if that is not just the number."""
    if classes is None or number >= len(classes) or classes[number] == str(number):
        return str(number)
    return f"{number} ({classes[number]})"
