"""Files of sequences: a long CSV with one row per step, or a table of all steps with offsets (.safetensors, .npz).

Nothing is unpickled. Every fault is reported at once, with the id of its sequence or the row of its file.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from m3col.data.sequences import long_csv, npz
from m3col.data.sequences.column import SequenceColumn
from m3col.data.sequences.values import FaultsByRule, add_value_faults, read
from m3col.errors import InputError, nearest, reason_of

ARRAYS = (".safetensors", ".npz")

_KEYS = ("values", "offsets", "lengths", "ids", "features")


@dataclass(frozen=True, eq=False)
class SequenceFile:
    """The content of one file without faults.

    Attributes:
        path: the file.
        ids: [N] ids of the sequences, each once.
        features: names of the F features.
        column: the sequences.
        is_named: whether the file names its features; otherwise their names are generated.
        has_ids: whether the file has ids; otherwise they are 0, 1, ...
    """

    path: Path
    ids: tuple[str, ...]
    features: tuple[str, ...]
    column: SequenceColumn
    is_named: bool = True
    has_ids: bool = True

    def samples(self, features: Sequence[str], faults: list[str]) -> "pd.Series | SequenceColumn | None":
        """The sequences for a prediction, with the ids as index where the file has ids; see `select`."""
        column = self.select(features, faults)
        if column is None or not self.has_ids:
            return column
        items = np.empty(len(column), dtype=object)
        items[:] = [column.sequence(row) for row in range(len(column))]
        return pd.Series(items, index=pd.Index(self.ids, dtype=object))

    def select(self, features: Sequence[str], faults: list[str]) -> SequenceColumn | None:
        """The sequences with these features, by name where the file names its own; None and a fault if one is missing.

        Args:
            features: names of the features of a trained model.
            faults: gets one line.
        """
        if not self.is_named:
            if len(self.features) != len(features):
                text = f"has {len(self.features)} features, but the model was trained with {len(features)}"
                faults.append(f"{self.path}: {text}")
            return self.column if len(self.features) == len(features) else None
        missing = [name for name in features if name not in self.features]
        if missing:
            text = f"{len(missing)} features are missing, such as {missing[0]!r}{nearest(missing[0], self.features)}"
            faults.append(f"{self.path}: {text}")
            return None
        order = [self.features.index(name) for name in features]
        return SequenceColumn(self.column.table[:, order], self.column.starts, self.column.lengths)


def read_file(path: Path, faults: list[str]) -> SequenceFile | None:
    """Reads a file of sequences; the suffix decides its form, and all others than `ARRAYS` are a CSV.

    Args:
        path: the file.
        faults: gets one line for each fault.

    Returns:
        The sequences; None if there are faults.
    """
    rules, is_named, has_ids = FaultsByRule(), True, True
    before = len(faults)
    if path.suffix in ARRAYS:
        try:
            arrays = _safetensors(path) if path.suffix == ".safetensors" else npz.read(path)
        except InputError as error:
            faults += error.faults
            return None
        parts, is_named, has_ids = _parts(arrays, path, rules), "features" in arrays, "ids" in arrays
    else:
        parts = long_csv.read(path, rules, faults)
    if parts is not None:
        ids, features, table, lengths = parts
        add_value_faults(rules, table, lengths, [f"id {name!r}" for name in ids], features)
    faults += rules.lines(str(path))
    if parts is None or len(faults) > before:
        return None
    column = SequenceColumn.from_offsets(table.astype(np.float32), np.concatenate([[0], np.cumsum(lengths)]))
    return SequenceFile(path, ids, features, column, is_named, has_ids)


def _safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a file; `ids` and `features` may be JSON lists in its metadata. Raises InputError."""
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys() if name in _KEYS}  # noqa: SIM118 - no mapping
            metadata = file.metadata() or {}
    except (OSError, SafetensorError, TypeError, AttributeError, ValueError) as error:  # dtypes that NumPy lacks
        raise InputError([f"{path}: cannot be read as safetensors ({reason_of(error)})"]) from None
    for name in ("ids", "features"):
        if name in metadata:
            arrays[name] = _names(metadata[name], f"{path}: {name} in the metadata")
    return arrays


def _names(text: str, where: str) -> NDArray[np.str_]:
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(type(name) in (str, int) for name in names):
        raise InputError([f"{where} must be a JSON list of texts, but is {text!r:.60}"])
    return np.array([str(name) for name in names], dtype=np.str_)


Parts = tuple[tuple[str, ...], tuple[str, ...], NDArray[np.float64], NDArray[np.int64]]


def _parts(arrays: dict[str, NDArray[Any]], path: Path, faults: FaultsByRule) -> Parts | None:
    """Ids, names of features, the table of steps, and the lengths; None if one of the arrays does not fit."""
    values = arrays.get("values")
    if values is None:
        faults.add("values", f"the array 'values' is missing{nearest('values', arrays)}")
        return None
    if values.dtype.kind not in "biuf" or values.ndim not in (2, 3) or not values.shape[-1]:
        text = f"is {values.dtype} {list(values.shape)}"
        faults.add("values", f"'values' must be numbers [steps, features] or [samples, steps, features], but {text}")
        return None
    lengths = _lengths(arrays, values, faults)
    if lengths is None:
        return None
    names = arrays.get("ids")
    ids = tuple(map(str, (np.arange(len(lengths)) if names is None else names).tolist()))
    given = arrays.get("features")
    width = values.shape[-1]
    features = tuple(f"{path.name.partition('.')[0]}_{at}" for at in range(width))
    features = features if given is None else tuple(map(str, given.tolist()))
    for key, own, count in (("ids", ids, len(lengths)), ("features", features, width)):
        if len(own) != count:
            faults.add(key, f"{key!r} must name {count}, but names {len(own)}")
        elif len(set(own)) < len(own):
            repeated = next(name for at, name in enumerate(own) if name in own[:at])
            faults.add(key, f"{key!r} must differ, but {repeated!r} occurs {own.count(repeated)} times")
    if len(ids) != len(lengths) or len(features) != width:
        return None
    for sample in np.flatnonzero(lengths == 0).tolist():
        faults.add("no steps", f"id {ids[sample]!r}: has no steps; leave the sample out")
    if not lengths.all():
        return None
    if values.ndim == 3:  # padded behind: the steps after the length of each sample are dropped
        values = values[np.arange(values.shape[1]) < lengths[:, None]]
    return ids, features, values.astype(np.float64), lengths


def _lengths(arrays: dict[str, NDArray[Any]], values: NDArray[Any], faults: FaultsByRule) -> NDArray[np.int64] | None:
    """[N] numbers of steps, from `offsets` or `lengths`; None and a fault if they do not fit `values`."""
    key = "offsets" if values.ndim == 2 else "lengths"
    given = arrays.get(key)
    if given is None and key == "lengths":
        return np.full(len(values), values.shape[1], dtype=np.int64)
    if given is None:
        faults.add(key, "the array 'offsets' is missing: it says where each sequence begins, and ends with their sum")
        return None
    if given.dtype.kind not in "iu" or given.ndim != 1:
        faults.add(key, f"{key!r} must be whole numbers in one dimension, but is {given.dtype} {list(given.shape)}")
        return None
    numbers = given.astype(np.int64)
    if key == "lengths":
        if len(numbers) != len(values) or (numbers < 0).any() or (numbers > values.shape[1]).any():
            text = f"one number from 1 to {values.shape[1]} for each of the {len(values)} samples"
            faults.add(key, f"'lengths' must have {text}")
            return None
        return numbers
    lengths = np.diff(numbers)
    if not len(numbers) or numbers[0] != 0 or numbers[-1] != len(values) or (lengths < 0).any():
        faults.add(key, f"'offsets' must begin with 0, not fall, and end with the number of steps ({len(values)})")
        return None
    return lengths


def write_file(
    path: str | Path, sequences: Any, *, ids: Sequence[str] | None = None, features: Sequence[str] | None = None
) -> None:
    """Writes sequences as safetensors: `values` [S, F], `offsets` [N + 1], ids and names of features as metadata.

    Args:
        path: the new file, which ends with `.safetensors`.
        sequences: N arrays, tensors or DataFrames [T_i, F], or an array [N, T, F].
        ids: [N] ids of the samples; None: 0, 1, ...
        features: names of the F features; None: those of DataFrames, else `<file>_0`, ...

    Raises:
        InputError: the sequences have faults, or the numbers of ids or features do not fit.

    Example:
        >>> import pathlib, tempfile, numpy as np
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "motion.safetensors"
        >>> write_file(path, [np.zeros((2, 3)), np.ones((5, 3))], ids=["a", "b"])
        >>> read_file(path, []).column.lengths.tolist()
        [2, 5]
    """
    path = Path(path)
    content = read(sequences, str(path))
    names = features or content.features
    counts = (("ids", ids, len(content.column)), ("features", names, content.column.width))
    wrong = [f"{path}: {key} must name {count}, but name {len(own)}" for key, own, count in counts
             if own is not None and len(own) != count]  # fmt: skip
    if wrong or path.suffix != ".safetensors":
        raise InputError(wrong or [f"{path}: must end with .safetensors"])
    metadata = {key: json.dumps(list(own)) for key, own, _ in (("ids", ids, 0), ("features", names, 0)) if own}
    save_file({"values": content.column.steps, "offsets": content.column.offsets}, path, metadata=metadata)
