"""The table of a study's predictions: one row per sample, partition and model."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from m3col.config.schema import RunConfig
from m3col.data.dataset import Split
from m3col.errors import InputError
from m3col.evaluation.epoch_metrics import default_metric
from m3col.storage import atomic_files
from m3col.tasks.base import Task
from tune.study.partitions import CONFIRM_PARTITION, SEARCH_PARTITION
from tune.study.record import PREDICTIONS_FILE, StudyFolder
from tune.study.run_name import CONFIRMATIONS, RunName

OOF, TEST = "oof", "test"

NONE = -1

BASELINES = "baselines/"


def read(folder: StudyFolder) -> pd.DataFrame:
    """Reads the table that `collect` wrote. Raises InputError if the study has none yet."""
    path = folder.path / PREDICTIONS_FILE
    if not path.exists():
        raise InputError(
            [f"{folder.path}: has no {PREDICTIONS_FILE}: the study is not finished; resume it with --resume"]
        )
    return pd.read_parquet(path)


def cross_validated(rows: pd.DataFrame, task: Task) -> dict[str, float]:
    """Returns every metric of the out-of-fold rows of one job."""
    folds = [part for _, part in rows.groupby("fold", sort=True)]
    labels = [task.labels_of(part) for part in folds]
    not_none = [part for part in labels if part is not None]  # all: development samples have labels
    return task.cross_validated(not_none, [task.link(task.outputs_of(part)) for part in folds])


def deciding_partition(folder: StudyFolder) -> str:
    """Returns the column of splits.csv on which the winner was selected."""
    outcomes = [run.outcome() for name, run in folder.runs() if RunName.parse(name).stage == CONFIRMATIONS]
    is_confirmed = any(outcome is not None and outcome.is_complete for outcome in outcomes)
    return CONFIRM_PARTITION if is_confirmed else SEARCH_PARTITION


def ledger_name(folder: StudyFolder) -> str:
    """Returns the study's name in the test ledger: with its date, because names of removed studies are used again."""
    described = folder.described()
    return f"search/{described['name']} ({described['created']})"


def prediction_frame(
    job: str, samples: Split, outputs: np.ndarray, task: Task, *, fold: Any = NONE, seed: int = NONE, test: bool
) -> pd.DataFrame:
    """Returns the rows of one job for `samples` and their outputs [N, C]."""
    columns: dict[str, Any] = {
        "job": job,
        "kind": TEST if test else OOF,
        "id": samples.ids.astype(str),
        "fold": fold,
        "seed": seed,
        **task.to_columns(samples.labels, outputs),
    }
    if test and samples.groups is not None:
        columns["group"] = samples.groups.astype(str)
    return pd.DataFrame(columns)


def columns(task: Task) -> list[str]:
    """Returns the columns of a table without groups."""
    return ["job", "kind", "id", "fold", "seed", *task.columns]


def declared(run: RunConfig, task: Task) -> str:
    """Returns the metric of the test table: that of the search, or the closest one that a test set has."""
    return task.test_metric(default_metric(run, task).partition("/")[2])


def write(path: Path, table: pd.DataFrame) -> None:
    """Writes the table atomically."""
    with atomic_files.replaced(path) as part:
        table.to_parquet(part, index=False)
