"""Numbers to be predicted: the squared error on targets that are standardised on the training fold.

Labels are floats [N, K], the targets, in whatever units. Letters: N samples (of the global batch in training), n of
them on this rank, K targets; mu_k and sd_k are mean and standard deviation of target k in the training fold.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from m3col.evaluation import label_baselines, linear_evaluation, published_probes, stacking
from m3col.evaluation.linear_evaluation import LinearModel
from m3col.evaluation.stacking import StackedWeights
from m3col.metrics import regression
from m3col.tasks.base import Floats, Mixed, Predictions, Samples, Task, full_precision

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

_BINS = 10

_PER_BIN = 5  # with fewer samples than 5 for each bin there are fewer bins


class Regression(Task):
    """One or several numbers for each sample.

    Heads compute (y_k - mu_k) / sd_k; predictions and metrics are in the units of the targets.

    Attributes:
        mean: mu [K]; 0 before `fitted`.
        scale: sd [K]; 1 before `fitted`, and for a target that is the same in the whole training fold.
    """

    name = "regression"
    loss_name = "nmse"
    loss_metric = "mse"
    output_score = "r2"
    constant_baseline = "mean"
    linear_baseline = "ridge"
    estimates = "numbers"
    label_form = "number"
    outputs_called = "targets"
    probabilities = False
    exact_strata = False
    model_type = "regressor"

    def __init__(self, classes: Sequence[str], *, threshold: float | str | None = None) -> None:
        super().__init__(classes, threshold=threshold)
        self.mean: Floats = np.zeros(self.width)
        self.scale: Floats = np.ones(self.width)

    def fitted(self, labels: NDArray[Any]) -> Self:
        """The task with mean and standard deviation of the targets of a training fold."""
        targets = np.asarray(labels, dtype=np.float64)
        deviation = targets.std(axis=0)
        varies = (targets.max(axis=0) > targets.min(axis=0)) & (deviation > 0)
        return self.restored({"mean": targets.mean(axis=0), "scale": np.where(varies, deviation, 1.0)})

    def state(self) -> dict[str, Floats]:
        return {"mean": self.mean, "scale": self.scale}

    def restored(self, state: Mapping[str, NDArray[Any]]) -> Self:
        task = type(self)(self.classes)
        task.mean, task.scale = np.asarray(state["mean"]), np.asarray(state["scale"])
        return task

    def unscaled(self, outputs: Floats) -> Floats:
        return outputs * self.scale + self.mean

    def targets(self, labels: NDArray[Any]) -> "Tensor":
        """Standardised targets [N, K] in float64: a mean that is large beside the deviation costs no digits."""
        import torch

        return torch.as_tensor((np.asarray(labels, dtype=np.float64) - self.mean) / self.scale)

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
        """Squared error of standardised targets, averaged over samples and targets, see `Task.loss`.

        Of mixed samples it is lambda times the error to the own target plus 1 - lambda times that to the partner's. Its
        gradient is that of the squared error to the mixed target; the values differ by a constant.
        """
        values = full_precision(outputs)
        aims = targets.to(values.dtype)
        errors = ((values - aims[rows]) ** 2).mean(dim=1)
        if mixed is not None:
            lam = mixed.lam[rows].to(values.dtype)
            errors = lam * errors + (1 - lam) * ((values - aims[mixed.partner][rows]) ** 2).mean(dim=1)
        return errors.sum() * (scale / len(targets))

    def class_weight_fault(self, setting: str | Sequence[float]) -> str:
        if setting == "none":
            return ""
        return f"objective.class_weight is for classes, but task {self.name!r} has none; nearest: none"

    def link(self, outputs: ArrayLike) -> Floats:
        """The outputs themselves."""
        return np.asarray(outputs, dtype=np.float64)

    def inverse_link(self, predictions: Floats) -> Floats:
        return predictions

    def decide(self, predictions: ArrayLike) -> Floats:
        return np.asarray(predictions, dtype=np.float64)

    def answers(self, predictions: ArrayLike) -> NDArray[Any]:
        return self.decide(predictions)

    def answer_columns(self, predictions: Predictions, primary: str) -> dict[str, NDArray[Any]]:
        """`<target>` for each target, and `vote(<output>) <target>` for each output that is not primary."""
        columns = dict(zip(self.classes, predictions[primary].T, strict=True))
        for output, values in predictions.items():
            if output != primary:
                columns |= {f"vote({output}) {name}": values[:, at] for at, name in enumerate(self.classes)}
        return columns

    def figures(self, labels: NDArray[Any], predictions: Floats) -> "dict[str, Figure]":
        """Predicted over true values of each target."""
        from m3col.plots import label_plots  # it needs matplotlib

        drawn = label_plots.predicted_against_true(labels, predictions, self.classes)
        return {"predicted_against_true": drawn}

    @property
    def metrics(self) -> tuple[str, ...]:
        return regression.NAMES

    @property
    def default_metric(self) -> str:
        return regression.DEFAULT

    def scores(self, labels: ArrayLike, predictions: ArrayLike) -> dict[str, float]:
        return regression.compute(labels, predictions)

    def cross_validated(self, labels: Sequence[ArrayLike], predictions: Sequence[ArrayLike]) -> dict[str, float]:
        return regression.cross_validated(labels, predictions)

    def score(self, metric: str, labels: ArrayLike, predictions: ArrayLike) -> float:
        regression.require(metric)
        return self.scores(labels, predictions)[metric]

    def bootstrap_scores(self, metric: str, labels: ArrayLike, predictions: ArrayLike, counts: ArrayLike) -> Floats:
        return regression.bootstrap_scores(metric, labels, predictions, counts)

    def output_loss(self, outputs: Floats, labels: NDArray[Any]) -> float:
        """The squared error on standardised targets."""
        return float((((outputs - labels) / self.scale) ** 2).mean())

    def strata(self, labels: ArrayLike) -> NDArray[np.int64]:
        """Quantile bins of the target; of several targets, of the mean of the standardised ones. At most 10 bins."""
        targets = np.asarray(labels, dtype=np.float64)
        spread = targets.std(axis=0)
        place = ((targets - targets.mean(axis=0)) / np.where(spread > 0, spread, 1.0)).mean(axis=1)
        count = max(1, min(_BINS, len(targets) // _PER_BIN))
        rank = np.empty(len(place), dtype=np.int64)
        rank[np.argsort(place, kind="stable")] = np.arange(len(place))
        return rank * count // max(len(place), 1)

    def bootstrap_strata(self, labels: ArrayLike) -> NDArray[np.int64]:
        """One stratum: drawing within bins would hide how much the error depends on which targets were drawn."""
        return np.zeros(len(np.asarray(labels)), dtype=np.int64)

    @property
    def num_strata(self) -> int:
        return _BINS

    def stratum(self, number: int) -> str:
        return f"quantile bin {number + 1} of the targets"

    def constant(self, labels: ArrayLike, count: int) -> Floats:
        return label_baselines.mean(labels, count)

    def linear(self, x_train: Any, labels: ArrayLike, x_apply: Any, *, cost: float = 1.0) -> Floats:
        return label_baselines.ridge(x_train, labels, x_apply, cost=cost)

    def linear_model(self, x: Floats, labels: NDArray[Any], *, weight: Floats | None, seed: int) -> LinearModel:
        # As in training, the outputs are those of standardised targets.
        return linear_evaluation.ridge(x, self.targets(labels).double().numpy(), seed=seed)

    def stacked(self, heads: Floats, labels: NDArray[Any], *, weight: Floats | None) -> StackedWeights:
        return stacking.targets(heads, self.targets(labels).double().numpy())

    def published_probes(self, train: Samples, validation: Samples | None) -> dict[str, list[LinearModel]]:
        return {"ridge": published_probes.ridge(train if validation is None else train.joined(validation))}

    @property
    def columns(self) -> tuple[str, ...]:
        """`target_0` to `target_<K-1>` (NaN where they are withheld), and `output_0` to `output_<K-1>`."""
        return (*self._of("target"), *self._of("output"))

    def _of(self, what: str) -> list[str]:
        return [f"{what}_{number}" for number in range(self.width)]

    def to_columns(self, labels: NDArray[Any] | None, outputs: Floats) -> dict[str, Any]:
        known = np.full(outputs.shape, np.nan) if labels is None else np.asarray(labels, dtype=np.float64)
        return dict(zip(self.columns, [*known.T, *np.asarray(outputs, dtype=np.float64).T], strict=True))

    def labels_of(self, rows: pd.DataFrame) -> Floats | None:
        targets = rows[self._of("target")].to_numpy(dtype=np.float64)
        return None if np.isnan(targets).any() else targets

    def outputs_of(self, rows: pd.DataFrame) -> Floats:
        return rows[self._of("output")].to_numpy(dtype=np.float64)
