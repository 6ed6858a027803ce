"""The only training loop: k models, one per fold, trained in lockstep so that their mean can be watched.

A single model is the case k = 1; a refit is the case k = 1 without a validation part.
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
from m3col.training.fold_trainer import FoldTrainer
from m3col.training.history import Best, Record, TrainingJob
from m3col.training.schedule import Schedule


class LockstepTrainer:
    """Folds in lockstep. `advance` is the loop; `history` has one Record per finished epoch.

    Of several `ranks` each runs the same loop on its share of every batch, and all come to the same records.
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
                fold=job.fold_offset + number,
                ranks=ranks,
            )
            for number, fold in enumerate(job.folds)
        ]
        self._validation = [
            (trainer, trainer.prepare(part.inputs, part.present), np.asarray(part.labels))
            for trainer, part in zip(self.trainers, self._parts(), strict=True)
            if len(part)
        ]
        self._test_inputs = None if job.test_inputs is None else self.trainers[0].prepare(job.test_inputs)
        self._new_schedule()

    def _parts(self) -> list[Split]:
        return [self.job.pool.take(fold.validation) for fold in self.job.folds]

    def _new_schedule(self) -> None:
        self.schedule = Schedule(
            self.config.train, higher_is_better=higher_is_better(self.metric), replay=self.job.rates
        )

    @property
    def primary(self) -> str:
        """The output that is scored."""
        name = self.trainers[0].method.primary_output
        assert name is not None, "a method without outputs cannot be validated"
        return name

    @property
    def epoch(self) -> int:
        return len(self.history)

    @property
    def done(self) -> bool:
        return self.epoch >= self.config.train.epochs

    def advance(self, until: int, *, after_epoch: Callable[[Record], None] = lambda record: None) -> list[Record]:
        """Trains all folds up to epoch `until`; `after_epoch` sees each record when its epoch is complete.

        Raises TrainingFailed where a loss or the watched metric is not finite.
        """
        first = self.epoch
        while self.epoch < min(until, self.config.train.epochs):
            epoch = self.epoch + 1
            rate = self.schedule.rate(epoch)
            parts = [trainer.train_epoch(epoch, learning_rate=rate) for trainer in self.trainers]
            found = {f"train/{name}": float(np.mean([p[name] for p in parts])) for name in parts[0]}
            found["train/learning_rate"] = rate
            found |= self._validate()
            record = Record(epoch, time.time(), self._smoothed(found), found)
            self.history.append(record)
            if record.value is not None:
                self.schedule.observe(found[self.metric])
                self._keep_best(epoch, found[self.metric])
            self._predict_test_inputs(epoch)
            if self.done and self.best is not None:
                self._return_to_best(self.best)
            after_epoch(record)
        return self.history[first:]

    def _keep_best(self, epoch: int, score: float) -> None:
        sign = 1 if higher_is_better(self.metric) else -1
        if self.job.keep_best and (self.best is None or sign * score > sign * self.best.score):
            weights = [{k: v.detach().clone() for k, v in t.method.state_dict().items()} for t in self.trainers]
            self.best = Best(epoch, score, weights)

    def _return_to_best(self, best: Best) -> None:
        for trainer, weights in zip(self.trainers, best.weights, strict=True):
            trainer.method.load_state_dict(weights)

    def _validate(self) -> dict[str, float]:
        if not self._validation:
            return {}
        task = self.job.task
        logits = [trainer.logits(inputs) for trainer, inputs, _ in self._validation]
        labels = [truth for _, _, truth in self._validation]
        heads = [task.output_metrics(value, truth, self.primary) for value, truth in zip(logits, labels, strict=True)]
        found = {f"val/{name}": float(np.mean([head[name] for head in heads])) for name in heads[0]}
        scores = task.cross_validated(labels, [task.link(value[self.primary]) for value in logits])
        found |= {f"val/{name}": value for name, value in scores.items()}
        if self.metric not in found or not math.isfinite(found[self.metric]):
            raise TrainingFailed(f"{self.metric} is {found.get(self.metric)} in epoch {self.epoch + 1}")
        return found

    def _smoothed(self, latest: Mapping[str, float]) -> float | None:
        if not self._validation:
            return None
        recent = [record.metrics[self.metric] for record in self.history[1 - window(self.config.train.epochs) :]]
        recent = recent if window(self.config.train.epochs) > 1 else []
        return float(np.mean([*recent, latest[self.metric]]))

    def smoothed_loss(self) -> float:
        """The validation loss over the same window as the value: it decides between equal values."""
        return float(np.mean([r.metrics["val/loss"] for r in self.history[-window(self.config.train.epochs) :]]))

    def _predict_test_inputs(self, epoch: int) -> None:
        every = self.job.predict_test_every
        if self._test_inputs is not None and every and (epoch % every == 0 or self.done):
            self.test_logits[epoch] = self.trainers[0].logits(self._test_inputs)[self.primary]

    def out_of_fold(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows in the pool [n], fold numbers [n] and fused logits [n, C] of the validation parts."""
        rows, folds, logits = [], [], []
        for number, (fold, (trainer, inputs, _)) in enumerate(zip(self.job.folds, self._validation, strict=True)):
            rows.append(fold.validation)
            folds.append(np.full(len(fold.validation), number))
            logits.append(trainer.logits(inputs)[self.primary])
        return np.concatenate(rows), np.concatenate(folds), np.concatenate(logits)

    def restore(self, states: Sequence[Mapping[str, Any]], history: Sequence[Record]) -> None:
        """Continues where a checkpoint stood; everything after it equals the unbroken run."""
        for trainer, tensors in zip(self.trainers, states, strict=True):
            trainer.load_state(tensors)
        self.history = list(history)
        self._new_schedule()
        if self._validation:
            self.schedule.catch_up([record.metrics[self.metric] for record in self.history])
