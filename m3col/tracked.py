"""What goes to MLflow, before MLflow comes in: points of metrics, columns of a model, the note and figures of a run."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from m3col import metrics, yamlio

if TYPE_CHECKING:
    from m3col.api import TrainResult
    from m3col.data.dataset import Dataset


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
    """The metrics of epoch records: a record is flat, or has its metrics under "metrics"."""
    points = []
    for record in records:
        found = record["metrics"] if "metrics" in record else {k: v for k, v in record.items() if "/" in k}
        points += [
            Point(name, value, int(record["epoch"]), record["time"])
            for name, value in found.items()
            if value is not None and not math.isnan(value)
        ]
    return points


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, each by the names of its columns."""
    return [{str(name): value for name, value in line.items()} for line in table.to_dict("records")]


def whole_epochs(numbers: Iterable[Any]) -> list[list[Any]]:
    """Metrics (with their `step`) in batches that MLflow takes, each with whole epochs: what the store has of an epoch
    it has in full."""
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
    """Params ("param") or tags ("tag") as texts, no longer than MLflow takes them."""
    return {key: _text(value)[: _LENGTHS[kind]] for key, value in values.items()}


def _text(value: Any) -> str:
    return yamlio.dump(value).strip() if isinstance(value, dict | list | tuple) else str(value)


def medians(dataset: "Dataset") -> dict[str, np.ndarray] | None:
    """Per modality the column medians [D_m] of the training split; 0 for a column without any value. None where there
    are pictures or texts: they have no median, and one of them may be a person's."""
    found = {}
    if set(dataset.kinds.values()) != {"numeric"}:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's word on empty columns
        for name, values in dataset.train.inputs.items():
            found[name] = np.nan_to_num(np.nanmedian(np.asarray(values), axis=0))
    return found


def model_columns(features: Mapping[str, Sequence[str]], kinds: Mapping[str, str]) -> dict[str, list[str]]:
    """Per modality the columns that a logged model takes: `<modality>.<feature>`, or one of the modality's name with
    paths or contents of pictures, or with texts."""
    return {
        modality: [f"{modality}.{name}" for name in names] if kinds[modality] == "numeric" else [modality]
        for modality, names in features.items()
    }


def stored_kinds(described: Mapping[str, Any]) -> dict[str, str]:
    """The kind of each modality of a model checkpoint, from its description."""
    prepared = described["members"][0]["preprocess"] if described["members"] else {}
    return {name: prepared.get(name, {}).get("kind", "numeric") for name in described["features"]}


def draw_training(result: "TrainResult", dataset: "Dataset", folder: Path) -> None:
    """Learning curves and, where the data set has test labels, confusion matrix and reliability, as PNG files."""
    from m3col import figures  # matplotlib takes a second

    figures.save(figures.learning_curves([result.history], metric=result.config.metric), folder / "learning_curves.png")
    if dataset.test is not None and dataset.test.labels is not None:
        probabilities = result.predict_proba(dataset.test.inputs)
        figures.save_test(folder, dataset.test.labels, probabilities, dataset.classes)


def training_note(result: "TrainResult") -> str:
    """Markdown for the run's page."""
    tested = {name.removeprefix("test/"): value for name, value in result.metrics.items() if name.startswith("test/")}
    known = [name for name in metrics.names(2) if name in tested]
    lines = [f"**{result.config.method}** on **{result.config.data.name}**, {len(result.history)} epochs", ""]
    if known:
        lines += ["| test metric | value |", "|---|---|", *(f"| {name} | {tested[name]:.4f} |" for name in known), ""]
    return "\n".join([*lines, f"Checkpoint and log: `{result.folder}`"])
