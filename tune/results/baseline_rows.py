"""Predictions of the free baselines for the test table."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from m3col.config.schema import RunConfig
from m3col.data.checks import naming
from m3col.data.dataset import Dataset, Split
from m3col.data.splits import Fold
from m3col.evaluation import baselines, linear_features
from m3col.metrics import spec
from tune.results.prediction_table import BASELINES, cross_validated, declared, prediction_frame

_FROZEN = "logistic frozen"

_TINY = 1e-300  # the logarithm of a probability of 0 stays finite


def baseline_predictions(run: RunConfig, dataset: Dataset, samples: Split, folds: list[Fold]) -> Iterator[pd.DataFrame]:
    """Rows of `majority`, `logistic` and `logistic <modality>`, the modality that is best on these folds; `logistic
    frozen` with embeddings of texts, where their encoder comes with trained weights."""
    modalities = list(dataset.modalities)
    views = linear_features.Views(run, dataset.features)
    yield from _baseline("majority", None, views, dataset, samples, folds)
    yield from _baseline("logistic", modalities, views, dataset, samples, folds)
    if linear_features.frozen_differs(run, dataset.kinds.values()):
        yield from _baseline(_FROZEN, modalities, views, dataset, samples, folds)
    if len(modalities) < 2:
        return
    metric = declared(run, dataset.num_classes)
    sign = 1 if spec.higher_is_better(metric) else -1
    scores = {}
    for modality in modalities:
        parts = [_held_out("", [modality], views, dataset, samples, fold, k) for k, fold in enumerate(folds)]
        scores[modality] = sign * cross_validated(pd.concat(parts))[metric]
    best = max(scores, key=lambda name: scores[name])
    yield from _baseline(naming.apart(f"logistic {best}", [_FROZEN]), [best], views, dataset, samples, folds)


def _baseline(
    row: str,
    modalities: list[str] | None,
    views: linear_features.Views,
    dataset: Dataset,
    samples: Split,
    folds: list[Fold],
) -> Iterator[pd.DataFrame]:
    for number, fold in enumerate(folds):
        yield _held_out(row, modalities, views, dataset, samples, fold, number)
    if dataset.test is not None:
        logits = _fit(row, modalities, views, dataset, dataset.train, dataset.test)
        yield prediction_frame(f"{BASELINES}{row}", dataset.test, logits, test=True)


def _held_out(
    row: str,
    modalities: list[str] | None,
    views: linear_features.Views,
    dataset: Dataset,
    samples: Split,
    fold: Fold,
    number: int,
) -> pd.DataFrame:
    held = samples.take(fold.validation)
    logits = _fit(row, modalities, views, dataset, samples.take(fold.train), held)
    return prediction_frame(f"{BASELINES}{row}", held, logits, fold=number, test=False)


def _fit(
    row: str, modalities: list[str] | None, views: linear_features.Views, dataset: Dataset, train: Split, apply: Split
) -> np.ndarray:
    """Log probabilities [N, C] for `apply`; everything is fitted on `train`. No modalities: the majority."""
    assert train.labels is not None
    if modalities is None:
        found = baselines.majority(train.labels, len(apply), num_classes=dataset.num_classes)
    else:
        pairs = [views.of(name, train, apply, frozen=row == _FROZEN) for name in modalities]
        x_train, x_apply = (linear_features.beside(parts) for parts in zip(*pairs, strict=True))
        found = baselines.logistic(x_train, train.labels, x_apply, num_classes=dataset.num_classes)
    return np.log(np.maximum(found, _TINY))
