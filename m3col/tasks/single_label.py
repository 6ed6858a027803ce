"""Single-label classification: cross-entropy, softmax, and the most probable class.

Labels are integers 0..C-1. Letters: N samples (of the global batch in training), n of them on this rank, C classes.
Paper: Kumar et al., arXiv 2409.17777, Eq. 14 and 15 (`loss`).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from m3col.evaluation import baselines, linear_evaluation, published_probes, stacking
from m3col.evaluation.linear_evaluation import LinearModel
from m3col.evaluation.stacking import StackedWeights
from m3col.metrics import classification, intervals
from m3col.tasks.base import Floats, Mixed, Predictions, Samples, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

_WITHHELD = -1

_SMALLEST = 1e-300  # the logarithm of a probability of 0 stays finite


class SingleLabel(Task):
    """Exactly one class for each sample."""

    name = "single_label"
    loss_name = "ce"
    loss_metric = "log_loss"
    output_score = "accuracy"
    constant_baseline = "majority"
    linear_baseline = "logistic"
    estimates = "classes"

    def targets(self, labels: NDArray[Any]) -> "Tensor":
        import torch

        return torch.as_tensor(np.array(labels))

    def loss(
        self,
        outputs: "Tensor",
        targets: "Tensor",
        *,
        rows: slice,
        scale: float = 1.0,
        weight: "Tensor | None" = None,
        mixed: Mixed | None = None,
    ) -> "Tensor":
        """Cross-entropy, see `Task.loss`.

        The weight of a sample is that of its class, as in torch. The weight of a mixed sample is lambda times the
        weight of its own class plus 1 - lambda times that of its partner's class.
        """
        from torch.nn.functional import cross_entropy

        total: Tensor | int = len(targets)
        if mixed is None:
            if weight is not None:
                total = nonzero(weight[targets].sum())
            return cross_entropy(outputs, targets[rows], weight=weight, reduction="sum") * (scale / total)
        partner, lam = targets[mixed.partner], mixed.lam
        own_loss = cross_entropy(outputs, targets[rows], weight=weight, reduction="none")
        partner_loss = cross_entropy(outputs, partner[rows], weight=weight, reduction="none")
        if weight is not None:
            total = nonzero((lam * weight[targets] + (1 - lam) * weight[partner]).sum())
        return (lam[rows] * own_loss + (1 - lam[rows]) * partner_loss).sum() * (scale / total)

    def averaged(self, outputs: "Tensor", weights: "Tensor") -> "Tensor":
        """The logarithm of the mean probabilities."""
        return (outputs.log_softmax(dim=2) + weights.log()).logsumexp(dim=0)

    def comparable(self, outputs: "Tensor") -> "Tensor":
        """Log-probabilities."""
        return outputs.log_softmax(dim=2)

    def class_weights(self, setting: str | Sequence[float], labels: NDArray[Any]) -> Floats | None:
        """See `Task.class_weights`. "balanced": N / (C * count); a list: these weights."""
        if setting == "none":
            return None
        if setting == "balanced":
            counts = np.bincount(labels, minlength=self.width)
            balanced: Floats = len(labels) / (self.width * np.maximum(counts, 1))
            return balanced
        return np.asarray(setting, dtype=np.float64)

    def relative_weight(self, part: "Tensor", whole: "Tensor", weight: "Tensor") -> float:
        return float(weight[part].mean() / nonzero(weight[whole].mean()))

    def link(self, outputs: ArrayLike) -> Floats:
        return classification.softmax(outputs)

    def inverse_link(self, predictions: Floats) -> Floats:
        logits: Floats = np.log(np.maximum(predictions, _SMALLEST))
        return logits

    def decide(self, predictions: ArrayLike) -> NDArray[np.int64]:
        """The numbers [N] of the most probable classes, the first one in a tie. Also works for logits."""
        return np.asarray(predictions).argmax(axis=-1)

    def answers(self, predictions: ArrayLike) -> NDArray[Any]:
        return np.asarray(self.classes)[self.decide(predictions)]

    def answer_columns(self, predictions: Predictions, primary: str) -> dict[str, NDArray[Any]]:
        """`label`, `p(<class>)` for each class, and `vote(<output>)`, the label of each output that is not primary."""
        columns: dict[str, NDArray[Any]] = {"label": self.answers(predictions[primary])}
        columns |= {f"p({name})": predictions[primary][:, number] for number, name in enumerate(self.classes)}
        return columns | {f"vote({name})": self.answers(p) for name, p in predictions.items() if name != primary}

    def figures(self, labels: NDArray[Any], predictions: Floats) -> "dict[str, Figure]":
        """The confusion matrix and the reliability diagram."""
        from m3col.plots import model_plots  # it needs matplotlib

        return {
            "confusion_matrix": model_plots.confusion_matrix(labels, predictions, self.classes),
            "reliability": model_plots.reliability(labels, predictions),
        }

    @property
    def metrics(self) -> tuple[str, ...]:
        return classification.names(self.width)

    @property
    def default_metric(self) -> str:
        return classification.default(self.width)

    def scores(self, labels: ArrayLike, predictions: ArrayLike) -> dict[str, float]:
        return classification.compute(labels, predictions)

    def cross_validated(self, labels: Sequence[ArrayLike], predictions: Sequence[ArrayLike]) -> dict[str, float]:
        return classification.cross_validated(labels, predictions)

    def score(self, metric: str, labels: ArrayLike, predictions: ArrayLike) -> float:
        return classification.score(metric, labels, predictions)

    def bootstrap_scores(self, metric: str, labels: ArrayLike, predictions: ArrayLike, counts: ArrayLike) -> Floats:
        return intervals.bootstrap_scores(metric, labels, predictions, counts)

    def output_loss(self, outputs: Floats, labels: NDArray[Any]) -> float:
        """The cross-entropy."""
        picked = self.link(outputs)[np.arange(len(labels)), labels]
        return float(-np.log(np.maximum(picked, np.finfo(float).tiny)).mean())

    def score_output(self, predictions: Floats, labels: NDArray[Any]) -> float:
        return float((self.decide(predictions) == labels).mean())

    def strata(self, labels: ArrayLike) -> NDArray[np.int64]:
        return np.asarray(labels)

    @property
    def num_strata(self) -> int:
        return self.width

    def stratum(self, number: int) -> str:
        return f"class {number} ({self.classes[number]})"

    def constant(self, labels: ArrayLike, count: int) -> Floats:
        return baselines.majority(labels, count, num_classes=self.width)

    def linear(self, x_train: Any, labels: ArrayLike, x_apply: Any, *, cost: float = 1.0) -> Floats:
        return baselines.logistic(x_train, labels, x_apply, num_classes=self.width, cost=cost)

    def linear_model(self, x: Floats, labels: NDArray[Any], *, weight: Floats | None, seed: int) -> LinearModel:
        return linear_evaluation.logistic(x, labels, num_classes=self.width, class_weight=weight, seed=seed)

    def stacked(self, heads: Floats, labels: NDArray[Any], *, weight: Floats | None) -> StackedWeights:
        return stacking.classes(heads, labels, class_weight=weight)

    def published_probes(self, train: Samples, validation: Samples | None) -> dict[str, list[LinearModel]]:
        parts = published_probes.divided(train, validation, self.strata(train.labels), needs_all=True)
        probes = {
            "grid": None if parts is None else published_probes.grid(*parts, num_classes=self.width),
            "notebook": published_probes.notebook(train, num_classes=self.width),
        }
        return {name: [model] for name, model in probes.items() if model is not None}

    @property
    def columns(self) -> tuple[str, ...]:
        """`label` (-1 where it is withheld) and `logit_0` to `logit_<C-1>`."""
        return ("label", *self._logits)

    @property
    def _logits(self) -> list[str]:
        return [f"logit_{number}" for number in range(self.width)]

    def to_columns(self, labels: NDArray[Any] | None, outputs: Floats) -> dict[str, Any]:
        logits = {name: outputs[:, number].astype(np.float64) for number, name in enumerate(self._logits)}
        return {"label": _WITHHELD if labels is None else labels, **logits}

    def labels_of(self, rows: pd.DataFrame) -> NDArray[np.int64] | None:
        labels = rows["label"].to_numpy(dtype=np.int64)
        return labels if (labels >= 0).all() else None

    def outputs_of(self, rows: pd.DataFrame) -> Floats:
        return rows[self._logits].to_numpy(dtype=np.float64)


def nonzero(weights: "Tensor") -> "Tensor":
    """A sum or mean of class weights as a divisor: 1 in place of 0, where the dividend is 0 as well."""
    import torch

    return torch.where(weights > 0, weights, torch.ones_like(weights))
