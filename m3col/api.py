"""`m3col.train`: one training run from Python, and its result."""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from m3col import checkpoint, config, files, ledger, metrics, notices, tracking
from m3col.config import RunConfig
from m3col.data.dataset import Dataset
from m3col.data.splits import Fold, draw, pool
from m3col.distributed import ALONE, Workers
from m3col.faults import BadInput, nearest
from m3col.methods.base import FUSED
from m3col.predictor import Predictor, load
from m3col.prepare import Prepared, checkpoint_bytes, disk_faults, examine
from m3col.training import Record, Task, Training

Report = Callable[[Record, int, Path], None]
Execute = Callable[[Prepared, Path, "Report | None"], None]
_HISTORY = "history.jsonl"
_DATA = "data.json"  # digests of the splits that a run began with, and what was left out of them


@dataclass(frozen=True)
class TrainResult:
    """`metrics`: the last epoch's, and test/... where the data set has labelled test samples; `history`: one row per
    epoch; `checkpoint`: folder of the model; `mlflow_run_id`: None where tracking is off; `dropped`: samples that were
    left out when the data was read, by reason."""

    metrics: dict[str, float]
    history: pd.DataFrame
    checkpoint: Path
    config: RunConfig
    mlflow_run_id: str | None = None
    folder: Path = field(default_factory=Path)
    dropped: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def predictor(self) -> Predictor:
        return load(self.checkpoint)

    def predict_proba(self, data: Mapping[str, Any]) -> np.ndarray:
        """Class probabilities [N, C] for new samples, see `Predictor.predict_proba`."""
        return self.predictor.predict_proba(data)


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

    `source`: a shipped name, a YAML file, a mapping, a config, or "STUDY#17" for a trial of a study. `data`: arrays or
    DataFrames, see `m3col.prepare.as_dataset`. `tracking_uri`: default SQLite below `runs`; "none" switches tracking
    off. `resume`: folder of a run that was cut off (its config stays, `source` is not looked at). `report`: called
    after each epoch with its Record, the number of epochs, and the folder. `workers`: how many train together; more
    than one need an `execute` that starts them and has each call `run` (`tune.train` does, with Ray).

    The weights that are kept are those of the last epoch: a validation split gives figures, and lowers the learning
    rate of a plateau schedule, but chooses no epoch. With `validation.kind: kfold` one model per fold is trained, and
    the checkpoint holds them all. Raises BadInput with every fault before anything is written.
    """
    root = Path(runs).absolute()
    folder = None if resume is None else Path(resume).absolute()
    if folder is not None:
        source, overrides = _resumed_source(folder, overrides)
    prepared = judge(source, data=data, overrides=overrides, runs=root, workers=workers)
    if execute is None:
        _check_device(prepared.config)
    if folder is not None:
        _same_data(folder, prepared.dataset)
    for line in prepared.dataset.warnings:
        notices.warn(line)
    tracker = tracking.connect(tracking_uri, root)
    is_new = folder is None
    folder = folder or _new_folder(root / "train", prepared)
    started = time.time()
    try:
        (execute or run)(prepared, folder, report)
    except BadInput:
        # Refused where it was to run. Workers that start again can be refused too, when there is something to lose.
        if is_new and not records_of(folder):
            shutil.rmtree(folder)
        raise
    return _finish(prepared, folder, tracker=tracker, started=started, runs=root)


def _check_device(run: RunConfig) -> None:
    """Raises BadInput where this machine cannot compute what the config asks for."""
    has_gpu = torch.cuda.is_available()
    faults = []
    if run.train.device == "cuda" and not has_gpu:
        faults.append("train.device is 'cuda', but torch finds no GPU here; nearest valid: cpu, or auto")
    on_gpu = has_gpu and run.train.device != "cpu"
    if on_gpu and run.train.precision == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        faults.append("train.precision is 'bfloat16', which this GPU does not compute in; nearest valid: float32")
    if faults:
        raise BadInput(faults)


def judge(
    source: "str | Path | Mapping[str, Any] | RunConfig",
    *,
    data: Any = None,
    overrides: Mapping[str, Any] | None = None,
    runs: str | Path = "runs",
    workers: int = 1,
) -> Prepared:
    """The config resolved against its data. Raises BadInput with every fault of config, data, workers and disk."""
    root = Path(runs).absolute()
    drafted = config.draft(_trial_config(source, root), overrides=overrides)
    faults = list(drafted.faults)
    prepared, more = examine(drafted.config, data=data, where=drafted.place, faulty=drafted.faulty)
    faults += more
    faults += [f"workers: {text}" for text in config.shard_faults(drafted.config.train.shards, workers)]
    needed = 0
    if prepared is not None and not faults:
        prepared = replace(prepared, config=config.with_shards(prepared.config, workers))
        needed = 2 * checkpoint_bytes(prepared.config, prepared.dataset, folds=len(_folds(prepared)))
    faults += disk_faults(root, needed, what="a training run")
    if faults or prepared is None:
        raise BadInput(list(dict.fromkeys(faults)))
    return prepared


def _trial_config(source: Any, runs: Path) -> Any:
    """The config file of "STUDY#17"; anything else as it is."""
    if not isinstance(source, str) or "#" not in source or Path(source).is_file():
        return source
    study, _, number = source.partition("#")
    folder = Path(study) if Path(study, "study.json").exists() else runs / study
    if not (folder / "study.json").exists():
        known = [path.parent.name for path in runs.glob("*/study.json")]
        raise BadInput([f"{source}: there is no study {study!r} in {runs}{nearest(study, known)}"])
    path = folder / "trials" / number / "config.yaml"
    if not number.isdigit() or not path.exists():
        numbers = sorted(int(found.parent.name) for found in folder.glob("trials/*/config.yaml"))
        has = f"its trials are {numbers[0]} to {numbers[-1]}" if numbers else "it has none yet"
        raise BadInput([f"{source}: {folder} has no trial {number!r}; {has}"])
    return path


def _resumed_source(folder: Path, overrides: Mapping[str, Any] | None) -> tuple[Path, None]:
    if overrides:
        raise BadInput([f"--resume {folder}: a resumed run keeps its config; leave out {', '.join(overrides)}"])
    if not (folder / "config.yaml").exists() or not (folder / _DATA).exists():
        raise BadInput([f"--resume {folder}: not the folder of a training run (it has no config.yaml and {_DATA})"])
    if (folder / "metrics.json").exists():
        raise BadInput([f"--resume {folder}: this run is finished; its model is in {folder / 'model'}"])
    return folder / "config.yaml", None


def _same_data(folder: Path, dataset: Dataset) -> None:
    began = json.loads((folder / _DATA).read_text(encoding="utf-8"))
    changed = [name for name, digest in dataset.digests().items() if began.get(name) != digest]
    if changed:
        raise BadInput([f"--resume {folder}: the data is not what the run began with ({', '.join(changed)})"])


def _folds(prepared: Prepared) -> list[Fold]:
    validation = prepared.config.validation
    assert validation.kind is not None
    return draw(
        prepared.dataset,
        kind=validation.kind,
        folds=validation.folds,
        fraction=validation.fraction,
        seed=validation.seed,
    )


def _new_folder(parent: Path, prepared: Prepared) -> Path:
    run, number = prepared.config, 1
    while True:
        folder = parent / f"{run.data.name}-{run.method}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            continue
        about = {"dropped": prepared.dataset.dropped, "warnings": list(prepared.dataset.warnings)}
        files.write_json(folder / _DATA, {**prepared.dataset.digests(), **about})
        files.write_text(folder / "config.yaml", run.to_yaml())
        return folder


def run(prepared: Prepared, folder: Path, report: Report | None = None, *, workers: Workers = ALONE) -> None:
    """Trains in `folder` from its newest checkpoint on, and leaves `model` and `history.jsonl` there.

    Of several `workers` each calls it; the first one writes and reports. Raises TrainingFailed.
    """
    config, dataset = prepared.config, prepared.dataset
    samples = pool(dataset, config.validation.kind or "none")
    task = Task(pool=samples, folds=_folds(prepared), features=dataset.features, num_classes=dataset.num_classes)
    training = Training(config, task, workers)
    torch.set_num_threads(config.resources.threads)
    newest = workers.from_first(checkpoint.newest_training(folder) if workers.writes else None)
    if newest is not None:
        checkpoint.restore_training(newest, training)
    keeper = checkpoint.Keeper(folder / "state", config.checkpoint.every_s)
    if workers.writes:
        files.write_text(folder / _HISTORY, _lines(training.history))

    def after_epoch(record: Record) -> None:
        if not workers.writes:
            return
        with (folder / _HISTORY).open("a", encoding="utf-8") as stream:
            stream.write(_lines([record]))
        if keeper.due() and not training.done:
            _save(keeper, training, folder)
        if report is not None:
            report(record, config.train.epochs, folder)

    training.advance(config.train.epochs, after_epoch=after_epoch)
    if workers.writes:
        checkpoint.write_model(
            folder / "model", training.trainers, config=config.to_dict(), classes=dataset.classes,
            features=dataset.features,
        )  # fmt: skip


def _save(keeper: checkpoint.Keeper, training: Training, folder: Path) -> None:
    try:
        keeper.write(training)
    except OSError as error:
        kept = checkpoint.newest_training(folder)
        stays = "there is none before it" if kept is None else f"{kept.name} stays"
        notices.warn(f"{folder}: no checkpoint at epoch {training.epoch} ({error}); {stays}")


def _lines(records: Sequence[Record]) -> str:
    return "".join(json.dumps(record.to_dict()) + "\n" for record in records)


def records_of(folder: Path) -> list[Record]:
    """The finished epochs of the run in `folder`, as far as they are written."""
    path = folder / _HISTORY
    if not path.exists():
        return []
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return [Record(**json.loads(line)) for line in whole]


def _finish(
    prepared: Prepared, folder: Path, *, tracker: "tracking.Tracker | None", started: float, runs: Path
) -> TrainResult:
    config, dataset = prepared.config, prepared.dataset
    history = records_of(folder)
    found = dict(history[-1].metrics)
    predictor = load(folder / "model")
    found |= _test(predictor, dataset)
    if any(name.startswith("test/") for name in found):
        ledger.add(runs, dataset=dataset.name, digest=dataset.digests()["test"], by=f"train/{folder.name}", rows=1)
    files.write_json(folder / "metrics.json", found)
    shutil.rmtree(folder / "state", ignore_errors=True)
    result = TrainResult(found, history_frame(history), folder / "model", config, None, folder, dataset.dropped)
    if tracker is None:
        return result
    return replace(result, mlflow_run_id=tracker.log_training(result, dataset=dataset, started=started))


def _test(predictor: Predictor, dataset: Dataset) -> dict[str, float]:
    if dataset.test is None or dataset.test.labels is None:
        return {}
    votes = predictor.votes(dataset.test.inputs)
    labels = dataset.test.labels
    found = {f"test/{name}": value for name, value in metrics.compute(labels, votes[FUSED]).items()}
    for name, probabilities in votes.items():
        if name != FUSED:
            found[f"test/accuracy_{name}"] = float((probabilities.argmax(1) == labels).mean())
    return found


def history_frame(history: list[Record]) -> pd.DataFrame:
    """One row per epoch: epoch, time (Unix seconds), value, and all metrics."""
    return pd.DataFrame([{"epoch": r.epoch, "time": r.time, "value": r.value, **r.metrics} for r in history])
