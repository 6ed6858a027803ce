"""Values of a data set that a model cannot use: missing, infinite, too large, unreadable."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from m3col.data import modality_kinds, preprocessing
from m3col.data.checks import number_limits
from m3col.data.columns import MediaColumn
from m3col.data.dataset import Dataset, own_ids
from m3col.data.images import cache
from m3col.errors import InputError

_SHOWN = 5  # images named one by one in a message; the rest is counted


def faults(dataset: Dataset, spec: Any, where: str = "data.preprocess", *, precision: str = "float32") -> list[str]:
    """Faults of preprocessing `spec` on this data set: its own, a value that is missing where a modality has no
    `impute` step, a step that keeps no feature of the training split, values that no longer fit into `precision` after
    it. What does not fit before is told by `value_faults`, and its modality is not looked at here.
    """
    numeric = [name for name, kind in dataset.kinds.items() if not modality_kinds.of(kind).is_media]
    found: list[str] = []
    try:
        steps = preprocessing.resolve(spec, numeric, where) if numeric else {}
    except InputError as error:
        return list(error.faults)
    for name in numeric:
        imputes = "impute" in steps[name]
        missing = [] if imputes else _missing(dataset, name, where)
        found += missing
        if not missing and not _value_faults(dataset, name, precision):
            found += _fitting_faults(dataset, name, steps[name], where, precision)
    return found


def value_faults(dataset: Dataset, precision: str = "float32") -> list[str]:
    """Values of all numeric modalities and splits that are infinite or too large for `precision`."""
    return [line for name in dataset.modalities for line in _value_faults(dataset, name, precision)]


def _value_faults(dataset: Dataset, modality: str, precision: str) -> list[str]:
    return [
        fault
        for split, part in dataset.splits.items()
        if modality in part.inputs and not isinstance(column := part.inputs[modality], MediaColumn)
        for fault in number_limits.faults(
            column,
            f"{dataset.name}, modality {modality!r}, {split}",
            dataset.features[modality],
            precision=precision,
            ids=own_ids(part, split),
        )
    ]


def _fitting_faults(dataset: Dataset, modality: str, steps: Sequence[Any], where: str, precision: str) -> list[str]:
    """Faults of steps fitted to the whole training split: a step that fails, values that no longer fit after it."""
    column, labels = dataset.train.inputs[modality], dataset.train.labels
    if isinstance(column, MediaColumn):
        return []
    if labels is None:
        raise ValueError("the training split has no labels")
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            fitted = preprocessing.Pipeline.fit(column, labels, steps, feature_names=dataset.features[modality])
            found = []
            for split, part in dataset.splits.items():
                x = part.inputs[modality]
                assert not isinstance(x, MediaColumn)
                place = f"{dataset.name}, modality {modality!r}, {split}, after {where}"
                found += number_limits.faults(fitted.transform(x), place, fitted.feature_names, precision=precision)
    except InputError as error:
        return [f"{where}, modality {modality!r}: {fault}" for fault in error.faults]
    return found


def unreadable(dataset: Dataset) -> list[str]:
    """Images and texts of a data set in memory that cannot be used; `load` judges those of files."""
    found: list[str] = []
    for split, part in dataset.splits.items():
        for column in part.inputs.values():
            if not isinstance(column, MediaColumn):
                continue
            broken, items, place = cache.faults(column), column.values, f"{dataset.name}, {split}"
            for row in sorted(broken)[:_SHOWN]:
                shown = f"{items[row]}: " if column.kind == "image" and isinstance(items[row], str) else ""
                found.append(f"{place}: row {row + 1}: {shown}{broken[row]}")
            if len(broken) > _SHOWN:
                found.append(f"{place}: {len(broken) - _SHOWN} more rows that cannot be used")
    return found


def _missing(dataset: Dataset, modality: str, where: str) -> list[str]:
    found: list[str] = []
    for split, part in dataset.splits.items():
        x = part.inputs[modality]
        if isinstance(x, MediaColumn):
            continue
        rows, columns = np.nonzero(np.isnan(x))
        if len(rows):
            row, column, ids = int(rows[0]), int(columns[0]), own_ids(part, split)
            named = "" if ids is None else f" (id {ids[row]!r})"
            first = f"row {row + 1}{named}, column {column + 1} ({dataset.features[modality][column]})"
            found.append(
                f"{dataset.name}, modality {modality!r}, {split}: {first}: value {x[rows[0], columns[0]]:g} "
                f"({len(rows)} such in all) needs `impute` as the first step of {where}"
            )
    return found
