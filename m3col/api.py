"""`m3col.train`: one training run from Python, and its result."""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from m3col import devices
from m3col.checks.limits import checkpoint_bytes, disk_faults
from m3col.checks.resolve import ResolvedRun, check_against_data
from m3col.config import loading, rules
from m3col.config.schema import RunConfig
from m3col.data.dataset import Dataset
from m3col.errors import InputError, TrainingFailed, nearest
from m3col.evaluation import test_ledger
from m3col.predictor import Predictor, load
from m3col.runtime import notices
from m3col.storage import atomic_files
from m3col.tracking import log_training, mlflow_store
from m3col.train_result import TrainResult, history_frame
from m3col.training.run import Execute, Report, folds_of, records_of, run

_DATA = "data.json"  # digests of the splits of a run, the samples that were left out, and warnings about the data


def train(
    source: "str | Path | Mapping[str, Any] | RunConfig" = "digits",
    *,
    data: Any = None,
    overrides: Mapping[str, Any] | None = None,
    runs: str | Path = "runs",
    tracking_uri: str | None = None,
    resume: str | Path | None = None,
    report: Report | None = None,
    workers: int = 1,
    execute: Execute | None = None,
) -> TrainResult:
    """Trains one configuration and tests it once.

    The final weights are those of the last epoch. The validation split gives scores and controls the learning rate of
    a plateau schedule, but it does not select an epoch. With `validation.kind: kfold` one model per fold is trained,
    and the checkpoint contains all of them.

    Args:
        source: what to train: the name of a shipped config, a YAML file, a mapping, a config, or "STUDY#17" for a
            trial of a study.
        data: a data set in memory: `(modalities, labels)`, or a mapping from "train", "validation" and "test" to such
            pairs. Modalities map names to DataFrames or arrays [N, D], or to lists of N images or texts. Default: the
            data set that the config names.
        overrides: config values by dotted key, such as {"train.epochs": 20}.
        runs: folder in which the run creates its own folder.
        tracking_uri: MLflow tracking URI; "none" switches tracking off. Default: SQLite below `runs`.
        resume: folder of an interrupted run, which is resumed with its own config; `source` is not read.
        report: called after each epoch with its record, the number of epochs, and the folder of the run.
        workers: number of processes that train together. More than one needs `execute`: use `tune.train`, which
            passes it and runs the processes with Ray.
        execute: function that executes the validated run. Default: it is executed in this process.

    Returns:
        Metrics, history, and the folder of the model.

    Raises:
        InputError: with every fault of config, data, workers and disk, before anything is written.
        TrainingFailed: the loss or the watched metric is not finite, or the GPU's memory does not suffice.

    Example:
        >>> import tempfile, m3col
        >>> result = m3col.train("digits", overrides={"train.epochs": 2}, runs=tempfile.mkdtemp(), tracking_uri="none")
        >>> result.metrics["test/accuracy"] > 0.2, len(result.history)
        (True, 2)
    """
    root = Path(runs).absolute()
    folder = None if resume is None else Path(resume).absolute()
    if folder is not None:
        source, overrides = _resumed_source(folder, overrides)
    prepared = validate(source, data=data, overrides=overrides, runs=root, workers=workers)
    if execute is None:
        faults = devices.device_faults(prepared.config)
        if faults:
            raise InputError(faults)
    if folder is not None:
        _check_same_data(folder, prepared.dataset)
    for line in prepared.dataset.warnings:
        notices.warn(line)
    tracker = mlflow_store.connect(tracking_uri, root)
    is_new = folder is None
    folder = folder or _new_folder(root / "train", prepared)
    started = time.time()
    try:
        (execute or run)(prepared, folder, report)
    except torch.OutOfMemoryError as error:
        raise TrainingFailed(devices.out_of_memory_text(prepared.config, 0.0)) from error
    except InputError:
        # The machine that was to run it refused. Restarted workers can be refused too: finished epochs are kept then.
        if is_new and not records_of(folder):
            shutil.rmtree(folder)
        raise
    return _finish(prepared, folder, tracker=tracker, started=started, runs=root)


def validate(
    source: "str | Path | Mapping[str, Any] | RunConfig",
    *,
    data: Any = None,
    overrides: Mapping[str, Any] | None = None,
    runs: str | Path = "runs",
    workers: int = 1,
) -> ResolvedRun:
    """Validates one training without running it; nothing is written.

    Args:
        source: see `train`.
        data: see `train`.
        overrides: see `train`.
        runs: see `train`.
        workers: see `train`.

    Returns:
        The data set, and the config with all values filled in that depend on the data.

    Raises:
        InputError: with every fault of config, data, workers and disk.
    """
    root = Path(runs).absolute()
    parsed = loading.parse(_trial_config(source, root), overrides=overrides)
    faults = list(parsed.faults)
    prepared, data_faults = check_against_data(parsed.config, data=data, where=parsed.place, faulty=parsed.faulty)
    faults += data_faults
    faults += [f"workers: {text}" for text in rules.shard_faults(parsed.config.train.shards, workers)]
    needed = 0
    if prepared is not None and not faults:
        prepared = replace(prepared, config=loading.with_shards(prepared.config, workers))
        needed = 2 * checkpoint_bytes(prepared.config, prepared.dataset, folds=len(folds_of(prepared)))
    faults += disk_faults(root, needed, what="a training run")
    if faults or prepared is None:
        raise InputError(list(dict.fromkeys(faults)))
    return prepared


def _trial_config(source: Any, runs: Path) -> Any:
    """The config file of the trial that "STUDY#17" names; any other source is returned unchanged."""
    if not isinstance(source, str) or "#" not in source or Path(source).is_file():
        return source
    study, _, number = source.partition("#")
    folder = Path(study) if Path(study, "study.json").exists() else runs / study
    if not (folder / "study.json").exists():
        studies = [path.parent.name for path in runs.glob("*/study.json")]
        raise InputError([f"{source}: there is no study {study!r} in {runs}{nearest(study, studies)}"])
    path = folder / "trials" / number / "config.yaml"
    if not number.isdigit() or not path.exists():
        numbers = sorted(int(file.parent.name) for file in folder.glob("trials/*/config.yaml"))
        has = f"its trials are {numbers[0]} to {numbers[-1]}" if numbers else "it has none yet"
        raise InputError([f"{source}: {folder} has no trial {number!r}; {has}"])
    return path


def _resumed_source(folder: Path, overrides: Mapping[str, Any] | None) -> tuple[Path, None]:
    """The config file of a run that can be resumed, without overrides. Raises InputError where it cannot be resumed."""
    if overrides:
        raise InputError([f"--resume {folder}: a resumed run keeps its config; leave out {', '.join(overrides)}"])
    if not (folder / "config.yaml").exists() or not (folder / _DATA).exists():
        raise InputError([f"--resume {folder}: not the folder of a training run (it has no config.yaml and {_DATA})"])
    if (folder / "metrics.json").exists():
        raise InputError([f"--resume {folder}: this run is finished; its model is in {folder / 'model'}"])
    return folder / "config.yaml", None


def _check_same_data(folder: Path, dataset: Dataset) -> None:
    """Raises InputError where the data has changed since the run began."""
    stored = json.loads((folder / _DATA).read_text(encoding="utf-8"))
    changed = [name for name, digest in dataset.digests().items() if stored.get(name) != digest]
    if changed:
        raise InputError([f"--resume {folder}: the data is not what the run began with ({', '.join(changed)})"])


def _new_folder(parent: Path, prepared: ResolvedRun) -> Path:
    """Creates the folder of a run, with its config and the digests of its data."""
    run, number = prepared.config, 1
    while True:
        folder = parent / f"{run.data.name}-{run.method}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            continue
        about = {"dropped": prepared.dataset.dropped, "warnings": list(prepared.dataset.warnings)}
        atomic_files.write_json(folder / _DATA, {**prepared.dataset.digests(), **about})
        atomic_files.write_text(folder / "config.yaml", run.to_yaml())
        return folder


def _finish(
    prepared: ResolvedRun, folder: Path, *, tracker: "mlflow_store.Tracker | None", started: float, runs: Path
) -> TrainResult:
    """Tests the trained model, writes `metrics.json`, deletes the training checkpoints, and logs to MLflow."""
    config, dataset = prepared.config, prepared.dataset
    history = records_of(folder)
    metrics = dict(history[-1].metrics)
    # Not "cuda": the ranks of a cluster have GPUs that this process may lack.
    predictor = load(folder / "model", device="cpu" if config.train.device == "cpu" else "auto")
    metrics |= _test(predictor, dataset)
    if any(name.startswith("test/") for name in metrics):
        if predictor.device_note:
            notices.warn(f"{folder}: {predictor.device_note}")
        test_ledger.add(runs, dataset=dataset.name, digest=dataset.digests()["test"], by=f"train/{folder.name}", rows=1)
    atomic_files.write_json(folder / "metrics.json", metrics)
    shutil.rmtree(folder / "state", ignore_errors=True)
    result = TrainResult(metrics, history_frame(history), folder / "model", config, None, folder, dataset.dropped)
    if tracker is None:
        return result
    return replace(result, mlflow_run_id=log_training.log_or_warn(tracker, result, dataset=dataset, started=started))


def _test(predictor: Predictor, dataset: Dataset) -> dict[str, float]:
    """The metrics of the test split; empty where the data set has no labelled one."""
    if dataset.test is None or dataset.test.labels is None:
        return {}
    votes = predictor.votes(dataset.test.inputs)
    scores = predictor.task.test_metrics(votes, dataset.test.labels, predictor.primary)
    return {f"test/{name}": value for name, value in scores.items()}
