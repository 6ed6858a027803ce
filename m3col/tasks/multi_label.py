"""Several labels per sample, each present or absent: binary cross-entropy, sigmoid, and a threshold for each label.

Labels are [N, C] of 0 and 1. Letters: N samples (of the global batch in training), n of them on this rank, C labels.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from m3col.evaluation import label_baselines, linear_evaluation, published_probes, stacking
from m3col.evaluation.linear_evaluation import LinearModel
from m3col.evaluation.stacking import StackedWeights
from m3col.metrics import multilabel
from m3col.tasks.base import Floats, Mixed, Predictions, Samples, Task, full_precision

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

VALIDATION = "validation"  # the value of `threshold` for thresholds that are chosen on validation predictions

_WITHHELD = -1

_CLOSEST = 1e-16  # a probability of 0 or 1 is taken as this far from it, so that its logarithm is finite

_BETWEEN = "|"  # stands between the labels of one sample in a table


class MultiLabel(Task):
    """Any number of labels for each sample.

    Attributes:
        thresholds: [C], a label is predicted where its probability exceeds its threshold.
    """

    name = "multi_label"
    loss_name = "bce"
    loss_metric = "log_loss"
    output_score = "micro_f1"
    constant_baseline = "label frequencies"
    linear_baseline = "logistic"
    estimates = "labels"
    label_form = "binary"
    outputs_called = "labels"
    has_threshold = True
    exact_strata = False

    def __init__(self, classes: Sequence[str], *, threshold: float | str | None = None) -> None:
        super().__init__(classes, threshold=threshold)
        fixed = threshold if isinstance(threshold, float) else multilabel.HALF
        self.thresholds: Floats = np.full(self.width, fixed)

    @property
    def chooses(self) -> bool:
        return self.threshold == VALIDATION

    def chosen(self, labels: Sequence[ArrayLike], predictions: Sequence[ArrayLike]) -> Self:
        """With `threshold: validation`, the thresholds with the highest F1 of each label, over all folds together."""
        if not self.chooses or not len(labels):
            return self
        return self._with(multilabel.best_thresholds(np.concatenate(labels), np.concatenate(predictions)))

    def choices(self) -> dict[str, list[float]]:
        return {"thresholds": self.thresholds.tolist()} if self.chooses else {}

    def with_choices(self, choices: Mapping[str, Sequence[float]]) -> Self:
        return self._with(np.asarray(choices["thresholds"], dtype=np.float64)) if "thresholds" in choices else self

    def _with(self, thresholds: Floats) -> Self:
        task = type(self)(self.classes, threshold=self.threshold)
        task.thresholds = thresholds
        return task

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
        """Binary cross-entropy, averaged over samples and labels, see `Task.loss`.

        `weight` [C] multiplies the term of present labels, as `pos_weight` in torch: 3 counts each present label as
        three. A mean over weighted terms is not divided by their weight, as in torch.
        """
        from torch.nn.functional import binary_cross_entropy_with_logits

        values = full_precision(outputs)
        truth = targets.to(values.dtype)
        aim = truth[rows]
        if mixed is not None:  # the loss is linear in the target, so that mixed targets are mixed losses
            lam = mixed.lam[rows, None].to(values.dtype)
            aim = lam * aim + (1 - lam) * truth[mixed.partner][rows]
        weight = None if weight is None else weight.to(values.dtype)
        terms = binary_cross_entropy_with_logits(values, aim, pos_weight=weight, reduction="sum")
        return terms * (scale / (len(targets) * self.width))

    def averaged(self, outputs: "Tensor", weights: "Tensor") -> "Tensor":
        """The log-odds of the mean probabilities."""
        from torch.nn.functional import logsigmoid

        present, absent = ((logsigmoid(part) + weights.log()).logsumexp(dim=0) for part in (outputs, -outputs))
        return present - absent

    def class_weights(self, setting: str | Sequence[float], labels: NDArray[Any]) -> Floats | None:
        """Weights of present labels. "balanced": absent over present in the training fold; a list: these weights."""
        if setting == "none":
            return None
        if setting == "balanced":
            present = np.asarray(labels).sum(axis=0)
            balanced: Floats = (len(labels) - present) / np.maximum(present, 1)
            return balanced
        return np.asarray(setting, dtype=np.float64)

    def link(self, outputs: ArrayLike) -> Floats:
        """The sigmoid of each output."""
        values = np.asarray(outputs, dtype=np.float64)
        small = np.exp(-np.abs(values))
        probabilities: Floats = np.where(values < 0, small, 1.0) / (1 + small)
        return probabilities

    def inverse_link(self, predictions: Floats) -> Floats:
        inside = np.clip(predictions, _CLOSEST, 1 - _CLOSEST)
        logits: Floats = np.log(inside) - np.log1p(-inside)
        return logits

    def decide(self, predictions: ArrayLike) -> NDArray[np.int64]:
        """[N, C] of 0 and 1: whether the probability of a label exceeds its threshold."""
        return multilabel.decide(predictions, self.thresholds)

    def answers(self, predictions: ArrayLike) -> NDArray[Any]:
        return self.decide(predictions)

    def answer_columns(self, predictions: Predictions, primary: str) -> dict[str, NDArray[Any]]:
        """`labels`, the names of the predicted labels with `|` between them; `p(<label>)` for each label; and
        `vote(<output>)`, the labels of each output that is not primary."""
        columns: dict[str, NDArray[Any]] = {"labels": self._names(predictions[primary])}
        columns |= {f"p({name})": predictions[primary][:, number] for number, name in enumerate(self.classes)}
        return columns | {f"vote({name})": self._names(p) for name, p in predictions.items() if name != primary}

    def _names(self, predictions: Floats) -> NDArray[Any]:
        names = np.asarray(self.classes, dtype=object)
        rows = [_BETWEEN.join(names[decided == 1]) for decided in self.decide(predictions)]
        return np.array(rows, dtype=object)

    def figures(self, labels: NDArray[Any], predictions: Floats) -> "dict[str, Figure]":
        """F1 of each label."""
        from m3col.plots import label_plots  # it needs matplotlib

        return {"label_scores": label_plots.label_scores(labels, self.decide(predictions), self.classes)}

    @property
    def metrics(self) -> tuple[str, ...]:
        return multilabel.NAMES

    @property
    def default_metric(self) -> str:
        return multilabel.DEFAULT

    def scores(self, labels: ArrayLike, predictions: ArrayLike) -> dict[str, float]:
        return multilabel.compute(labels, predictions, self.thresholds)

    def cross_validated(self, labels: Sequence[ArrayLike], predictions: Sequence[ArrayLike]) -> dict[str, float]:
        """See `m3col.metrics.multilabel.cross_validated`: no sample chooses its own threshold."""
        return multilabel.cross_validated(labels, predictions, tune=self.chooses, thresholds=self.thresholds)

    def score(self, metric: str, labels: ArrayLike, predictions: ArrayLike) -> float:
        multilabel.require(metric)
        return self.scores(labels, predictions)[metric]

    def bootstrap_scores(self, metric: str, labels: ArrayLike, predictions: ArrayLike, counts: ArrayLike) -> Floats:
        return multilabel.bootstrap_scores(metric, labels, predictions, counts, self.thresholds)

    def output_loss(self, outputs: Floats, labels: NDArray[Any]) -> float:
        """The binary cross-entropy."""
        terms = np.maximum(outputs, 0) - outputs * labels + np.log1p(np.exp(-np.abs(outputs)))
        return float(terms.mean())

    def score_output(self, predictions: Floats, labels: NDArray[Any]) -> float:
        if not np.isfinite(predictions).all():
            return float("nan")
        decided = self.decide(predictions)
        return float(2 * (labels * decided).sum() / max(labels.sum() + decided.sum(), 1))

    def strata(self, labels: ArrayLike) -> NDArray[np.int64]:
        """The rarest label of each sample, so that each fold gets its share of every label; C for samples without."""
        truth = np.asarray(labels)
        count = np.where(truth == 1, truth.sum(axis=0), len(truth) + 1)
        rarest: NDArray[np.int64] = np.where(truth.any(axis=1), count.argmin(axis=1), self.width)
        return rarest

    def bootstrap_strata(self, labels: ArrayLike) -> NDArray[np.int64]:
        """One stratum: the labels of a sample are drawn together, so that no stratum keeps all their numbers."""
        return np.zeros(len(np.asarray(labels)), dtype=np.int64)

    @property
    def num_strata(self) -> int:
        return self.width + 1

    def stratum(self, number: int) -> str:
        return "no label" if number == self.width else f"label {self.classes[number]}"

    def constant(self, labels: ArrayLike, count: int) -> Floats:
        return label_baselines.frequencies(labels, count)

    def linear(self, x_train: Any, labels: ArrayLike, x_apply: Any, *, cost: float = 1.0) -> Floats:
        return label_baselines.logistic_per_label(x_train, labels, x_apply, cost=cost)

    def linear_model(self, x: Floats, labels: NDArray[Any], *, weight: Floats | None, seed: int) -> LinearModel:
        return linear_evaluation.one_per_label(x, labels, positive_weight=weight, seed=seed)

    def stacked(self, heads: Floats, labels: NDArray[Any], *, weight: Floats | None) -> StackedWeights:
        return stacking.labels_alone(heads, labels, positive_weight=weight)

    def published_probes(self, train: Samples, validation: Samples | None) -> dict[str, list[LinearModel]]:
        parts = published_probes.divided(train, validation, self.strata(train.labels))
        return {} if parts is None else {"grid": [published_probes.grid_per_label(*parts)]}

    @property
    def columns(self) -> tuple[str, ...]:
        """`label_0` to `label_<C-1>` (-1 where they are withheld), and `logit_0` to `logit_<C-1>`."""
        return (*self._of("label"), *self._of("logit"))

    def _of(self, what: str) -> list[str]:
        return [f"{what}_{number}" for number in range(self.width)]

    def to_columns(self, labels: NDArray[Any] | None, outputs: Floats) -> dict[str, Any]:
        known = np.full(outputs.shape, _WITHHELD, dtype=np.int64) if labels is None else np.asarray(labels)
        logits = np.asarray(outputs, dtype=np.float64)
        return dict(zip(self.columns, [*known.T, *logits.T], strict=True))

    def labels_of(self, rows: pd.DataFrame) -> NDArray[np.int64] | None:
        labels = rows[self._of("label")].to_numpy(dtype=np.int64)
        return labels if (labels >= 0).all() else None

    def outputs_of(self, rows: pd.DataFrame) -> Floats:
        return rows[self._of("logit")].to_numpy(dtype=np.float64)
