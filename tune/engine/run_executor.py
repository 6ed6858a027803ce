"""Executes one run in a trial actor or a DDP rank; does not import Ray.

Creates an attempt folder, resumes from the newest checkpoint and trains to the next report. With several ranks each has
an executor, and all step together; only rank 0 writes files and reports. It writes only into its own attempt folder,
because a process can outlive a killed driver and must not write where its successor does.
"""

import contextlib
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file

from m3col import devices
from m3col.config import loading
from m3col.data.dataset import Dataset, Split
from m3col.data.splits import Fold, pool
from m3col.distributed import SINGLE_RANK, RankContext
from m3col.errors import InputError, TrainingFailed, reason_of
from m3col.inputs.base import Source
from m3col.methods import registry
from m3col.methods.self_supervised import SelfSupervisedMethod
from m3col.methods.supervised import FUSED
from m3col.storage import atomic_files
from m3col.storage.retry import RetryPolicy, StorageUnavailable
from m3col.tasks import registry as tasks
from m3col.tasks.base import Task
from m3col.training import checkpoint, initial_weights, probe_predictions
from m3col.training.history import Record, TrainingJob
from m3col.training.loop import LockstepTrainer
from tune.study.attempts import Attempts
from tune.study.run_folder import RunFolder
from tune.study.run_messages import FinishedAttempt, RunReport
from tune.study.run_spec import REFIT, RunSpec, report_steps

_CHECKPOINT_TRIES = 5  # a checkpoint may be removed between listing and reading

T = TypeVar("T")

_BETWEEN_REPORTS_S = 1.0  # with several ranks, whose reports pass through other processes


@dataclass(frozen=True)
class SharedStudyData:
    """What all runs of a study share.

    Args:
        study: path of the study's folder.
        dataset: the data set, without the test split.
        folds: folds by partition, which is a column of splits.csv.
        uri: URI of the study's files in its storage; None (default): all files are in the study's folder.
        patience_s: seconds for which a refused write is tried again, default 300.
        import_folders: folders from which the driver imported user-defined methods.
    """

    study: str
    dataset: Dataset
    folds: Mapping[str, Sequence[Fold]]
    uri: str | None = None
    patience_s: float = 300.0
    import_folders: Sequence[str] = ()


class RunExecutor:
    """Trains one run and reports its progress.

    Args:
        spec: the run.
        shared_data: what all runs of the study share.
        test_inputs: returns the test inputs, on which a refit predicts; called for refits only.
        ranks: this process among the ranks of the run; default: the only one.

    Raises:
        InputError: no checkpoint of the run can be read.
        StorageUnavailable: the storage refused a write for longer than `patience_s`.
    """

    def __init__(
        self, spec: RunSpec, shared_data: SharedStudyData, *,
        test_inputs: Callable[[], Mapping[str, np.ndarray] | None], ranks: RankContext = SINGLE_RANK,
    ) -> None:  # fmt: skip
        self.spec, self.ranks = spec, ranks
        self.started = time.time()
        registry.add_import_folders(shared_data.import_folders)
        run = loading.trusted(spec.config)
        torch.set_num_threads(run.resources.threads)
        dataset = shared_data.dataset
        if run.data.modalities is not None:
            dataset = dataset.select(run.data.modalities)  # a row of the test table may use fewer than the study
        task = tasks.of(run, dataset.classes)
        job = _job(spec, shared_data.folds, dataset, task, test_inputs() if spec.kind == REFIT else None)
        self.training = LockstepTrainer(run, job, ranks)
        self._dataset = dataset
        self._reports = report_steps(run.train.epochs)
        self._log_lines: list[str] = []
        self._compiled_before = devices.compilations() if run.model.compile else None
        self._retry_policy = RetryPolicy(shared_data.patience_s)
        self.attempts = Attempts(shared_data.study, spec.name, uri=shared_data.uri, config=spec.config)
        if ranks.is_rank_zero:
            self.attempt = self._retry_policy.call(self.attempts.new)
            self._keeper = checkpoint.Keeper(self.attempt, run.checkpoint.every_s)
        self._resumed = self._resume()
        if not self._resumed:
            initial_weights.load(self.training)

    def _resume(self) -> bool:
        """Loads the newest checkpoint on all ranks, if there is one. Returns whether there was.

        A checkpoint may be removed between listing and reading, because an actor that outlived its driver still removes
        its older checkpoints; then another one is the newest. Raises InputError where none can be read.
        """
        reason = ""
        for _ in range(_CHECKPOINT_TRIES):
            newest = self.ranks.broadcast(
                self._retry_policy.call(self.attempts.newest) if self.ranks.is_rank_zero else None
            )
            if newest is None:
                return False
            put: Callable[[], None] | None = None
            try:
                put = self._retry_policy.call(partial(self._read, newest))
            except InputError as error:
                reason = str(error)
            # No rank loads it before all have read it: the next try may find none, and then all start at epoch 0.
            missing = self.ranks.mean({"missing": float(put is None)})["missing"]
            if put is not None and not missing:
                put()
                self._log_lines.append(f"resumes from epoch {self.training.epoch} ({newest.partition('/')[0]})")
                return True
        raise InputError([f"{self.spec.name}: no checkpoint can be read ({reason or 'another rank lacks it'})"])

    def _read(self, name: str) -> Callable[[], None]:
        """Reads a checkpoint. Returns a function that loads it into the training. Raises InputError where it is missing
        or damaged."""
        try:
            return checkpoint.read_training(self.attempts.fetch(name), self.training)
        except FileNotFoundError as error:  # waiting would not bring it back
            raise InputError([str(error)]) from None

    def step(self) -> RunReport:
        """Trains to the next report and returns it.

        Errors detected on every rank (e.g. a non-finite loss) are returned as a failed report. With several ranks an
        error on one rank is raised, because the other ranks would block in a collective; Ray Train then stops them all.
        """
        try:
            return self._step()
        except TrainingFailed as error:
            self.close()
            return self._report([], failure=str(error))
        except Exception as error:  # the actor is reused for the next trial
            # After a fatal CUDA error no trial of this process would work. Out of memory is tried once more from the
            # checkpoint, without this training in memory.
            self.close()
            if self.ranks.size > 1 or devices.is_fatal(error) or isinstance(error, torch.OutOfMemoryError):
                raise
            if isinstance(error, StorageUnavailable):
                return self._report([], refused=str(error))
            self._log_lines.append(traceback.format_exc())
            return self._report([], failure=f"{type(error).__name__}: {error}")

    def _step(self) -> RunReport:
        if self._resumed:
            # The driver first receives the epochs of the checkpoint; it may prune at once.
            self._resumed = False
            records = list(self.training.history)
            if self.training.done:
                self._finish()
            return self._report(records, restart=True)
        start, records = time.monotonic(), []
        while not records or not (self.training.done or self._is_due(start)):
            ahead = [epoch for epoch in self._reports if epoch > self.training.epoch]
            records += self.training.advance(ahead[0], after_epoch=self._after_epoch)
        if self.training.done:
            self._finish()
        return self._report(records, restart=records[0].epoch == 1)

    def _is_due(self, start: float) -> bool:
        """Whether to report now. A single rank reports at every step, so a pruned trial trains no further epoch."""
        if self.ranks.size == 1:
            return True
        return self.ranks.broadcast(time.monotonic() - start >= _BETWEEN_REPORTS_S)

    def _after_epoch(self, record: Record) -> None:
        if not self.ranks.is_rank_zero:
            return
        self._keeper.check()
        if self._keeper.due() and not self.training.done:
            self._keeper.write(self.training, store=self._store)

    def _store(self, write: Callable[[], Path]) -> float:
        """Writes and publishes a checkpoint, with retries; in a thread if it is large.

        Returns:
            The seconds that took, without the wait for a storage that refused.
        """
        written_s, path = self._retry_policy.call(partial(_timed, write))
        published_s, _ = self._retry_policy.call(partial(_timed, partial(self.attempts.publish, path)))
        return written_s + published_s

    def close(self) -> None:
        """Waits for a checkpoint that is being written. Call it before a run is given up, for whatever reason.

        Nobody reads the checkpoints of a run that the driver has ended, so they are removed. An error of the write goes
        to the run's log.
        """
        if not self.ranks.is_rank_zero:
            return
        try:
            self._keeper.wait()
        except Exception as error:  # the run ends anyway
            self._log_lines.append(f"no checkpoint at epoch {self._keeper.epoch} ({reason_of(error)})")
        with contextlib.suppress(OSError):
            if RunFolder(self.attempts.folder).outcome() is not None:
                self._keeper.clear()

    def _report(
        self, records: list[Record], *, restart: bool = False, failure: str | None = None, refused: str | None = None
    ) -> RunReport:
        lines, self._log_lines = self._log_lines, []
        return RunReport(
            run=self.spec.name,
            epoch=self.training.epoch,
            records=[record.to_dict() for record in records],
            restart=restart,
            log=lines,
            failure=failure,
            refused=refused,
            done=failure is not None or refused is not None or self.training.done,
        )

    def _finish(self) -> None:
        """Writes the files of a finished run; outcome.json last: once it exists, the others are complete."""
        training, last = self.training, self.training.history[-1]
        if self._compiled_before is not None:
            self._log_lines.append(f"torch.compile compiled {devices.compilations() - self._compiled_before} graphs")
        names = self._write_refit() if self.spec.kind == REFIT else self._write_out_of_fold()
        if not self.ranks.is_rank_zero:
            return
        self._keeper.wait()
        finished = FinishedAttempt(
            value=last.value,
            loss=training.smoothed_loss() if last.value is not None else None,
            metrics=last.metrics,
            epochs=training.epoch,
            seconds=time.time() - self.started,
            attempt=self.attempt.name,
            history=[record.to_dict() for record in training.history],
        )
        self._retry_policy.call(lambda: atomic_files.write_json(self.attempt / "outcome.json", finished.to_dict()))
        for name in [*names, "outcome.json"]:
            self._retry_policy.call(partial(self.attempts.publish, self.attempt / name))
        self.attempts.clear_checkpoints()
        self.attempts.close()

    def _write_out_of_fold(self) -> list[str]:
        rows, folds, logits = self.training.out_of_fold()
        return self._write("predictions.safetensors", index=rows, fold=folds, logits=logits)

    def _write(self, name: str, **arrays: np.ndarray) -> list[str]:
        if self.ranks.is_rank_zero:
            self._retry_policy.call(lambda: _write_arrays(self.attempt / name, **arrays))
        return [name]

    def _write_refit(self) -> list[str]:
        training, dataset = self.training, self._dataset
        if self.ranks.is_rank_zero:
            self._retry_policy.call(
                lambda: checkpoint.write_model(
                    self.attempt / "model",
                    training.trainers,
                    config=training.config.to_dict(),
                    classes=dataset.classes,
                    features=training.job.features,
                )
            )
        if training.job.test_inputs is None:
            return ["model"]
        inputs = training.trainers[0].prepare(training.job.test_inputs)
        logits = training.trainers[0].logits(inputs)
        probes = self._published_probes(inputs)
        count = len(logits[FUSED])
        return ["model"] + self._write(
            "predictions.safetensors",
            index=np.arange(count),
            fold=np.full(count, -1),
            logits=logits[FUSED],
            **{f"logits.{name}": value for name, value in logits.items() if name != FUSED},
            **{f"epoch.{epoch}": value for epoch, value in training.test_logits.items()},
            **{f"probe.{name}.{at}": value for name, values in probes.items() for at, value in enumerate(values)},
        )

    def _published_probes(self, test: Mapping[str, Source]) -> dict[str, list[np.ndarray]]:
        """Test predictions of published linear evaluations; empty where the config asks for none."""
        trainer = self.training.trainers[0]
        if not self.spec.predict_test_every or not isinstance(trainer.method, SelfSupervisedMethod):
            return {}
        return probe_predictions.predict(trainer, self._dataset.validation, test)


def _job(
    spec: RunSpec,
    drawn: Mapping[str, Sequence[Fold]],
    dataset: Dataset,
    task: Task,
    test_inputs: Mapping[str, np.ndarray] | None,
) -> TrainingJob:
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
        folds = list(drawn[spec.partition])
    return TrainingJob(
        pool=samples,
        folds=folds,
        features=dataset.features,
        task=task,
        pretrain=dataset.pretrain,
        test_inputs=test_inputs,
        predict_test_every=spec.predict_test_every,
        rates=spec.rates,
        keep_best=spec.partition == "given" and spec.kind == REFIT,
    )


def _write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Writes arrays. Raises OSError where the disk refuses; safetensors itself raises another exception."""
    try:
        save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, path)
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error


def _timed(call: Callable[[], T]) -> tuple[float, T]:
    """The seconds that a call took, and its result."""
    start = time.monotonic()
    result = call()
    return time.monotonic() - start, result
