"""The table of predictions of a study: one row per sample, partition and model."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from m3col.config.schema import RunConfig
from m3col.data.dataset import Split
from m3col.errors import InputError
from m3col.metrics import classification
from tune.study.record import COMPLETE, PREDICTIONS_FILE, StudyFolder

OOF, TEST = "oof", "test"

NONE = -1

BASELINES = "baselines/"


def read(folder: StudyFolder) -> pd.DataFrame:
    """The table that `collect` wrote. Raises InputError where the study has none yet."""
    path = folder.path / PREDICTIONS_FILE
    if not path.exists():
        raise InputError(
            [f"{folder.path}: has no {PREDICTIONS_FILE}: the study has not come to its end; go on with --resume"]
        )
    return pd.read_parquet(path)


def logits_of(rows: pd.DataFrame) -> np.ndarray:
    """Logits [N, C] of some rows of the table."""
    count = sum(name.startswith("logit_") for name in rows.columns)
    return rows[[f"logit_{c}" for c in range(count)]].to_numpy(dtype=np.float64)


def cross_validated(rows: pd.DataFrame) -> dict[str, float]:
    """Every metric of the out-of-fold rows of one job."""
    folds = [part for _, part in rows.groupby("fold", sort=True)]
    labels = [part["label"].to_numpy() for part in folds]
    return classification.cross_validated(labels, [classification.softmax(logits_of(part)) for part in folds])


def deciding_partition(folder: StudyFolder) -> str:
    """The column of splits.csv on which the winner was picked."""
    results = [run.result() for name, run in folder.runs() if name.startswith("confirm/")]
    return "confirm" if any(result is not None and result["state"] == COMPLETE for result in results) else "search"


def ledger_name(folder: StudyFolder) -> str:
    """How the ledger calls this study: with its date, because a name is free again once a study is removed."""
    described = folder.described()
    return f"search/{described['name']} ({described['created']})"


def prediction_frame(
    job: str, samples: Split, logits: np.ndarray, *, fold: Any = NONE, seed: int = NONE, test: bool
) -> pd.DataFrame:
    columns: dict[str, Any] = {
        "job": job,
        "kind": TEST if test else OOF,
        "id": samples.ids.astype(str),
        "fold": fold,
        "seed": seed,
        "label": NONE if samples.labels is None else samples.labels,
        **{f"logit_{c}": logits[:, c].astype(np.float64) for c in range(logits.shape[1])},
    }
    if test and samples.groups is not None:
        columns["group"] = samples.groups.astype(str)
    return pd.DataFrame(columns)


def declared(run: RunConfig, num_classes: int) -> str:
    """The metric of the test table: the search's own without its split, or the nearest one that a test set has.

    A loss of the training has no counterpart but the log-loss, one modality's accuracy none but the accuracy.
    """
    name = (run.metric or f"val/{classification.default(num_classes)}").partition("/")[2]
    if name in classification.names(num_classes):
        return name
    return "accuracy" if name.startswith("accuracy") else "log_loss"


def write(path: Path, table: pd.DataFrame) -> None:
    part = path.with_name(f".{path.name}.part")
    table.to_parquet(part, index=False)
    os.replace(part, path)
