"""One run inside a trial actor, without ray: opens its own folder, goes on from the newest checkpoint, steps.

The actor writes only into an attempt folder of its own: an actor can outlive a killed driver, and must not write where
its successor does.
"""

import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from m3col import checkpoint, config, files
from m3col.data.dataset import Dataset, Split
from m3col.data.splits import Fold, pool, read_csv
from m3col.methods.base import FUSED
from m3col.training import Record, Task, Training, TrainingFailed
from tune.runs import REFIT, RunSpec, report_steps


class Worker:
    """`dataset` has no test labels; `probe` gives the test inputs (a refit predicts on them)."""

    def __init__(
        self, spec: RunSpec, study: Path, dataset: Dataset, *, probe: Callable[[], Mapping[str, np.ndarray] | None]
    ) -> None:
        self.spec, self.folder = spec, study / spec.name
        self.started = time.time()
        self.attempt = _new_attempt(self.folder)
        run = config.load(spec.config, where=spec.name)
        torch.set_num_threads(run.resources.threads)
        if run.data.modalities is not None:
            dataset = dataset.select(run.data.modalities)  # a row of the test table may use fewer than the study
        self.training = Training(run, _task(spec, study, dataset, probe() if spec.kind == REFIT else None))
        self._dataset = dataset
        self._reports = report_steps(run.train.epochs)
        self._keeper = checkpoint.Keeper(self.attempt, run.checkpoint.every_s)
        self._log_lines: list[str] = []
        self._resumed = False
        newest = checkpoint.newest_training(self.folder)
        if newest is not None:
            checkpoint.restore_training(newest, self.training)
            self._resumed = True
            self._log_lines.append(f"goes on from epoch {self.training.epoch} ({newest.parent.name})")

    def step(self) -> dict[str, Any]:
        """Trains to the next report and says what happened. A failure of the training is a result, not an exception."""
        try:
            return self._step()
        except TrainingFailed as error:
            return self._result([], failure=str(error))
        except Exception as error:  # the actor must live on for its next trial
            self._log_lines.append(traceback.format_exc())
            return self._result([], failure=f"{type(error).__name__}: {error}")

    def _step(self) -> dict[str, Any]:
        if self._resumed:
            # First of all the driver hears what this attempt stands on; it may well prune at once.
            self._resumed = False
            records = list(self.training.history)
            if self.training.done:
                self._finish()
            return self._result(records, restart=True)
        ahead = [epoch for epoch in self._reports if epoch > self.training.epoch]
        records = self.training.advance(ahead[0], after_epoch=self._after_epoch)
        if self.training.done:
            self._finish()
        return self._result(records, restart=records[0].epoch == 1)

    def _after_epoch(self, record: Record) -> None:
        if self._keeper.due() and not self.training.done:
            try:
                self._keeper.write(self.training)
            except OSError as error:
                self._log_lines.append(f"checkpoint at epoch {record.epoch} failed, the one before stays: {error}")

    def _result(self, records: list[Record], *, restart: bool = False, failure: str | None = None) -> dict[str, Any]:
        lines, self._log_lines = self._log_lines, []
        return {
            "run": self.spec.name,
            "epoch": self.training.epoch,
            "records": [record.to_dict() for record in records],
            "restart": restart,
            "log": lines,
            "failure": failure,
            "done": failure is not None or self.training.done,
        }

    def _finish(self) -> None:
        """Writes all that a finished run leaves; `outcome.json` comes last and says that the rest is there."""
        training = self.training
        last = training.history[-1]
        if self.spec.kind == REFIT:
            self._write_refit()
        else:
            rows, folds, logits = training.out_of_fold()
            _write_arrays(self.attempt / "predictions.safetensors", index=rows, fold=folds, logits=logits)
        files.write_json(
            self.attempt / "outcome.json",
            {
                "value": last.value,
                "loss": training.smoothed_loss() if last.value is not None else None,
                "metrics": last.metrics,
                "epochs": training.epoch,
                "seconds": time.time() - self.started,
                "attempt": self.attempt.name,
                "history": [record.to_dict() for record in training.history],
            },
        )
        for folder in self.folder.glob("attempt-*"):
            checkpoint.Keeper(folder, 0).clear()

    def _write_refit(self) -> None:
        training, dataset = self.training, self._dataset
        checkpoint.write_model(
            self.attempt / "model",
            training.trainers,
            config=training.config.to_dict(),
            classes=dataset.classes,
            features=training.task.features,
        )
        if training.task.probe is None:
            return
        inputs = training.trainers[0].prepare(training.task.probe)
        logits = training.trainers[0].logits(inputs)
        count = len(logits[FUSED])
        _write_arrays(
            self.attempt / "predictions.safetensors",
            index=np.arange(count),
            fold=np.full(count, -1),
            logits=logits[FUSED],
            **{f"logits.{name}": value for name, value in logits.items() if name != FUSED},
            **{f"epoch.{epoch}": value for epoch, value in training.probes.items()},
        )


def _new_attempt(folder: Path) -> Path:
    number = 1
    while True:
        try:
            (folder / f"attempt-{number}").mkdir(parents=True)
        except FileExistsError:
            number += 1
            continue
        return folder / f"attempt-{number}"


def _task(spec: RunSpec, study: Path, dataset: Dataset, probe: Mapping[str, np.ndarray] | None) -> Task:
    samples: Split = dataset.train
    if spec.partition == "full":
        folds = [Fold(np.arange(len(samples)), np.arange(0))]
    elif spec.partition == "given":
        assert dataset.validation is not None
        samples = pool(dataset, "given")
        rows = np.arange(len(samples))
        folds = [Fold(rows[: len(dataset.train)], rows[len(dataset.train) :])]
    else:
        if spec.config["validation"]["kind"] == "given":
            samples = pool(dataset, "given")
        folds = read_csv(study / "splits.csv", ids=samples.ids)[spec.partition]
    return Task(
        pool=samples,
        folds=folds,
        features=dataset.features,
        num_classes=dataset.num_classes,
        probe=probe,
        probe_every=spec.probe_every,
        rates=spec.rates,
        keep_best=spec.partition == "given" and spec.kind == REFIT,
    )


def _write_arrays(path: Path, **arrays: np.ndarray) -> None:
    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, path)
