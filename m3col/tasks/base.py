"""Interface of a task: targets, the loss of a head, decisions, metrics, strata, baselines and stored predictions.

Training, prediction, splits, baselines and tables use this interface only, and no task in particular.

Letters: N samples (of the global batch in training), n of them on this rank, C outputs of each head.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from m3col.errors import InputError
from m3col.evaluation.linear_evaluation import LinearModel as LinearModel
from m3col.evaluation.published_probes import Samples as Samples
from m3col.evaluation.stacking import StackedWeights

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor  # checking a config needs a task, and need not wait for torch

Floats = NDArray[np.float64]

Predictions = Mapping[str, Floats]  # [N, C] by output of the method


@dataclass(frozen=True)
class Mixed:
    """Mixed targets: lambda times the target of a sample plus 1 - lambda times the target of its partner.

    Attributes:
        partner: [N] positions of the partners in the global batch.
        lam: [N] lambda.
    """

    partner: "Tensor"
    lam: "Tensor"


class Task(ABC):
    """A prediction task for one data set.

    Attributes:
        name: the value of the config key `task`.
        loss_name: the loss of the head `fused` is reported as `<loss_name>_fused`.
        loss_metric: the one of `metrics` that is nearest to the loss.
        output_score: the one of `metrics` that is reported of each output, as `<output_score>_<output>`.
        default_metric: the metric that ranks trials when the config names none, without a split.
        constant_baseline: row of a test table for a model that ignores its input, see `constant`.
        linear_baseline: row of a test table for a linear model, see `linear`.
        estimates: what the labels are to ready-made estimators (m3col.evaluation.estimators): "classes", "labels"
            (several per sample) or "numbers"; None: the test table has no rows of such estimators.
        label_form: the labels of a data set for this task: "class", "binary" or "number", see m3col.data.label_tables.
        outputs_called: what the C outputs are called in messages, such as "classes".
        probabilities: whether predictions are probabilities.
        has_threshold: whether the config key `threshold` applies.
        exact_strata: whether every stratum must occur in every fold. If not, strata are spread as evenly as they can.
        model_type: the type of a model in MLflow.
        classes: names of the C outputs of each head.
    """

    name: ClassVar[str]
    loss_name: ClassVar[str]
    loss_metric: ClassVar[str]
    output_score: ClassVar[str]
    constant_baseline: ClassVar[str]
    linear_baseline: ClassVar[str]
    estimates: ClassVar[str | None] = None
    label_form: ClassVar[str] = "class"
    outputs_called: ClassVar[str] = "classes"
    probabilities: ClassVar[bool] = True
    has_threshold: ClassVar[bool] = False
    exact_strata: ClassVar[bool] = True
    model_type: ClassVar[str] = "classifier"

    def __init__(self, classes: Sequence[str], *, threshold: "float | str | None" = None) -> None:
        """Builds the task of one data set.

        Args:
            classes: names of the C outputs of each head.
            threshold: the config key `threshold`; None, and for tasks without it: its default.
        """
        self.classes = tuple(classes)
        self.threshold = threshold

    @property
    def width(self) -> int:
        """C, the outputs of each head."""
        return len(self.classes)

    # What is fitted to labels, and chosen on validation predictions

    def fitted(self, labels: NDArray[Any]) -> Self:
        """The task with what its targets and outputs need to know of the labels of a training fold."""
        return self

    def state(self) -> dict[str, Floats]:
        """What `fitted` computed, by name. A checkpoint stores it with each model."""
        return {}

    def restored(self, state: Mapping[str, NDArray[Any]]) -> Self:
        """The task with a `state` from a checkpoint. Raises KeyError where it lacks a part."""
        return self

    def unscaled(self, outputs: Floats) -> Floats:
        """The outputs [N, C] of a head in the units of the labels. All methods below expect such outputs."""
        return outputs

    @property
    def chooses(self) -> bool:
        """Whether something is chosen on validation predictions, see `chosen`."""
        return False

    def chosen(self, labels: Sequence[ArrayLike], predictions: Sequence[ArrayLike]) -> Self:
        """The task with what it chooses on validation samples, such as thresholds.

        Args:
            labels: of the validation samples of each fold.
            predictions: [N_k, C] of each fold, by models that were not trained on these samples.
        """
        return self

    def choices(self) -> dict[str, list[float]]:
        """What `chosen` chose, by name. A checkpoint stores it once for all of its models."""
        return {}

    def with_choices(self, choices: Mapping[str, Sequence[float]]) -> Self:
        """The task with `choices` from a checkpoint."""
        return self

    # Training

    @abstractmethod
    def targets(self, labels: NDArray[Any]) -> "Tensor":
        """Converts the labels of a split to targets for `loss`, on the CPU."""

    @abstractmethod
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
        """The loss of one head, as this rank's part of the mean over the global batch.

        Args:
            outputs: [n, C] of this rank's rows.
            targets: [N, ...] of the global batch.
            rows: this rank's rows in the global batch.
            scale: factor of the result; with W ranks it is W, because their gradients are averaged.
            weight: [C] weights of the classes from `class_weights`; None: all equal.
            mixed: how targets are mixed; None: not at all.

        Returns:
            A scalar: the sum over this rank's rows, divided by the weight of the whole global batch, times `scale`.
        """

    def averaged(self, outputs: "Tensor", weights: "Tensor") -> "Tensor":
        """The outputs [n, C] whose `link` is the weighted mean of the predictions of M heads.

        This is their weighted mean, where predictions are the outputs themselves, as in a regression.

        Args:
            outputs: [M, n, C] of the heads.
            weights: [M, n, 1], >= 0, which add up to 1 over the heads.
        """
        return (outputs * weights).sum(dim=0)

    def comparable(self, outputs: "Tensor") -> "Tensor":
        """Outputs [K, n, C] of K heads on one scale, on which they can be added, such as log-probabilities."""
        return outputs

    def class_weights(self, setting: str | Sequence[float], labels: NDArray[Any]) -> Floats | None:
        """Weights [C] for `loss`.

        Args:
            setting: the config key `objective.class_weight`.
            labels: of the training fold.

        Returns:
            The weights; None for equal weights, as in every task without classes.
        """
        return None

    def class_weight_fault(self, setting: str | Sequence[float]) -> str:
        """Why `objective.class_weight` cannot have this value; "" if it can."""
        if isinstance(setting, str) or len(setting) == self.width:
            return ""
        rule = f"must have one weight for each of the {self.width} {self.outputs_called}"
        return f"objective.class_weight {rule}, but has {len(setting)}: {setting!r}"

    def relative_weight(self, part: "Tensor", whole: "Tensor", weight: "Tensor") -> float:
        """The mean class weight of the targets `part`, divided by that of `whole`, which contains them."""
        return 1.0

    # Predictions

    @abstractmethod
    def link(self, outputs: ArrayLike) -> Floats:
        """Predictions [N, C], such as probabilities, from outputs [N, C] of a head, in float64."""

    @abstractmethod
    def inverse_link(self, predictions: Floats) -> Floats:
        """Outputs whose `link` is `predictions`."""

    @abstractmethod
    def decide(self, predictions: ArrayLike) -> NDArray[Any]:
        """Converts predictions [N, C] to labels, in the form of the labels of a data set."""

    @abstractmethod
    def answers(self, predictions: ArrayLike) -> NDArray[Any]:
        """The return value of `Predictor.predict` for predictions [N, C], such as names of classes [N]."""

    @abstractmethod
    def answer_columns(self, predictions: Predictions, primary: str) -> dict[str, NDArray[Any]]:
        """Columns [N] of `Predictor.predict_table`. `primary`: the output whose prediction counts."""

    def figures(self, labels: NDArray[Any], predictions: Floats) -> "dict[str, Figure]":
        """Figures of a model on test samples, by file name without extension. A task may have none."""
        return {}

    # Metrics

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """The metrics of predictions, entries of `m3col.metrics.spec.TABLE`, in the order of reports."""

    @property
    @abstractmethod
    def default_metric(self) -> str: ...

    @abstractmethod
    def scores(self, labels: ArrayLike, predictions: ArrayLike) -> dict[str, float]:
        """Values of all `metrics`; NaN where one is undefined."""

    @abstractmethod
    def cross_validated(self, labels: Sequence[ArrayLike], predictions: Sequence[ArrayLike]) -> dict[str, float]:
        """Values of all `metrics` over the validation samples of k folds: labels and predictions [N_k, C] of each."""

    @abstractmethod
    def score(self, metric: str, labels: ArrayLike, predictions: ArrayLike) -> float:
        """The value of one of `metrics`. Raises InputError for any other name."""

    @abstractmethod
    def bootstrap_scores(self, metric: str, labels: ArrayLike, predictions: ArrayLike, counts: ArrayLike) -> Floats:
        """Values [B] of one of `metrics` on B bootstrap draws; `counts` [B, N] is how often a draw has each sample."""

    @abstractmethod
    def output_loss(self, outputs: Floats, labels: NDArray[Any]) -> float:
        """The loss of one output [N, C] on validation samples, as in training but without weights."""

    def score_output(self, predictions: Floats, labels: NDArray[Any]) -> float:
        """The metric `output_score` of predictions [N, C] of one output."""
        return self.score(self.output_score, labels, predictions)

    def output_metrics(self, outputs: Predictions, labels: NDArray[Any], primary: str) -> dict[str, float]:
        """Values that an epoch reports of each output, in addition to `metrics`.

        These are the loss of each output, their sum as "loss", and a score of each output that is not `primary`.

        Args:
            outputs: outputs [N, C] of the validation samples of one fold.
            labels: their labels.
            primary: the output whose prediction counts, for which `metrics` are reported.
        """
        values: dict[str, float] = {}
        for name, value in outputs.items():
            values[f"{self.loss_name}_{name}"] = self.output_loss(value, labels)
            if name != primary:
                values[f"{self.output_score}_{name}"] = self.score_output(self.link(value), labels)
        values["loss"] = sum(value for name, value in values.items() if name.startswith(f"{self.loss_name}_"))
        return values

    def output_metric_names(self, outputs: Sequence[str], primary: str) -> list[str]:
        """The names that `output_metrics` reports for these outputs."""
        scores = [f"{self.output_score}_{name}" for name in outputs if name != primary]
        return [*(f"{self.loss_name}_{name}" for name in outputs), *scores, "loss"]

    def test_metrics(self, predictions: Predictions, labels: NDArray[Any], primary: str) -> dict[str, float]:
        """Values that a test reports: `metrics` of the output `primary`, and a score of each other output."""
        others = {name: value for name, value in predictions.items() if name != primary}
        values = self.scores(labels, predictions[primary])
        return values | {f"{self.output_score}_{n}": self.score_output(value, labels) for n, value in others.items()}

    def test_metric(self, watched: str) -> str:
        """The main metric of a test table after a search that ranked by `watched` (without a split).

        It is the same one, or the nearest of `metrics`: that of single outputs, or that of losses.
        """
        if watched in self.metrics:
            return watched
        return self.output_score if watched.startswith(self.output_score) else self.loss_metric

    # Splits, and samples drawn with replacement

    @abstractmethod
    def strata(self, labels: ArrayLike) -> NDArray[np.int64]:
        """A stratum [N] in 0..num_strata-1 for each label. Splits draw within strata."""

    def bootstrap_strata(self, labels: ArrayLike) -> NDArray[np.int64]:
        """A stratum [N] for each label, within which bootstraps draw."""
        return self.strata(labels)

    @property
    @abstractmethod
    def num_strata(self) -> int: ...

    @abstractmethod
    def stratum(self, number: int) -> str:
        """The name of a stratum in messages."""

    # Baselines

    @abstractmethod
    def constant(self, labels: ArrayLike, count: int) -> Floats:
        """Predictions [count, C] of the constant baseline, fitted to training labels."""

    @abstractmethod
    def linear(self, x_train: Any, labels: ArrayLike, x_apply: Any, *, cost: float = 1.0) -> Floats:
        """Predictions [N, C] for the features `x_apply` [N, D] of a linear model fitted to `x_train` and `labels`.

        `cost` is the inverse of the regularisation. A task without `estimates` may leave it out.
        """

    @abstractmethod
    def linear_model(self, x: Floats, labels: NDArray[Any], *, weight: Floats | None, seed: int) -> LinearModel:
        """A linear model of embeddings, for the linear evaluation of methods without labels.

        Args:
            x: [N, F] embeddings of the training fold.
            labels: their labels.
            weight: what `class_weights` returned.
            seed: of the inner split that chooses the regularisation.

        Returns:
            The model; its outputs [N, C] go through `link`.
        """

    def stacked(self, heads: Floats, labels: NDArray[Any], *, weight: Floats | None) -> StackedWeights:
        """Weights of heads, fitted to samples that they were not trained on; not every task needs to have them.

        Args:
            heads: [K, N, C] what each head says, see `comparable`.
            labels: of the N samples.
            weight: what `class_weights` returned.

        Raises:
            InputError: the task has none.
        """
        raise InputError([f"objective.decision must not be 'stacked' for task {self.name!r}; nearest: 'mean_of_heads'"])

    def published_probes(self, train: Samples, validation: Samples | None) -> dict[str, list[LinearModel]]:
        """The linear evaluations of published code for this task, by name. No result of this project is one of them.

        Args:
            train: embeddings and labels of the training fold.
            validation: those of the validation split; None: there is none.

        Returns:
            By name the candidates among which the test split chooses, mostly one. Their outputs are in the units of the
            labels.
        """
        return {}

    # Stored predictions

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Columns of predictions.parquet for labels and outputs."""

    @abstractmethod
    def to_columns(self, labels: NDArray[Any] | None, outputs: Floats) -> dict[str, Any]:
        """The values of `columns` for outputs [N, C]. `labels`: None where the data set withholds them."""

    @abstractmethod
    def labels_of(self, rows: pd.DataFrame) -> NDArray[Any] | None:
        """The labels of rows with `columns`; None where any label is withheld."""

    @abstractmethod
    def outputs_of(self, rows: pd.DataFrame) -> Floats:
        """The outputs [N, C] of rows with `columns`."""


def full_precision(outputs: "Tensor") -> "Tensor":
    """Outputs for a loss: those in half precision, as autocast gives them, in float32."""
    return outputs.float() if outputs.dtype.itemsize < 4 else outputs
