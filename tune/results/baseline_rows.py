"""Predictions of the baselines, which need no training of networks, for the test table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from m3col.config.schema import RunConfig
from m3col.data.checks import naming
from m3col.data.dataset import Dataset, Split
from m3col.data.splits import Fold
from m3col.evaluation import linear_features
from m3col.metrics import spec
from m3col.tasks import registry as tasks
from m3col.tasks.base import Task
from tune.results.prediction_table import BASELINES, cross_validated, declared, prediction_frame


def baseline_predictions(run: RunConfig, dataset: Dataset, samples: Split, folds: list[Fold]) -> Iterator[pd.DataFrame]:
    """Yields predictions of the task's constant baseline and of its linear model, e.g. `majority` and `logistic`.

    Args:
        run: the config of the study's runs.
        dataset: the data. Models fitted on its training split predict its test split, if it has one.
        samples: the development pool.
        folds: indices into `samples`.

    Yields:
        The rows of one baseline and fold, or test split. Baselines are `majority`, `logistic`, with pretrained text
        encoders `logistic frozen` (on their embeddings), and `logistic <modality>` for the best single modality on
        these folds.
    """
    task = tasks.of(run, dataset.classes)
    fitter = _Fitter(linear_features.Views(run, dataset.features), dataset, samples, folds, task)
    modalities, linear = list(dataset.modalities), task.linear_baseline
    frozen = f"{linear} frozen"
    yield from fitter.rows(task.constant_baseline, ())
    yield from fitter.rows(linear, modalities)
    if linear_features.frozen_differs(run, dataset.kinds.values()):
        yield from fitter.rows(frozen, modalities, frozen=True)
    if len(modalities) < 2:
        return
    metric = declared(run, task)
    sign = 1 if spec.higher_is_better(metric) else -1
    scores = {}
    for modality in modalities:
        parts = [fitter.fold_rows("", [modality], fold, number) for number, fold in enumerate(folds)]
        scores[modality] = sign * cross_validated(pd.concat(parts), task)[metric]
    best = max(scores, key=lambda name: scores[name])
    yield from fitter.rows(naming.apart(f"{linear} {best}", [frozen]), [best])


@dataclass(frozen=True)
class _Fitter:
    """Fits baselines on training folds and predicts the validation folds and the test split."""

    views: linear_features.Views
    dataset: Dataset
    samples: Split
    folds: Sequence[Fold]
    task: Task

    def rows(self, row: str, modalities: Sequence[str], *, frozen: bool = False) -> Iterator[pd.DataFrame]:
        """Yields out-of-fold predictions per fold, then test predictions. No modalities: the constant baseline."""
        for number, fold in enumerate(self.folds):
            yield self.fold_rows(row, modalities, fold, number, frozen=frozen)
        if self.dataset.test is not None:
            outputs = self._fit(modalities, self.dataset.train, self.dataset.test, frozen=frozen)
            yield prediction_frame(f"{BASELINES}{row}", self.dataset.test, outputs, self.task, test=True)

    def fold_rows(
        self, row: str, modalities: Sequence[str], fold: Fold, number: int, *, frozen: bool = False
    ) -> pd.DataFrame:
        """Predictions of the validation samples of one fold."""
        validation = self.samples.take(fold.validation)
        outputs = self._fit(modalities, self.samples.take(fold.train), validation, frozen=frozen)
        return prediction_frame(f"{BASELINES}{row}", validation, outputs, self.task, fold=number, test=False)

    def _fit(self, modalities: Sequence[str], train: Split, apply: Split, *, frozen: bool) -> np.ndarray:
        """Fits on `train`. Returns outputs [N, C] for `apply`."""
        assert train.labels is not None
        if not modalities:
            return self.task.inverse_link(self.task.constant(train.labels, len(apply)))
        pairs = [self.views.of(name, train, apply, frozen=frozen) for name in modalities]
        x_train, x_apply = (linear_features.concatenate(parts) for parts in zip(*pairs, strict=True))
        return self.task.inverse_link(self.task.linear(x_train, train.labels, x_apply))
