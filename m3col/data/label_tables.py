"""Labels that are tables [N, C]: several labels per sample (0 or 1), or numbers to be predicted.

N samples, C labels or targets. Labels that are one class per sample are read by `m3col.data.labels`.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from m3col.data import numeric_tables
from m3col.data.dataset import Dataset
from m3col.data.labels import Labels
from m3col.errors import InputError, nearest

CLASS, BINARY, NUMBER = "class", "binary", "number"

_CALLED = {BINARY: "label", NUMBER: "target"}

_SHOWN = 5  # rows or columns listed individually in a message; the others are only counted

_LARGEST = 3.4e38  # as of the numbers of a modality

_FORMS = {
    CLASS: "one class per sample (integers [N])",
    BINARY: "several labels per sample (integers 0 or 1, [N, C])",
    NUMBER: "numbers (floats [N, K])",
}


def read(
    values: Any,
    where: str,
    faults: list[str],
    *,
    form: str,
    names: Sequence[str] | None = None,
    training: Labels | None = None,
    text_numbers: bool = False,
) -> tuple[Labels, pd.Index | None] | None:
    """Reads the table of one split.

    Args:
        values: a DataFrame, an array, a tensor or a list [N, C]; with one column also a Series or an array [N].
        where: file or argument, for messages.
        faults: gets a line for each of the first values that cannot be used, and for a table of another shape.
        form: `BINARY` or `NUMBER`.
        names: names of the columns where `values` has none; default: label_0 or target_0, and so on.
        training: the training labels, if `values` are those of another split. Named columns are brought into the order
            of training, others must have their number.
        text_numbers: whether numbers may be written as text, like the fields of a file.

    Returns:
        The labels, whose `classes` are the names of the columns, and the pandas index of the rows, None without one;
        None if there are faults.
    """
    called = _CALLED[form]
    try:
        plain, index = numeric_tables.plain(values, where)
        table = numeric_tables.read(_as_table(plain, called), where, text_numbers=text_numbers)
    except InputError as error:
        faults += error.faults
        return None
    x, columns = table.values, table.columns
    if training is not None and training.classes is not None:
        matched = _like_training(x, columns, training.classes, called, where, faults)
        return None if matched is None else _checked(matched, training.classes, index, form, where, faults)
    numbered = columns is not None and list(columns) == [str(number) for number in range(len(columns))]
    given = names if columns is None or (numbered and names is not None) else columns
    if given is not None and len(given) != x.shape[1]:
        faults.append(f"{where}: has {x.shape[1]} columns, but {len(given)} names are given")
        return None
    own = tuple(given) if given is not None else tuple(f"{called}_{number}" for number in range(x.shape[1]))
    repeated = [name for name, count in Counter(own).items() if count > 1 or not name.strip()]
    if repeated:
        faults.append(f"{where}: each {called} needs a name of its own, but {', '.join(map(repr, repeated[:_SHOWN]))} "
                      "is empty or repeated")  # fmt: skip
        return None
    return _checked(x, own, index, form, where, faults)


def _as_table(values: Any, called: str) -> Any:
    """A Series or an array [N] as a table of one column; other values unchanged."""
    if isinstance(values, pd.Series):
        return values.to_frame(values.name if values.name is not None else f"{called}_0")
    is_flat = isinstance(values, Sequence) and not isinstance(values, str | bytes)
    if is_flat and not any(hasattr(item, "__len__") and not isinstance(item, str) for item in values):
        values = np.array(values)
    return values[:, None] if getattr(values, "ndim", None) == 1 else values


def _like_training(
    x: NDArray[np.float64],
    columns: Sequence[str] | None,
    expected: Sequence[str],
    called: str,
    where: str,
    faults: list[str],
) -> NDArray[np.float64] | None:
    numbered = columns is not None and list(columns) == [str(number) for number in range(len(columns))]
    if columns is None or (numbered and set(columns) != set(expected)):  # the columns have no names of their own
        if x.shape[1] == len(expected):
            return x
        faults.append(f"{where}: has {x.shape[1]} columns, but training has {len(expected)} {called}s")
        return None
    missing = [name for name in expected if name not in columns]
    faults += [f"{where}: {called} {name!r} is missing{nearest(name, columns)}" for name in missing[:_SHOWN]]
    extra = [name for name in columns if name not in expected]
    faults += [f"{where}: {called} {name!r} is none of training{nearest(name, expected)}" for name in extra[:_SHOWN]]
    return None if missing or extra else x[:, [list(columns).index(name) for name in expected]]


def _checked(
    x: NDArray[np.float64],
    names: Sequence[str],
    index: pd.Index | None,
    form: str,
    where: str,
    faults: list[str],
) -> tuple[Labels, pd.Index | None] | None:
    lines = value_faults(x, names, form, where)
    faults += lines
    values: NDArray[Any] = x if form == NUMBER or lines else x.astype(np.int64)
    return None if lines else (Labels(values, tuple(names)), index)


def value_faults(x: NDArray[Any], names: Sequence[str], form: str, where: str) -> list[str]:
    """Values that are missing, not 0 or 1, infinite or too large; one line for each of the first ones."""
    called, lines = _CALLED[form], list[str]()
    kinds: list[tuple[str, NDArray[np.bool_], Callable[[float], str]]] = [
        ("is missing; add it, or leave the sample out", np.isnan(x), lambda value: "")
    ]
    if form == BINARY:
        wrong = ~np.isnan(x) & ~np.isin(x, (0, 1))
        kinds.append(("must be 0 or 1, but is", wrong, lambda value: f" {value:g}; nearest {int(value > 0.5)}"))
    else:
        kinds.append(("must be finite, but is", np.isinf(x), lambda value: f" {value:g}"))
        large = np.isfinite(x) & (np.abs(x) > _LARGEST)
        kinds.append(("must be at most 3.4e38, but is", large, lambda value: f" {value:g}; scale the {called}"))
    for rule, mask, shown in kinds:
        places = np.argwhere(mask)
        lines += [
            f"{where}: row {row + 1}, {called} {names[column]!r} {rule}{shown(float(x[row, column]))}"
            for row, column in places[:_SHOWN]
        ]
        if len(places) > _SHOWN:
            lines.append(f"{where}: {len(places) - _SHOWN} more values: a {called} {rule.removesuffix(', but is')}")
    return lines


def training_faults(values: NDArray[Any], names: Sequence[str], form: str, where: str) -> list[str]:
    """Columns that teach nothing: a label without a present or without an absent sample, a constant target.

    Args:
        values: [N, C] of the training split, without faults of single values.
        names: of the columns.
        form: `BINARY` or `NUMBER`.
        where: file or argument, for messages.

    Returns:
        One line per column.
    """
    if not len(values):
        return [f"{where}: there is no training sample"]
    lines = []
    for number in np.flatnonzero(values.min(axis=0) == values.max(axis=0)).tolist():
        value = values[0, number]
        if form == NUMBER:
            fault = f"target {names[number]!r} is {value:g} in every training sample"
        else:
            fault = f"label {names[number]!r} is in {'every' if value else 'no'} training sample"
        lines.append(f"{where}: {fault}, so that nothing can be learned of it; leave it out")
    return lines


def describe(
    by_split: Mapping[str, NDArray[Any]], names: Sequence[str], form: str
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Header and rows of a table for people: how many samples have each label, or mean and range of each target."""
    header = (_CALLED[form], *by_split)
    shown = _share if form == BINARY else _spread
    return header, tuple(
        (name, *(shown(values[:, number]) for values in by_split.values())) for number, name in enumerate(names)
    )


def _share(column: NDArray[Any]) -> str:
    return f"{int(column.sum())} of {len(column)}"


def _spread(column: NDArray[Any]) -> str:
    return f"{column.mean():.4g} ({column.min():.4g} to {column.max():.4g})" if len(column) else "-"


def form_of(labels: NDArray[Any]) -> str:
    """The form of the labels of a split."""
    if labels.ndim == 1:
        return CLASS
    return BINARY if labels.dtype.kind in "iub" else NUMBER


def dataset_faults(dataset: Dataset, form: str, task: str) -> list[str]:
    """Faults of the labels of a whole data set for one task.

    Args:
        dataset: the data set.
        form: what the task needs.
        task: name of the task, for messages.

    Returns:
        One line per fault.
    """
    lines: list[str] = []
    for split, part in dataset.splits.items():
        where = f"{dataset.name}, {split} labels"
        if part.labels is None:
            continue
        own = form_of(part.labels)
        if own != form:
            lines.append(
                f"{where}: task {task!r} needs {_FORMS[form]}, but these are {_FORMS[own]}; "
                "name the task that fits with `task`"
            )
            continue
        if form == CLASS:
            continue
        if part.labels.shape[1] != len(dataset.classes):
            lines.append(f"{where}: have {part.labels.shape[1]} columns, but there are {len(dataset.classes)} names")
            continue
        wrong = value_faults(part.labels, dataset.classes, form, where)
        lines += wrong
        if split == "train" and not wrong:
            lines += training_faults(part.labels, dataset.classes, form, where)
    return lines
