"""A data set from arrays or DataFrames in memory, judged as strictly as one from files."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from m3col.data.dataset import (
    Dataset,
    FloatArray,
    IntArray,
    Split,
    build_split,
    generated_features,
    to_labels,
    training_label_faults,
    unseen_label_faults,
)
from m3col.faults import BadInput

Modalities = Mapping[str, Any]
Held = tuple[Modalities, Any]


def from_arrays(
    modalities: Modalities,
    labels: Any,
    *,
    test: Held | None = None,
    validation: Held | None = None,
    ids: Sequence[Any] | None = None,
    groups: Sequence[Any] | None = None,
    classes: Sequence[str] | None = None,
    name: str = "arrays",
) -> Dataset:
    """A data set of `modalities` (name -> array or DataFrame [N, D_m]) and `labels` [N] (integers 0..C-1).

    `test` and `validation` are pairs (modalities, labels) with the same modalities and columns; test labels
    may be None. `ids` and `groups` [N] belong to the training samples; without `ids`, the index of the
    DataFrames is used where it is not just 0, 1, 2, ... Raises BadInput with every fault.
    """
    faults: list[str] = []
    train = _part(modalities, labels, "train", faults)
    held = {split: pair for split, pair in (("validation", validation), ("test", test)) if pair is not None}
    parts = {split: _part(pair[0], pair[1], split, faults) for split, pair in held.items()}
    if faults:
        raise BadInput(faults)
    inputs, integers = train.inputs, train.labels
    if integers is None:
        raise BadInput(["train: labels are needed, but are None"])
    faults += training_label_faults(integers, "train labels", None if classes is None else len(classes))
    for split, part in parts.items():
        faults += _agreement_faults(part, train, split)
    own_ids = _strings(ids, len(integers), "ids", faults)
    own_groups = _strings(groups, len(integers), "groups", faults)
    if own_ids is not None and len(np.unique(own_ids)) < len(own_ids):
        values, counts = np.unique(own_ids, return_counts=True)
        faults.append(f"ids: every id must be unique, but {str(values[counts > 1][0])!r} occurs {counts.max()} times")
    if faults:
        raise BadInput(faults)
    splits: dict[str, Split | None] = {
        split: build_split(part.inputs, part.labels, split, ids=part.index) for split, part in parts.items()
    }
    return Dataset(
        name=name,
        classes=tuple(map(str, range(int(integers.max()) + 1) if classes is None else classes)),
        features=train.features,
        train=build_split(inputs, integers, "train", ids=train.index if ids is None else own_ids, groups=own_groups),
        validation=splits.get("validation"),
        test=splits.get("test"),
    )


class _Part:
    """One split while it is judged."""

    def __init__(self) -> None:
        self.inputs: dict[str, FloatArray] = {}
        self.features: dict[str, tuple[str, ...]] = {}
        self.labels: IntArray | None = None
        self.index: NDArray[np.str_] | None = None


def _part(modalities: Modalities, labels: Any, split: str, faults: list[str]) -> _Part:
    part = _Part()
    if not isinstance(modalities, Mapping) or not modalities:
        faults.append(f"{split}: modalities must be a mapping from name to array, but got {type(modalities).__name__}")
        return part
    for name, values in modalities.items():
        _matrix(str(name), values, split, part, faults)
    counts = {name: len(x) for name, x in part.inputs.items()}
    if labels is not None:
        number = pd.to_numeric(pd.Series(np.asarray(labels).ravel()), errors="coerce").to_numpy(np.float64)
        counts["labels"] = len(number)
        part.labels = to_labels(number, f"{split} labels", faults)
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        faults.append(f"{split}: all modalities and labels must have the same number of rows, but have {listed}")
    elif counts and not max(counts.values()):
        faults.append(f"{split}: there is no sample")
    return part


def _matrix(name: str, values: Any, split: str, part: _Part, faults: list[str]) -> None:
    """Put `values` as [N, D_m] float64 into `part`, with its column names and row index."""
    where = f"{split}, modality {name!r}"
    frame = values if isinstance(values, pd.DataFrame) else None
    if frame is not None:
        textual = [str(c) for c, kind in frame.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
        if textual:
            faults.append(f"{where}: every column must be numeric, but {', '.join(textual[:5])} is not")
            return
        index = np.array([str(i) for i in frame.index], dtype=np.str_)
        if not isinstance(frame.index, pd.RangeIndex):
            if part.index is not None and not np.array_equal(part.index, index):
                faults.append(f"{where}: the rows have another index than those of the modalities before; align them")
            part.index = index
    try:
        x = np.array(values if frame is None else frame.to_numpy(np.float64, na_value=np.nan), dtype=np.float64)
    except (TypeError, ValueError) as error:
        faults.append(f"{where}: must be a table of numbers ({error})")
        return
    if x.ndim != 2 or not x.shape[1]:
        faults.append(f"{where}: must be [samples, features], but has shape {list(x.shape)}")
        return
    part.inputs[name] = x
    columns = generated_features(name, x.shape[1]) if frame is None else tuple(map(str, frame.columns))
    part.features[name] = columns


def _agreement_faults(part: _Part, train: _Part, split: str) -> list[str]:
    """Faults of a held-out split against the training split."""
    faults = []
    if part.inputs.keys() != train.inputs.keys():
        faults.append(f"{split}: modalities must be {[*train.inputs]}, but are {[*part.inputs]}")
    for name in part.inputs.keys() & train.inputs.keys():
        got, wanted = part.inputs[name].shape[1], train.inputs[name].shape[1]
        if got != wanted:
            faults.append(f"{split}, modality {name!r}: has {got} columns, but training has {wanted}")
        elif part.features[name] != train.features[name]:
            pairs = zip(part.features[name], train.features[name], strict=True)
            at, (a, b) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
            faults.append(f"{split}, modality {name!r}: column {at + 1} is {a!r}, but {b!r} in training")
    if part.labels is not None and train.labels is not None:
        faults += unseen_label_faults(part.labels, train.labels, f"{split} labels")
    elif split == "validation":
        faults.append("validation: labels are needed, but are None")
    part.inputs = {name: part.inputs[name] for name in train.inputs if name in part.inputs}
    return faults


def _strings(values: Sequence[Any] | None, count: int, what: str, faults: list[str]) -> NDArray[np.str_] | None:
    if values is None:
        return None
    if len(values) != count:
        faults.append(f"{what}: must have one entry per training sample ({count}), but has {len(values)}")
        return None
    return np.array([str(value) for value in values], dtype=np.str_)
