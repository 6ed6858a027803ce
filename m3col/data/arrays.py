"""Builds a data set from arrays or DataFrames in memory, with the same checks as for files."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from m3col.data import label_tables, media_values, modality_kinds, numeric_tables, row_alignment
from m3col.data import labels as label_parser
from m3col.data.checks import naming
from m3col.data.columns import IntArray, ModalityData, kind_of
from m3col.data.dataset import Dataset, Split, build_split, generated_features
from m3col.data.formats.missing_marks import is_missing
from m3col.data.labels import Labels, training_label_faults, unseen_label_faults
from m3col.data.sequences import values as sequence_values
from m3col.errors import InputError
from m3col.tasks import registry as tasks

Modalities = Mapping[str, Any]
HeldOutData = tuple[Modalities, Any]


def from_arrays(
    modalities: Modalities,
    labels: Any,
    *,
    test: HeldOutData | None = None,
    validation: HeldOutData | None = None,
    ids: Sequence[Any] | None = None,
    groups: Sequence[Any] | None = None,
    classes: Sequence[str] | None = None,
    name: str = "arrays",
    task: str = tasks.DEFAULT,
) -> Dataset:
    """Builds a data set from numeric tables, sequences, images and texts in memory.

    Parts with a pandas index (modalities, labels, `ids`, `groups`) are aligned by it, in the row order of the first
    part whose index is not the default 0, 1, 2, ... Differing or repeated ids are refused. Parts without an index
    (arrays, lists, tensors) are aligned by position.

    Args:
        modalities: name -> DataFrame, array, or tensor [N, D_m] of numbers; or sequences: a list of N arrays, tensors
            or DataFrames [T_i, F], or an array [N, T, F]; or a list or Series of N images (paths,
            contents of files as bytes, images of Pillow, uint8 arrays [H, W, 3]) or of N texts. NaN means missing.
        labels: of the task `single_label`: [N] integers 0..C-1, or class names, which are numbered in the order of
            `classes`, else sorted. Of `multi_label`: [N, C] of 0 and 1. Of `regression`: [N, K] numbers. A table may be
            a DataFrame, whose columns name the labels or targets; one column may be a Series or an array [N].
        test: pair (modalities, labels) with the same modalities and columns; its labels may be None.
        validation: pair (modalities, labels) like `test`; labels are required.
        ids: [N] ids of the training samples; default: the common index, if a part has one that is not the default.
        groups: [N] group of each training sample; samples of one group are kept in the same fold.
        classes: class names, in the order of their numbers; names of labels or targets, in the order of the columns.
        name: name of the data set, for reports.
        task: what the labels are for, the config key `task`.

    Returns:
        The data set.

    Raises:
        InputError: with all faults.
    """
    faults = _argument_faults(test, validation, classes)
    if faults:
        raise InputError(faults)
    form = tasks.load(task).label_form
    extra = {key: values for key, values in (("ids", ids), ("groups", groups)) if values is not None}
    train = _part(modalities, labels, "train", faults, form=form, classes=classes, extra=extra)
    held_out = {split: pair for split, pair in (("validation", validation), ("test", test)) if pair is not None}
    parts = {
        split: _part(pair[0], pair[1], split, faults, form=form, classes=classes, training=train.labels)
        for split, pair in held_out.items()
    }
    if faults:
        raise InputError(faults)
    if train.labels is None:
        raise InputError(["train: labels are needed, but are None"])
    values, named = train.labels.values, train.labels.classes or classes
    if form == label_tables.CLASS:
        faults += training_label_faults(values, "train labels", named)
    else:
        faults += label_tables.training_faults(values, named or (), form, "train labels")
    for split, part in parts.items():
        faults += _agreement_faults(part, train, split)
    own_ids = train.extra.get("ids")
    if own_ids is not None and len(np.unique(own_ids)) < len(own_ids):
        values, counts = np.unique(own_ids, return_counts=True)
        faults.append(f"ids: every id must be unique, but {str(values[counts > 1][0])!r} occurs {counts.max()} times")
    if faults:
        raise InputError(faults)
    return _built(train, parts, classes, name, own_ids)


def _argument_faults(test: Any, validation: Any, classes: Any) -> list[str]:
    """Faults of the form of the held-out splits and of the class names, before any data are read."""
    faults = [
        f"{split}: must be a pair (modalities, labels), but is a {type(pair).__name__}"
        for split, pair in (("test", test), ("validation", validation))
        if pair is not None and not (isinstance(pair, tuple | list) and len(pair) == 2)
    ]
    is_list = isinstance(classes, Sequence | np.ndarray | pd.Index) and not isinstance(classes, str | bytes)
    if classes is not None and not (is_list and all(isinstance(name, str) for name in classes)):
        faults.append(f"classes: must be a list of names, in the order of their numbers, but is {classes!r:.60}")
    return faults


def _built(
    train: "_Part",
    parts: Mapping[str, "_Part"],
    classes: Sequence[str] | None,
    name: str,
    own_ids: NDArray[np.str_] | None,
) -> Dataset:
    """Builds the data set from parts without faults."""
    assert train.labels is not None
    integers, named = train.labels.values, train.labels.classes or classes
    splits: dict[str, Split | None] = {
        split: build_split(part.inputs, None if part.labels is None else part.labels.values, split, ids=part.ids)
        for split, part in parts.items()
    }
    return Dataset(
        name=name,
        classes=tuple(map(str, range(int(integers.max()) + 1) if named is None else named)),
        features=train.features,
        train=build_split(
            train.inputs,
            integers,
            "train",
            ids=train.ids if own_ids is None else own_ids,
            groups=train.extra.get("groups"),
        ),
        validation=splits.get("validation"),
        test=splits.get("test"),
        warnings=tuple(line for part in (train, *parts.values()) for line in part.warnings),
    )


class _Part:
    """One split while it is validated.

    Attributes:
        inputs: by modality, its table or sequences.
        features: by modality, the names of its columns or features.
        labels: the parsed labels; None if they are absent or have faults.
        ids: ids from the common index; None if there is none.
        extra: the arguments `ids` and `groups`, if they were passed, in the common row order.
        warnings: suspicious properties, one line each.
    """

    def __init__(self) -> None:
        self.inputs: dict[str, ModalityData] = {}
        self.features: dict[str, tuple[str, ...]] = {}
        self.labels: Labels | None = None
        self.ids: NDArray[np.str_] | None = None
        self.extra: dict[str, NDArray[np.str_]] = {}
        self.warnings: tuple[str, ...] = ()


def _part(
    modalities: Modalities,
    labels: Any,
    split: str,
    faults: list[str],
    *,
    form: str,
    classes: Sequence[str] | None = None,
    training: Labels | None = None,
    extra: Mapping[str, Any] | None = None,
) -> _Part:
    """Reads the tables and labels of one split and aligns their rows."""
    part, indexes = _Part(), dict[str, pd.Index | None]()
    if not isinstance(modalities, Mapping) or not modalities:
        faults.append(f"{split}: modalities must be a mapping from name to array, but got {type(modalities).__name__}")
        return part
    faults += [f"{split}: {line}" for line in naming.repeats(modalities)]
    for name, values in modalities.items():
        try:
            _add_modality(part, indexes, str(name), values, f"{split}, modality {str(name)!r}")
        except InputError as error:
            faults += error.faults
    counts = {name: len(x) for name, x in part.inputs.items()}
    columns: dict[str, list[Any]] = {}
    named_labels = {} if labels is None else {"labels": labels}
    if labels is not None and form != label_tables.CLASS:
        named_labels = {}
        parsed = label_tables.read(labels, f"{split} labels", faults, form=form, names=classes, training=training)
        if parsed is not None:
            part.labels, indexes["labels"] = parsed
            counts["labels"] = len(parsed[0].values)
    for argument, column in {**named_labels, **(extra or {})}.items():
        cells_and_index = _cells(column, f"{split} {argument}", faults)
        if cells_and_index is not None and argument != "labels":
            empty = [row for row, cell in enumerate(cells_and_index[0]) if is_missing(cell)]
            faults += [f"{argument}: row {empty[0] + 1} is missing ({len(empty)} such in all)"] if empty else []
        if cells_and_index is not None:
            columns[argument], indexes[argument] = cells_and_index
            counts[argument] = len(cells_and_index[0])
    before = len(faults)
    aligned = row_alignment.align(indexes, split, faults, unique=True)
    if len(set(counts.values())) > 1 and len(faults) == before:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        faults.append(f"{split}: all modalities and labels must have the same number of rows, but have {listed}")
    elif counts and not max(counts.values()):
        faults.append(f"{split}: there is no sample")
    _reorder(part, {argument: cells for argument, cells in columns.items() if argument != "labels"}, aligned)
    if "labels" in columns:
        # Parsed before they are reordered, so that faults name the rows of the caller.
        part.labels = label_parser.parse(
            columns["labels"], f"{split} labels", faults, classes=classes, training=training
        )
    order = aligned.orders.get("labels")
    if part.labels is not None:
        part.labels = part.labels if order is None else replace(part.labels, values=part.labels.values[order])
        part.warnings += part.labels.warnings
    return part


def _add_modality(part: _Part, indexes: dict[str, pd.Index | None], name: str, values: Any, where: str) -> None:
    """Reads one modality into `part` and its index into `indexes`. Raises InputError."""
    media = media_values.kind_of_items(values)
    fault = "" if media is not None else media_values.fault_of(values)
    if fault:
        raise InputError([f"{where}: {fault}"])
    if media is not None:
        plain, index = numeric_tables.plain(values, where)
        part.inputs[name] = modality_kinds.of(media).call(
            "user_values", plain, (name,), where=where, may_miss=False, precision="float32"
        )
        part.features[name] = (name,)
    elif sequence_values.are_sequences(values):
        sequences = sequence_values.read(values, where)
        part.inputs[name], index = sequences.column, sequences.index
        part.features[name] = sequences.features or generated_features(name, sequences.column.width)
    else:
        table = numeric_tables.read(values, where)
        part.inputs[name], index = table.values, table.index
        part.features[name] = table.columns or generated_features(name, table.values.shape[1])
    indexes[f"modality {name!r}"] = index


def _reorder(part: _Part, extra: Mapping[str, list[Any]], aligned: row_alignment.Alignment) -> None:
    """Reorders tables, ids and groups to the common row order."""
    for name, x in part.inputs.items():
        order = aligned.orders.get(f"modality {name!r}")
        part.inputs[name] = x if order is None else x[order]
    for argument, cells in extra.items():
        ordered = _ordered(cells, aligned.orders.get(argument))
        part.extra[argument] = np.array([str(value) for value in ordered], dtype=np.str_)
    part.ids = None if aligned.index is None else np.array([str(i) for i in aligned.index], dtype=np.str_)
    part.warnings = aligned.warnings


def _ordered(cells: list[Any], order: IntArray | None) -> list[Any]:
    return cells if order is None else [cells[at] for at in order]


def _cells(column: Any, where: str, faults: list[str]) -> tuple[list[Any], pd.Index | None] | None:
    """The N values of labels, ids or groups, and their pandas index, if they have one; None if there are faults.

    Accepted are a Series, a DataFrame with one column, a list, and an array [N] or [N, 1].
    """
    if isinstance(column, str | bytes | Mapping):
        faults.append(f"{where}: must be a list of values, but is {column!r:.60}")
        return None
    try:
        column, index = numeric_tables.plain(column, where)
        array = column.to_numpy() if isinstance(column, pd.DataFrame | pd.Series) else _objects(column)
    except InputError as error:
        faults += error.faults
        return None
    except (TypeError, ValueError) as error:
        faults.append(f"{where}: must be a list of values ({error})")
        return None
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        several = "; of several labels per sample the task is multi_label, of numbers regression"
        hint = several if where.endswith("labels") and array.ndim == 2 else ""
        faults.append(f"{where}: must be a list of N values, but has shape {list(array.shape)}{hint}")
        return None
    return array.tolist(), index


def _objects(values: Any) -> NDArray[Any]:
    """An object array of the values. Without dtype=object, NumPy turns a list of numbers and text into text."""
    if isinstance(values, np.ndarray):
        return values
    items = list(values)
    if any(isinstance(item, list | tuple | np.ndarray) for item in items):
        return np.array(items)
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def _agreement_faults(part: _Part, train: _Part, split: str) -> list[str]:
    """Faults of a held-out split compared with the training split. Also sorts its modalities as in training."""
    faults = []
    if part.inputs.keys() != train.inputs.keys():
        faults.append(f"{split}: modalities must be {[*train.inputs]}, but are {[*part.inputs]}")
    for name in part.inputs.keys() & train.inputs.keys():
        width, expected = len(part.features[name]), len(train.features[name])
        kind, trained = kind_of(part.inputs[name]), kind_of(train.inputs[name])
        if kind != trained:
            given = f"{modality_kinds.of(kind).given_as}, but training has {modality_kinds.of(trained).given_as}"
            faults.append(f"{split}, modality {name!r}: has {given}")
        elif width != expected:
            unit = "columns" if modality_kinds.of(kind).is_table else "features"
            faults.append(f"{split}, modality {name!r}: has {width} {unit}, but training has {expected}")
        elif part.features[name] != train.features[name]:
            pairs = zip(part.features[name], train.features[name], strict=True)
            index, (a, b) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
            faults.append(f"{split}, modality {name!r}: column {index + 1} is {a!r}, but {b!r} in training")
    if part.labels is not None and train.labels is not None and part.labels.values.ndim == 1:
        faults += unseen_label_faults(part.labels.values, train.labels.values, f"{split} labels", train.labels.classes)
    elif part.labels is None and split == "validation":
        faults.append("validation: labels are needed, but are None")
    part.inputs = {name: part.inputs[name] for name in train.inputs if name in part.inputs}
    return faults
