"""Collects the predictions of a study's runs and baselines, and writes the ensemble of the winner's models.

`predictions.parquet` has one row per run and sample: job (name of the run, or baselines/<row>), kind ("oof": out of
fold; "test"), id, fold, seed, label, logit_0 .. logit_<C-1>, and group if the test samples have groups. Missing values
are -1: the fold of a test row, the seed of a baseline, the label of an unlabelled test sample.
"""

import shutil
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from m3col.data.dataset import Dataset, Split
from m3col.data.splits import pool, read_csv
from m3col.evaluation import test_ledger
from m3col.storage import atomic_files
from m3col.tasks import registry as tasks
from m3col.tasks.base import Task
from m3col.training import checkpoint
from tune.config.schema import StudyConfig
from tune.results.baseline_rows import Baselines, Fitted
from tune.results.prediction_table import TEST, columns, deciding_partition, ledger_name, prediction_frame, write
from tune.results.study_results import StudyResults
from tune.study.record import BASELINES_FILE, PREDICTIONS_FILE, StudyFolder
from tune.study.run_folder import RunFolder
from tune.study.run_name import REFITS, WINNER, RunName
from tune.study.run_spec import is_wanted


def collect(
    folder: StudyFolder, config: StudyConfig, dataset: Dataset, fitted: Mapping[str, Fitted] | None = None
) -> None:
    """Writes predictions.parquet and results/model (the winner's refits as one ensemble); may be called again.

    Also records in the test ledger of the runs folder that the test split was evaluated. Call it when all runs have
    ended.

    Args:
        folder: the study.
        config: its config.
        dataset: its data, with the test labels if there are any.
        fitted: baselines that are fitted already, by column of splits.csv. Default: none.
    """
    samples, task = pool(dataset, config.run.validation.kind or "none"), tasks.of(config.run, dataset.classes)
    runs = [(name, run) for name, run in folder.runs() if is_wanted(name, seeds=config.settings.final.seeds)]
    parts = [part for name, run in runs if (part := _of_run(name, run, samples, dataset.test, task)) is not None]
    if config.settings.final.baselines is not False:
        partition = deciding_partition(folder)
        folds = read_csv(folder.path / "splits.csv", ids=samples.ids)[partition]
        baselines = Baselines(config.run, dataset, samples, folds, config.settings.final.baselines)
        parts += list(baselines.predictions((fitted or {}).get(partition)))
        remarks = {"chosen": baselines.chosen, "left_out": baselines.left_out}
        folder.results.mkdir(exist_ok=True)
        atomic_files.write_json(folder.path / BASELINES_FILE, remarks)
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns(task))
    write(folder.path / PREDICTIONS_FILE, table)
    _deliver(folder, runs, _choices(folder, task))
    if dataset.test is not None and dataset.test.labels is not None:
        jobs = table.loc[table["kind"] == TEST, "job"].unique()
        test_ledger.add(
            folder.runs_folder,
            dataset=dataset.name,
            digest=dataset.digests()["test"],
            by=ledger_name(folder),
            rows=len(jobs),
        )


def arrays_of(run: RunFolder) -> dict[str, np.ndarray] | None:
    """Returns the arrays in a finished run's predictions file; None for a run without predictions."""
    outcome = run.outcome()
    if outcome is None or not outcome.is_complete:
        return None
    path = run.path / str(outcome.attempt) / "predictions.safetensors"
    return load_file(path) if path.exists() else None


def _of_run(name: str, run: RunFolder, samples: Split, test: Split | None, task: Task) -> pd.DataFrame | None:
    arrays = arrays_of(run)
    if arrays is None:
        return None
    seed = run.config()["train"]["seed"]
    refit = RunName.parse(name).stage == REFITS
    source = test if refit else samples
    assert source is not None  # a refit has predictions only if there are test samples
    return prediction_frame(
        name, source.take(arrays["index"]), arrays["logits"], task, fold=arrays["fold"], seed=seed, test=refit
    )


def _choices(folder: StudyFolder, task: Task) -> dict[str, list[float]]:
    """Returns what the task chooses for the winner, on the out-of-fold predictions that selected it."""
    if not task.chooses:
        return {}
    results = StudyResults.read(folder)
    if results.decision is None:
        return {}
    return results.task_of(results.deciding_runs(results.decision.winner)).choices()


def _deliver(folder: StudyFolder, runs: Sequence[tuple[str, RunFolder]], choices: Mapping[str, list[float]]) -> None:
    models = []
    for name, run in runs:
        parsed = RunName.parse(name)
        outcome = run.outcome() if (parsed.stage, parsed.row) == (REFITS, WINNER) else None
        if outcome is not None and outcome.is_complete:
            models.append(run.path / str(outcome.attempt) / "model")
    target = folder.results / "model"
    if models:
        checkpoint.join_models(target, models, choices=choices)
    else:
        shutil.rmtree(target, ignore_errors=True)
