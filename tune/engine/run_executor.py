"""One run inside a trial actor or a DDP worker, without ray: opens its attempt, goes on from the newest checkpoint,
steps.

Of several workers each has a Worker, and all step together; the first one alone writes and speaks. It writes only into
an attempt folder of its own: a process can outlive a killed driver, and must not write where its successor does.
"""

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file

from m3col.config import loading
from m3col.data.dataset import Dataset, Split
from m3col.data.splits import Fold, pool
from m3col.distributed import SINGLE_RANK, RankContext
from m3col.errors import InputError, TrainingFailed
from m3col.methods import registry
from m3col.methods.supervised import FUSED
from m3col.storage import atomic_files
from m3col.storage.retry import RetryPolicy, StorageUnavailable
from m3col.tasks import registry as tasks
from m3col.tasks.base import Task
from m3col.training import checkpoint
from m3col.training.history import Record, TrainingJob
from m3col.training.loop import LockstepTrainer
from tune.study.attempts import Attempts
from tune.study.run_messages import FinishedAttempt, RunReport
from tune.study.run_spec import REFIT, RunSpec, report_steps

_LOOKS = 5  # for a checkpoint to go on from

_BETWEEN_REPORTS_S = 1.0  # of several workers: their report passes through other processes


@dataclass(frozen=True)
class SharedStudyData:
    """What all runs of a study share. `study`: its folder; `uri`: its place in a storage, or None; `dataset`: without
    test labels; `folds`: by partition (column of splits.csv); `patience_s`: how long a refused write is tried again;
    `import_folders`: where the driver found a method of the user's own."""

    study: str
    dataset: Dataset
    folds: Mapping[str, Sequence[Fold]]
    uri: str | None = None
    patience_s: float = 300.0
    import_folders: Sequence[str] = ()


class RunExecutor:
    """`test_inputs` gives the test inputs (a refit predicts on them)."""

    def __init__(
        self, spec: RunSpec, shared_data: SharedStudyData, *,
        test_inputs: Callable[[], Mapping[str, np.ndarray] | None], workers: RankContext = SINGLE_RANK,
    ) -> None:  # fmt: skip
        self.spec, self.workers = spec, workers
        self.started = time.time()
        registry.add_import_folders(shared_data.import_folders)
        run = loading.trusted(spec.config)
        torch.set_num_threads(run.resources.threads)
        dataset = shared_data.dataset
        if run.data.modalities is not None:
            dataset = dataset.select(run.data.modalities)  # a row of the test table may use fewer than the study
        task = tasks.build(run.task, dataset.classes)
        job = _job(spec, shared_data.folds, dataset, task, test_inputs() if spec.kind == REFIT else None)
        self.training = LockstepTrainer(run, job, workers)
        self._dataset = dataset
        self._reports = report_steps(run.train.epochs)
        self._log_lines: list[str] = []
        self._retry_policy = RetryPolicy(shared_data.patience_s)
        self.attempts = Attempts(shared_data.study, spec.name, uri=shared_data.uri, config=spec.config)
        if workers.is_rank_zero:
            self.attempt = self._retry_policy.call(self.attempts.new)
            self._keeper = checkpoint.Keeper(self.attempt, run.checkpoint.every_s)
        self._resumed = self._go_on()

    def _go_on(self) -> bool:
        """Puts the training where the newest checkpoint stands, if there is one; all workers take the same.

        One that was found may be gone when it is read, because an actor that outlived its driver still removes its
        older ones; then there is another newest one. Raises InputError where none can be read.
        """
        reason = ""
        for _ in range(_LOOKS):
            found = self._retry_policy.call(self.attempts.newest) if self.workers.is_rank_zero else None
            newest = self.workers.broadcast(found)
            if newest is None:
                return False
            put: Callable[[], None] | None = None
            try:
                put = self._retry_policy.call(partial(self._read, newest))
            except InputError as error:
                reason = str(error)
            # Nobody moves before all have read it: the next look may find nothing, and then all begin at the start.
            missing = self.workers.mean({"missing": float(put is None)})["missing"]
            if put is not None and not missing:
                put()
                self._log_lines.append(f"goes on from epoch {self.training.epoch} ({newest.partition('/')[0]})")
                return True
        raise InputError([f"{self.spec.name}: no checkpoint can be read ({reason or 'another worker lacks it'})"])

    def _read(self, name: str) -> Callable[[], None]:
        """What puts the training where a checkpoint stands. Raises InputError where that is gone or broken."""
        try:
            return checkpoint.read_training(self.attempts.fetch(name), self.training)
        except FileNotFoundError as error:  # waiting would not bring it back
            raise InputError([str(error)]) from None

    def step(self) -> RunReport:
        """Trains to the next report and says what happened. A failure of the training is a result, not an exception;
        of several workers only one that all of them see: any other one would leave them waiting for each other, and
        is raised, to end them all."""
        try:
            return self._step()
        except TrainingFailed as error:
            return self._report([], failure=str(error))
        except Exception as error:  # the actor must live on for its next trial
            if self.workers.size > 1:
                raise
            if isinstance(error, StorageUnavailable):
                return self._report([], refused=str(error))
            self._log_lines.append(traceback.format_exc())
            return self._report([], failure=f"{type(error).__name__}: {error}")

    def _step(self) -> RunReport:
        if self._resumed:
            # First of all the driver hears what this attempt stands on; it may well prune at once.
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
        """Whether to report now. One worker alone does at every step, so that a pruned trial trains no epoch more."""
        if self.workers.size == 1:
            return True
        return self.workers.broadcast(time.monotonic() - start >= _BETWEEN_REPORTS_S)

    def _after_epoch(self, record: Record) -> None:
        if self.workers.is_rank_zero and self._keeper.due() and not self.training.done:
            path = self._retry_policy.call(lambda: self._keeper.write(self.training))
            # An upload takes its share of the time as well, but not the wait for a storage that refused it.
            self._keeper.cost_s += self._retry_policy.call(partial(self._publish, path))
            self._keeper.last = time.monotonic()

    def _publish(self, path: Path) -> float:
        """How long it took."""
        start = time.monotonic()
        self.attempts.publish(path)
        return time.monotonic() - start

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
        """Writes all that a finished run leaves; `outcome.json` comes last and says that the rest is there."""
        training, last = self.training, self.training.history[-1]
        names = self._leave_refit() if self.spec.kind == REFIT else self._leave_out_of_fold()
        if not self.workers.is_rank_zero:
            return
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

    def _leave_out_of_fold(self) -> list[str]:
        rows, folds, logits = self.training.out_of_fold()
        return self._leave("predictions.safetensors", index=rows, fold=folds, logits=logits)

    def _leave(self, name: str, **arrays: np.ndarray) -> list[str]:
        if self.workers.is_rank_zero:
            self._retry_policy.call(lambda: _write_arrays(self.attempt / name, **arrays))
        return [name]

    def _leave_refit(self) -> list[str]:
        training, dataset = self.training, self._dataset
        if self.workers.is_rank_zero:
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
        count = len(logits[FUSED])
        return ["model"] + self._leave(
            "predictions.safetensors",
            index=np.arange(count),
            fold=np.full(count, -1),
            logits=logits[FUSED],
            **{f"logits.{name}": value for name, value in logits.items() if name != FUSED},
            **{f"epoch.{epoch}": value for epoch, value in training.test_logits.items()},
        )


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
        test_inputs=test_inputs,
        predict_test_every=spec.predict_test_every,
        rates=spec.rates,
        keep_best=spec.partition == "given" and spec.kind == REFIT,
    )


def _write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Raises OSError where the disk refuses: safetensors reports that with an exception of its own."""
    try:
        save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, path)
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error
