"""Linear evaluation of embeddings: a linear model on frozen embeddings of the training fold.

The model sees the training fold alone. Its regularisation is chosen on a part of that fold; it is then fitted to
all of it. Columns are standardised before the fit, and the result is given for the embeddings as they are.

Letters: N samples, F columns of the embeddings, C classes or labels, K numbers.
Paper: the linear evaluation of Dufumier et al., arXiv 2409.07402, section 4.
Differs: their published protocols choose the regularisation on validation or test samples and refit on both; they do
  not standardise.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3col.metrics.classification import Floats

COSTS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of scikit-learn: the inverse of the regularisation

_LEAST_DEVIATION = 1e-4  # of a column, as a share of its mean

_INNER_SHARE = 5  # one sample of so many chooses the regularisation

_MAX_ITERATIONS = 200


@dataclass(frozen=True)
class LinearModel:
    """Outputs of rows x [N, F] are x weight.T + bias.

    Attributes:
        weight: [C, F].
        bias: [C].
        cost: the chosen inverse of the regularisation.
    """

    weight: Floats
    bias: Floats
    cost: float

    def outputs(self, x: Floats) -> Floats:
        """Outputs [N, C] of rows [N, F]."""
        return np.asarray(x @ self.weight.T + self.bias)


def standardised(x: Floats) -> tuple[Floats, Floats, Floats]:
    """The columns of x [N, F] with mean 0 and deviation 1, the means [F] and the deviations [F], 1 for a constant."""
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    # Embeddings have the precision of the model: what varies by less is rounding, and would get huge weights.
    deviation = np.where(deviation > _LEAST_DEVIATION * np.abs(mean), deviation, 1.0)
    return (x - mean) / deviation, mean, deviation


def inner_split(strata: NDArray[np.int64], *, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the samples that fit and of those that choose the regularisation, drawn within strata.

    A stratum with one sample is among those that fit.
    """
    rng = np.random.default_rng(seed)
    choosing = [
        rng.permutation(members)[: max(len(members) // _INNER_SHARE, int(len(members) > 1))]
        for members in (np.flatnonzero(strata == value) for value in np.unique(strata))
    ]
    chosen = np.sort(np.concatenate(choosing))
    return np.setdiff1d(np.arange(len(strata)), chosen), chosen


def logistic(
    x: Floats,
    labels: NDArray[np.int64],
    *,
    num_classes: int,
    class_weight: Sequence[float] | Floats | None = None,
    seed: int = 0,
    costs: Sequence[float] = COSTS,
) -> LinearModel:
    """Fits a multinomial logistic regression with an L2 penalty.

    Args:
        x: [N, F] embeddings of the training fold.
        labels: [N] integers 0..C-1; a class without samples gets the output -1e4.
        num_classes: C.
        class_weight: [C] weights of the classes; None: all equal.
        seed: of the inner split.
        costs: candidates for the inverse of the regularisation; the one with the best mean recall of the classes in
            the inner split is chosen, the smallest in a tie.

    Returns:
        The fitted model.
    """
    scaled, mean, deviation = standardised(np.asarray(x, dtype=np.float64))
    weights = None if class_weight is None else dict(enumerate(class_weight))
    fit, choose = inner_split(labels, seed=seed)
    cost = costs[0]
    if len(costs) > 1 and len(choose) and len(np.unique(labels[fit])) > 1:
        recalls = []
        for model in _path(scaled[fit], labels[fit], costs, weights):
            right = model.predict(scaled[choose]) == labels[choose]
            recalls.append(np.mean([right[labels[choose] == value].mean() for value in np.unique(labels[choose])]))
        cost = costs[int(np.argmax(recalls))]
    if len(np.unique(labels)) < 2:
        return _constant(labels, x.shape[1], num_classes, cost)
    *_, model = _path(scaled, labels, [c for c in costs if c <= cost], weights)
    return from_scikit(model, mean, deviation, num_classes, cost)


def one_per_label(
    x: Floats, labels: NDArray[np.int64], *, positive_weight: Floats | None = None, seed: int = 0
) -> LinearModel:
    """Fits a logistic regression for each of C labels, each with a regularisation of its own.

    Args:
        x: [N, F] embeddings of the training fold.
        labels: [N, C] of 0 and 1.
        positive_weight: [C] weights of the samples that have a label; None: 1.
        seed: of the inner splits.

    Returns:
        The model; output c is the logit of label c, and its `cost` the mean over the labels.
    """
    weights = np.ones(labels.shape[1]) if positive_weight is None else positive_weight
    models = [
        logistic(x, column, num_classes=2, class_weight=[1.0, float(weight)], seed=seed)
        for column, weight in zip(labels.T, weights, strict=True)
    ]
    return LinearModel(
        np.stack([model.weight[1] - model.weight[0] for model in models]),
        np.array([model.bias[1] - model.bias[0] for model in models]),
        float(np.mean([model.cost for model in models])),
    )


def ridge(x: Floats, targets: Floats, *, seed: int = 0, costs: Sequence[float] = COSTS) -> LinearModel:
    """Fits K numbers by linear regression with an L2 penalty.

    Args:
        x: [N, F] embeddings of the training fold.
        targets: [N, K].
        seed: of the inner split.
        costs: candidates for the inverse of the penalty; the one with the smallest mean squared error in the inner
            split is chosen, the smallest in a tie.

    Returns:
        The fitted model.
    """
    from sklearn.linear_model import Ridge  # slow to import

    scaled, mean, deviation = standardised(np.asarray(x, dtype=np.float64))
    fit, choose = inner_split(np.zeros(len(x), dtype=np.int64), seed=seed)
    cost = costs[0]
    if len(costs) > 1 and len(choose):
        errors = [
            np.mean((Ridge(alpha=1 / c).fit(scaled[fit], targets[fit]).predict(scaled[choose]) - targets[choose]) ** 2)
            for c in costs
        ]
        cost = costs[int(np.argmin(errors))]
    model = Ridge(alpha=1 / cost).fit(scaled, targets)
    weight = model.coef_.reshape(targets.shape[1], -1) / deviation
    return LinearModel(weight, np.atleast_1d(model.intercept_) - weight @ mean, cost)


def _path(x: Floats, labels: NDArray[np.int64], costs: Sequence[float], weights: dict[int, float] | None) -> Any:
    """A fitted model for each cost, from strong to weak regularisation; each fit starts from the one before."""
    from sklearn.exceptions import ConvergenceWarning  # scikit-learn is slow to import
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=_MAX_ITERATIONS, warm_start=True, class_weight=weights)
    for cost in costs:
        with warnings.catch_warnings():
            # A fit that ends early is a little more regularised, which the choice of the cost takes into account.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.set_params(C=cost).fit(x, labels)
        yield model


def from_scikit(model: Any, mean: Floats, deviation: Floats, num_classes: int, cost: float) -> LinearModel:
    """The model for embeddings that are not standardised, with one output per class.

    Args:
        model: a fitted LogisticRegression of embeddings with `mean` subtracted, divided by `deviation`.
        mean: [F].
        deviation: [F].
        num_classes: C; classes that the model has not seen are among them.
        cost: the inverse of its regularisation.
    """
    weight, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn has one output for two classes
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / deviation
    bias = bias - weight @ mean
    return with_absent_classes(weight, bias, model.classes_, num_classes, cost)


def with_absent_classes(weight: Floats, bias: Floats, classes: Any, num_classes: int, cost: float) -> LinearModel:
    """Adds outputs for classes without samples. Their output is -1e4, so that they are not predicted."""
    full_weight, full_bias = np.zeros((num_classes, weight.shape[1])), np.full(num_classes, -1e4)
    full_weight[classes], full_bias[classes] = weight, bias
    return LinearModel(full_weight, full_bias, cost)


def _constant(labels: NDArray[np.int64], columns: int, num_classes: int, cost: float) -> LinearModel:
    return with_absent_classes(np.zeros((1, columns)), np.zeros(1), labels[:1], num_classes, cost)
