"""Checks for values that a model cannot use: missing, infinite, too large, unreadable."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from m3col.data import modality_kinds, preprocessing
from m3col.data.checks import number_limits
from m3col.data.columns import MediaColumn, kind_of
from m3col.data.dataset import Dataset, Split, own_ids
from m3col.data.images import cache
from m3col.errors import InputError

_SHOWN = 5  # rows listed individually in a message; the others are only counted


def faults(dataset: Dataset, spec: Any, where: str = "data.preprocess", *, precision: str = "float32") -> list[str]:
    """Faults of the preprocessing `spec` on this data set, one line each.

    These are faults of the spec itself, missing values of a modality without an `impute` step, a step that keeps no
    feature of the training split, and values that do not fit into `precision` after preprocessing. Modalities with
    values that are too large before preprocessing are skipped: `value_faults` reports them.
    """
    numeric = [name for name, kind in dataset.kinds.items() if modality_kinds.of(kind).is_table]
    lines: list[str] = []
    try:
        steps = preprocessing.resolve(spec, numeric, where) if numeric else {}
    except InputError as error:
        return list(error.faults)
    for name in numeric:
        imputes = "impute" in steps[name]
        missing = [] if imputes else _missing(dataset, name, where)
        lines += missing
        if not missing and not _value_faults(dataset, name, precision):
            lines += _fitting_faults(dataset, name, steps[name], where, precision)
    return lines


def value_faults(dataset: Dataset, precision: str = "float32") -> list[str]:
    """Values of all numeric modalities and splits that are infinite or too large for `precision`."""
    return [line for name in dataset.modalities for line in _value_faults(dataset, name, precision)]


def pretrain_faults(dataset: Dataset) -> list[str]:
    """Where the samples for training without labels differ from the training split: modalities, kinds, columns."""
    split, name = dataset.pretrain, f"{dataset.name}, pretrain"
    if split is None:
        return []
    if {*split.inputs} != {*dataset.modalities}:
        return [f"{name}: must have the modalities {', '.join(dataset.modalities)}, but has {', '.join(split.inputs)}"]
    lines = [] if len(split) > 1 else [f"{name}: must have at least 2 samples, but has {len(split)}"]
    for modality, column in split.inputs.items():
        ours = dataset.train.inputs[modality]
        if kind_of(column) != kind_of(ours):
            lines.append(f"{name}, modality {modality!r}: must be {kind_of(ours)}, but is {kind_of(column)}")
        elif _width(column) != _width(ours):
            text = f"must have {_width(ours)} columns as in training, but has {_width(column)}"
            lines.append(f"{name}, modality {modality!r}: {text}")
    return lines


def _width(column: Any) -> int:
    return column.shape[1] if isinstance(column, np.ndarray) else getattr(column, "width", 0)


def _with_pretrain(dataset: Dataset) -> dict[str, Split]:
    return dataset.splits if dataset.pretrain is None else {**dataset.splits, "pretrain": dataset.pretrain}


def _value_faults(dataset: Dataset, modality: str, precision: str) -> list[str]:
    return [
        fault
        for split, part in _with_pretrain(dataset).items()
        if modality in part.inputs and isinstance(column := part.inputs[modality], np.ndarray)
        for fault in number_limits.faults(
            column,
            f"{dataset.name}, modality {modality!r}, {split}",
            dataset.features[modality],
            precision=precision,
            ids=own_ids(part, split),
        )
    ]


def _fitting_faults(dataset: Dataset, modality: str, steps: Sequence[Any], where: str, precision: str) -> list[str]:
    """Faults of steps fitted on the whole training split: a step that fails, or values too large after the steps."""
    column, labels = dataset.train.inputs[modality], dataset.train.labels
    if not isinstance(column, np.ndarray):
        return []
    if labels is None:
        raise ValueError("the training split has no labels")
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            fitted = preprocessing.Pipeline.fit(column, labels, steps, feature_names=dataset.features[modality])
            lines = []
            for split, part in _with_pretrain(dataset).items():
                x = part.inputs[modality]
                assert isinstance(x, np.ndarray)
                prefix = f"{dataset.name}, modality {modality!r}, {split}, after {where}"
                lines += number_limits.faults(fitted.transform(x), prefix, fitted.feature_names, precision=precision)
    except InputError as error:
        return [f"{where}, modality {modality!r}: {fault}" for fault in error.faults]
    return lines


def unreadable(dataset: Dataset) -> list[str]:
    """Unusable images and texts of a data set built in memory. Those of data sets in files are checked by `load`."""
    lines: list[str] = []
    for split, part in _with_pretrain(dataset).items():
        for column in part.inputs.values():
            if not isinstance(column, MediaColumn):
                continue
            fault_of_row, values, prefix = cache.faults(column), column.values, f"{dataset.name}, {split}"
            for row in sorted(fault_of_row)[:_SHOWN]:
                shown = f"{values[row]}: " if column.kind == "image" and isinstance(values[row], str) else ""
                lines.append(f"{prefix}: row {row + 1}: {shown}{fault_of_row[row]}")
            if len(fault_of_row) > _SHOWN:
                lines.append(f"{prefix}: {len(fault_of_row) - _SHOWN} more rows that cannot be used")
    return lines


def _missing(dataset: Dataset, modality: str, where: str) -> list[str]:
    lines: list[str] = []
    for split, part in _with_pretrain(dataset).items():
        x = part.inputs[modality]
        if not isinstance(x, np.ndarray):
            continue
        rows, columns = np.nonzero(np.isnan(x))
        if len(rows):
            row, column, ids = int(rows[0]), int(columns[0]), own_ids(part, split)
            named = "" if ids is None else f" (id {ids[row]!r})"
            first = f"row {row + 1}{named}, column {column + 1} ({dataset.features[modality][column]})"
            lines.append(
                f"{dataset.name}, modality {modality!r}, {split}: {first}: value {x[rows[0], columns[0]]:g} "
                f"({len(rows)} such in all) needs `impute` as the first step of {where}"
            )
    return lines
