"""A task that is none of this project's: K numbers for each sample. One class, one entry in each of two tables."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from m3col.metrics import spec
from m3col.tasks import registry
from m3col.tasks.base import LinearModel, Mixed, Predictions, Task

NAME = "toy_regression"


class ToyRegression(Task):
    """Float targets [N, K], the mean squared error, and no strata."""

    name = NAME
    loss_name = "mse"
    loss_metric = "mse"
    output_score = "mae"
    label_form = "number"
    constant_baseline = "mean"
    linear_baseline = "least squares"
    metrics = ("mse", "mae")
    default_metric = "mse"
    num_strata = 1

    def targets(self, labels: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.array(labels, dtype=np.float32))

    def loss(self, outputs, targets, *, rows, scale=1.0, weight=None, mixed: Mixed | None = None):
        errors = ((outputs - targets[rows]) ** 2).mean(dim=1)
        if mixed is not None:
            other = ((outputs - targets[mixed.partner][rows]) ** 2).mean(dim=1)
            errors = mixed.lam[rows] * errors + (1 - mixed.lam[rows]) * other
        return errors.sum() * (scale / len(targets))

    def link(self, outputs: Any) -> np.ndarray:
        return np.asarray(outputs, dtype=np.float64)

    def inverse_link(self, predictions: np.ndarray) -> np.ndarray:
        return predictions

    def decide(self, predictions: Any) -> np.ndarray:
        return np.asarray(predictions)

    def answers(self, predictions: Any) -> np.ndarray:
        return np.asarray(predictions)

    def answer_columns(self, predictions: Predictions, primary: str) -> dict[str, np.ndarray]:
        return {name: predictions[primary][:, number] for number, name in enumerate(self.classes)}

    def scores(self, labels, predictions) -> dict[str, float]:
        errors = np.asarray(labels) - np.asarray(predictions)
        return {"mse": float((errors**2).mean()), "mae": float(np.abs(errors).mean())}

    def cross_validated(self, labels: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
        return self.scores(np.concatenate(labels), np.concatenate(predictions))

    def score(self, metric: str, labels, predictions) -> float:
        return self.scores(labels, predictions)[metric]

    def bootstrap_scores(self, metric: str, labels, predictions, counts) -> np.ndarray:
        power = 2 if metric == "mse" else 1
        errors = (np.abs(np.asarray(labels) - np.asarray(predictions)) ** power).mean(axis=1)
        return counts @ errors / np.sum(counts, axis=1)

    def output_loss(self, outputs, labels) -> float:
        return self.score("mse", labels, outputs)

    def strata(self, labels: Any) -> np.ndarray:
        return np.zeros(len(labels), dtype=np.int64)

    def stratum(self, number: int) -> str:
        return "the data set"

    def constant(self, labels: Any, count: int) -> np.ndarray:
        return np.tile(np.mean(labels, axis=0), (count, 1))

    def linear(self, x_train: Any, labels: Any, x_apply: Any) -> np.ndarray:
        with_one = [np.column_stack([x, np.ones(len(x))]) for x in (x_train, x_apply)]
        return with_one[1] @ np.linalg.lstsq(with_one[0], labels)[0]

    def linear_model(self, x, labels, *, weight, seed) -> LinearModel:
        solved, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), np.asarray(labels), rcond=None)
        return LinearModel(solved[:-1].T, solved[-1], 1.0)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{what}_{k}" for what in ("target", "output") for k in range(self.width))

    def to_columns(self, labels: np.ndarray | None, outputs: np.ndarray) -> dict[str, Any]:
        known = np.full(outputs.shape, np.nan) if labels is None else labels
        return dict(zip(self.columns, np.column_stack([known, outputs]).T, strict=True))

    def labels_of(self, rows: pd.DataFrame) -> np.ndarray | None:
        found = rows[list(self.columns[: self.width])].to_numpy()
        return None if np.isnan(found).any() else found

    def outputs_of(self, rows: pd.DataFrame) -> np.ndarray:
        return rows[list(self.columns[self.width :])].to_numpy()


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two entries, for the duration of a test."""
    monkeypatch.setitem(registry.TABLE, NAME, f"{__name__}:ToyRegression")
    error = spec.MetricSpec("mse", higher_is_better=False, unit="", bounded=False, per_sample=True)
    monkeypatch.setitem(spec.TABLE, "mse", error)
