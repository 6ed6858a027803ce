"""Writes to MLflow what it lacks of a study, from the study's files alone."""

import contextlib
from collections.abc import Callable, Mapping

from m3col.data.dataset import Dataset
from m3col.runtime import notices
from m3col.tracking import mlflow_store
from m3col.tracking.mlflow_store import Tracker
from tune.results import report as reports
from tune.results.report import Report
from tune.study.record import StudyFolder
from tune.tracking import final_results
from tune.tracking.study_to_mlflow import StudyToMlflow

_SHOWN = 3  # largest number of rejected parts in a message


class Incomplete(RuntimeError):
    """The store rejected parts of a study and accepted the others. The message names parts and reasons."""

    def __init__(self, refused: Mapping[str, str]) -> None:
        shown = [f"{part}: {reason}" for part, reason in list(refused.items())[:_SHOWN]]
        hidden = len(refused) - len(shown)
        super().__init__("; ".join(shown) + (f"; and {hidden} more" if hidden else ""))


def send(mlflow_study: StudyToMlflow, report: Report | None) -> None:
    """Writes what MLflow lacks of the trials and, with a `report`, of the study's results.

    Raises:
        Incomplete: the store rejected a part; all others are written.
    """
    refused = mlflow_study.send()
    if report is not None:
        refused |= final_results.send(mlflow_study, report)
    if refused:
        raise Incomplete(refused)


def sync(
    folder: StudyFolder, tracker: Tracker, *, dataset: Dataset | None = None,
    warn: Callable[[str], None] = notices.warn,
) -> None:  # fmt: skip
    """Writes everything of a study that MLflow lacks, and closes its running MLflow runs.

    Args:
        folder: the study. The caller must have its lock.
        tracker: the MLflow store.
        dataset: for the input example of the model; needed if the study's data was in memory.
        warn: called with a line if the study itself is incomplete.

    Raises:
        InputError: the folder is no study.
        Incomplete: the store rejected a part; all others are written.
        Exception: whatever MLflow raises.
    """
    mlflow_study = StudyToMlflow(folder, tracker, dataset=dataset, driven=False, warn=warn)
    try:
        send(mlflow_study, reports.read(folder) if folder.finished() else None)
    except BaseException:
        with contextlib.suppress(Exception):  # the store may be what failed
            mlflow_study.stop(mlflow_store.KILLED)
        raise
    mlflow_study.stop(mlflow_store.KILLED)
