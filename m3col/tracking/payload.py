"""Prepares values for MLflow without importing it: points of metrics, params and tags, columns of a model, reasons."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from m3col.config import yaml_files
from m3col.data import modality_kinds
from m3col.storage.redaction import scrubbed
from m3col.tracking import mlflow_names

if TYPE_CHECKING:
    from m3col.data.dataset import Dataset


_LONG = 200  # longest reason, in characters

_BATCH = 1000  # metrics per call, MLflow's limit

_LENGTHS = {"param": 6000, "tag": 8000}


@dataclass(frozen=True)
class Point:
    """One value of one metric: `step` is the epoch, `time` Unix seconds."""

    name: str
    value: float
    step: int
    time: float


def history_points(records: Iterable[Mapping[str, Any]]) -> list[Point]:
    """The metrics of epoch records as points. A record is flat, or has its metrics under the key "metrics"."""
    points = []
    for record in records:
        metrics = record["metrics"] if "metrics" in record else {k: v for k, v in record.items() if "/" in k}
        points += [
            Point(name, value, int(record["epoch"]), record["time"])
            for name, value in metrics.items()
            if value is not None and not math.isnan(value)
        ]
    return points


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as dictionaries."""
    return [{str(name): value for name, value in line.items()} for line in table.to_dict("records")]


def whole_epochs(numbers: Iterable[Any]) -> list[list[Any]]:
    """Groups metrics (objects with a `step`) into batches within MLflow's limit.

    All metrics of an epoch are in one batch, so that the store never has an incomplete epoch.
    """
    batches: list[list[Any]] = []
    by_step: dict[int, list[Any]] = {}
    for number in numbers:
        by_step.setdefault(number.step, []).append(number)
    for group in by_step.values():
        if not batches or len(batches[-1]) + len(group) > _BATCH:
            batches.append([])
        batches[-1].extend(group[:_BATCH])
    return batches


def cut(values: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Params ("param") or tags ("tag") with names that MLflow accepts, as texts cut to its limits."""
    return {mlflow_names.key(key): mlflow_names.text(_text(value))[: _LENGTHS[kind]] for key, value in values.items()}


def _text(value: Any) -> str:
    return yaml_files.dump(value).strip() if isinstance(value, dict | list | tuple) else str(value)


def medians(dataset: "Dataset") -> dict[str, np.ndarray] | None:
    """Column medians [D_m] of the training split by modality; 0 for a column without any value.

    None for a data set with images, texts or sequences: they have no median, and an example of them may be a person's.
    """
    by_modality = {}
    if not modality_kinds.all_tables(dataset.kinds.values()):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns of columns without values
        for name, values in dataset.train.inputs.items():
            by_modality[name] = np.nan_to_num(np.nanmedian(np.asarray(values), axis=0))
    return by_modality


def model_columns(features: Mapping[str, Sequence[str]], kinds: Mapping[str, str]) -> dict[str, list[str]]:
    """Names of the input columns of a logged model, by modality.

    A numeric table has the columns `<modality>.<feature>`. Images (paths or file contents), texts and sequences have
    one column with the name of the modality.

    Names are unique. Modality `a` with feature `b.c` and modality `a.b` with feature `c` would both give `a.b.c`; the
    second one becomes `a.b.c (2)`.
    """
    preferred = {
        modality: [f"{modality}.{name}" for name in names]
        if modality_kinds.of(kinds[modality]).is_table
        else [modality]
        for modality, names in features.items()
    }
    taken = {column for columns in preferred.values() for column in columns}
    seen: set[str] = set()
    return {modality: [_unique(column, seen, taken) for column in columns] for modality, columns in preferred.items()}


def _unique(column: str, seen: set[str], taken: set[str]) -> str:
    name, number = column, 2
    while name in seen or (name != column and name in taken):
        name, number = f"{column} ({number})", number + 1
    seen.add(name)
    return name


def stored_kinds(described: Mapping[str, Any]) -> dict[str, str]:
    """The kind of each modality of a model checkpoint, from its description."""
    prepared = described["members"][0]["preprocess"] if described["members"] else {}
    return {name: prepared.get(name, {}).get("kind", modality_kinds.NUMERIC) for name in described["features"]}


def reason_of(error: BaseException, *, length: int = _LONG) -> str:
    """An error as one line without secrets. A long message is cut, and the innermost cause follows."""
    text = _line(error)
    if len(text) <= length:
        return text
    inner: BaseException = error
    while (cause := inner.__cause__ or (None if inner.__suppress_context__ else inner.__context__)) is not None:
        inner = cause
    return f"{text[:length]}..." if inner is error else f"{text[: length // 2]}... ({_line(inner)[:length]})"


def _line(error: BaseException) -> str:
    message = " ".join(str(error).partition("[SQL:")[0].split())
    is_clear = isinstance(error, OSError | RuntimeError | ValueError) or type(error).__module__.startswith("mlflow")
    return scrubbed(message if message and is_clear else f"{type(error).__name__}{f': {message}' if message else ''}")
