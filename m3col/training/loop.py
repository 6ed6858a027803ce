"""The training loop: k models, one per fold, trained epoch by epoch in lockstep, so that each epoch has a mean score.

Training a single model is the case k = 1. A refit is the case k = 1 without a validation split.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from m3col.config.schema import RunConfig
from m3col.data.dataset import Split
from m3col.distributed import SINGLE_RANK, RankContext
from m3col.errors import TrainingFailed
from m3col.evaluation.epoch_metrics import default_metric, window
from m3col.metrics.spec import higher_is_better
from m3col.tasks.base import Task
from m3col.training.fold_trainer import FoldTrainer
from m3col.training.history import Best, Record, TrainingJob
from m3col.training.schedule import Schedule


class LockstepTrainer:
    """Trains one model per fold, all to the same epoch. `advance` is the loop; `history` has a Record per epoch.

    Each rank runs the same loop on its share of every batch. All ranks get the same records.

    Args:
        config: the config of the run.
        job: data, folds and options of the training.
        ranks: this process among the ranks of the training; default: the only one.

    Raises:
        InputError: `train.shards` is not a multiple of the number of ranks.
    """

    def __init__(self, config: RunConfig, job: TrainingJob, ranks: RankContext = SINGLE_RANK) -> None:
        self.config, self.job, self.ranks = config, job, ranks
        self.metric = default_metric(config, job.task)
        self.history: list[Record] = []
        self.test_logits: dict[int, np.ndarray] = {}
        self.best: Best | None = None
        self.trainers = [
            FoldTrainer(
                config,
                job.pool.take(fold.train),
                features=job.features,
                task=job.task,
                pretrain=job.pretrain,
                fold=job.fold_offset + number,
                ranks=ranks,
            )
            for number, fold in enumerate(job.folds)
        ]
        self._validation = [
            (trainer, trainer.prepare(split.inputs, split.present), np.asarray(split.labels))
            for trainer, split in zip(self.trainers, self._validation_splits(), strict=True)
            if len(split)
        ]
        self._test_inputs = None if job.test_inputs is None else self.trainers[0].prepare(job.test_inputs)
        self._evaluation_epochs = self.trainers[0].method.evaluation_epochs(config)
        self._new_schedule()

    def _validation_splits(self) -> list[Split]:
        return [self.job.pool.take(fold.validation) for fold in self.job.folds]

    def _new_schedule(self) -> None:
        self.schedule = Schedule(
            self.config.train, higher_is_better=higher_is_better(self.metric), replay=self.job.rates
        )

    @property
    def primary(self) -> str:
        """The name of the output that validation scores, such as "fused"."""
        name = self.trainers[0].method.primary_output
        assert name is not None, "a method without outputs cannot be validated"
        return name

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.history)

    @property
    def done(self) -> bool:
        """Whether all epochs of the config are finished."""
        return self.epoch >= self.config.train.epochs

    def advance(self, until: int, *, after_epoch: Callable[[Record], None] = lambda record: None) -> list[Record]:
        """Trains all folds until `until` epochs are finished.

        Args:
            until: number of the last epoch; at most the number of epochs in the config.
            after_epoch: called with the record of each epoch.

        Returns:
            The records of the epochs that were trained.

        Raises:
            TrainingFailed: a loss or the watched metric is not finite.
        """
        first = self.epoch
        while self.epoch < min(until, self.config.train.epochs):
            epoch = self.epoch + 1
            rate = self.schedule.rate(epoch)
            losses = [trainer.train_epoch(epoch, learning_rate=rate) for trainer in self.trainers]
            metrics = {f"train/{name}": float(np.mean([p[name] for p in losses])) for name in losses[0]}
            metrics["train/learning_rate"] = rate
            self._fit_evaluation(epoch)
            metrics |= self._validate() if self._is_validated(epoch) else {}
            record = Record(epoch, time.time(), self._smoothed(metrics), metrics)
            self.history.append(record)
            if record.value is not None:
                self.schedule.observe(metrics[self.metric])
                self._keep_best(epoch, metrics[self.metric])
            self._predict_test_inputs(epoch)
            if self.done and self.best is not None:
                self._return_to_best(self.best)
            after_epoch(record)
        return self.history[first:]

    def _is_validated(self, epoch: int) -> bool:
        """Whether the method is validated after this epoch: after each one, or after those that it names."""
        return self._evaluation_epochs is None or epoch in self._evaluation_epochs

    def _fit_evaluation(self, epoch: int) -> None:
        """Fits what the optimizer does not train, such as the classifier of a method without labels, where this epoch
        needs predictions."""
        every = self._evaluation_epochs
        scored = bool(self._validation) or epoch >= self.config.train.epochs if every is None else epoch in every
        if scored or self._is_probed(epoch):
            for trainer in self.trainers:
                trainer.fit_evaluation()

    def _keep_best(self, epoch: int, score: float) -> None:
        sign = 1 if higher_is_better(self.metric) else -1
        if self.job.keep_best and (self.best is None or sign * score > sign * self.best.score):
            weights = [{k: v.detach().clone() for k, v in t.method.state_dict().items()} for t in self.trainers]
            self.best = Best(epoch, score, weights)

    def _return_to_best(self, best: Best) -> None:
        for trainer, weights in zip(self.trainers, best.weights, strict=True):
            trainer.method.load_state_dict(weights)

    def _validate(self) -> dict[str, float]:
        """Validation metrics: means over the folds, and the task's cross-validated scores, which replace the means."""
        if not self._validation:
            return {}
        task = self.job.task
        logits = [trainer.logits(inputs) for trainer, inputs, _ in self._validation]
        labels = [truth for _, _, truth in self._validation]
        folds = [
            trainer.task.output_metrics(value, truth, self.primary)
            for (trainer, _, truth), value in zip(self._validation, logits, strict=True)
        ]
        metrics = {f"val/{name}": float(np.mean([fold[name] for fold in folds])) for name in folds[0]}
        scores = task.cross_validated(labels, [task.link(value[self.primary]) for value in logits])
        metrics |= {f"val/{name}": value for name, value in scores.items()}
        if self.metric not in metrics or not math.isfinite(metrics[self.metric]):
            raise TrainingFailed(f"{self.metric} is {metrics.get(self.metric)} in epoch {self.epoch + 1}")
        return metrics

    def _smoothed(self, latest: Mapping[str, float]) -> float | None:
        """The mean of the watched metric over the last epochs, `latest` included; None without a validation split."""
        if self.metric not in latest:
            return None
        recent = self._last(self.metric, window(self.config.train.epochs) - 1)
        return float(np.mean([*recent, latest[self.metric]]))

    def _last(self, metric: str, count: int) -> list[float]:
        """Values of a metric in the last `count` epochs, without epochs that do not report it."""
        records = self.history[-count:] if count else []
        return [record.metrics[metric] for record in records if metric in record.metrics]

    def smoothed_loss(self) -> float:
        """The mean validation loss over the epochs that `value` is averaged over. It breaks ties between trials."""
        return float(np.mean(self._last("val/loss", window(self.config.train.epochs))))

    def _is_probed(self, epoch: int) -> bool:
        """Whether the test inputs are predicted after this epoch."""
        every = self.job.predict_test_every
        is_last = epoch >= self.config.train.epochs
        return self._test_inputs is not None and every > 0 and (epoch % every == 0 or is_last)

    def _predict_test_inputs(self, epoch: int) -> None:
        if self._is_probed(epoch):
            assert self._test_inputs is not None
            self.test_logits[epoch] = self.trainers[0].logits(self._test_inputs)[self.primary]

    def out_of_fold(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows in the pool [n], fold numbers [n] and primary logits [n, C] of all validation samples."""
        rows, folds, logits = [], [], []
        for number, (fold, (trainer, inputs, _)) in enumerate(zip(self.job.folds, self._validation, strict=True)):
            rows.append(fold.validation)
            folds.append(np.full(len(fold.validation), number))
            logits.append(trainer.logits(inputs)[self.primary])
        return np.concatenate(rows), np.concatenate(folds), np.concatenate(logits)

    def chosen_task(self) -> Task:
        """The task with what it chooses on the validation predictions of the present weights, such as thresholds."""
        task = self.job.task
        if not task.chooses:
            return task
        logits = [trainer.logits(inputs)[self.primary] for trainer, inputs, _ in self._validation]
        return task.chosen([truth for *_, truth in self._validation], [task.link(value) for value in logits])

    def restore(self, states: Sequence[Mapping[str, Any]], history: Sequence[Record]) -> None:
        """Restores the state of a checkpoint. The epochs after it equal those of an uninterrupted run.

        Args:
            states: `FoldTrainer.state` of each fold.
            history: the records of the finished epochs.
        """
        for trainer, tensors in zip(self.trainers, states, strict=True):
            trainer.load_state(tensors)
        self.history = list(history)
        self._new_schedule()
        if self._validation:
            self.schedule.catch_up(self._last(self.metric, len(self.history)))
