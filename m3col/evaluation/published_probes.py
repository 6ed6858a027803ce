"""The linear evaluations of published code, for comparison with published values alone.

They choose the regularisation on samples that they are fitted to afterwards, or on the test split. Nothing of a search
uses them: not the sampler, the pruner, or the choice of a winner. For the linear evaluation of this project see
m3col.evaluation.linear_evaluation.

Letters: N samples, F columns of the embeddings, C classes or labels, K numbers.
Paper: Dufumier et al., arXiv 2409.07402, in the form of their code: the scripts (`grid`, `grid_per_label`, `ridge`) and
the notebooks (`notebook`). Columns are not standardised.
Differs: a finer search around the best cost, which the scripts have for some data sets, is left out. Fits are in
float64. For vision & touch the published validation part is the test split, to which the scripts fit as well; here
`ridge` chooses by the test split, but is fitted without it.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3col.evaluation.linear_evaluation import LinearModel, from_scikit, with_absent_classes
from m3col.metrics.classification import Floats

COSTS = tuple(10.0**exponent for exponent in range(-6, 7, 2))  # the inverse of the regularisation

NOTEBOOK_COSTS = (1e-4, 1e-2, 1.0, 1e2, 1e4)

_NOTEBOOK_FOLDS = 5

_ITERATIONS = 100

_CHOOSING = 0.4  # share of the training samples that choose the cost where there is no validation split

_SEED = 48


@dataclass(frozen=True)
class Samples:
    """Embeddings with their labels.

    Attributes:
        x: [N, F].
        labels: [N] classes, [N, C] of 0 and 1, or [N, K] numbers.
    """

    x: Floats
    labels: NDArray[Any]

    def take(self, rows: NDArray[np.int64]) -> "Samples":
        return Samples(self.x[rows], self.labels[rows])

    def joined(self, other: "Samples") -> "Samples":
        return Samples(np.concatenate([self.x, other.x]), np.concatenate([self.labels, other.labels]))


def divided(
    train: Samples, validation: Samples | None, strata: NDArray[np.int64], *, needs_all: bool = False
) -> tuple[Samples, Samples] | None:  # fmt: skip
    """The samples that are fitted, and those that choose the cost.

    Args:
        train: the training samples.
        validation: those of the validation split; None: there is none, and 40 % of the training samples, drawn within
            strata, take its place.
        strata: [N] of the training samples.
        needs_all: whether samples of every stratum must choose.

    Returns:
        Both parts; None where the training samples are too few to divide: none would choose the cost, or, with
        `needs_all`, none of a stratum, which has fewer than 3 samples.
    """
    if validation is not None:
        return train, validation
    rng = np.random.default_rng(_SEED)
    members = [rng.permutation(np.flatnonzero(strata == value)) for value in np.unique(strata)]
    chosen = [rows[: int(_CHOOSING * len(rows))] for rows in members]
    if not (all if needs_all else any)(len(rows) for rows in chosen):
        return None
    choosing = np.sort(np.concatenate(chosen))
    return train.take(np.setdiff1d(np.arange(len(strata)), choosing)), train.take(choosing)


def grid(fit: Samples, choose: Samples, *, num_classes: int) -> LinearModel:
    """Softmax regression whose cost has the best mean recall on `choose`; then fitted to both.

    Args:
        fit: samples that each cost is fitted to.
        choose: samples that choose the cost, the smallest in a tie.
        num_classes: C.

    Returns:
        The model of the chosen cost, fitted to all samples.
    """
    recalls = [mean_recall(softmax_regression(fit, cost, num_classes=num_classes), choose) for cost in COSTS]
    cost = COSTS[int(np.argmax(recalls))]
    return softmax_regression(fit.joined(choose), cost, num_classes=num_classes)


def softmax_regression(samples: Samples, cost: float, *, num_classes: int) -> LinearModel:
    """Minimises mean cross-entropy + (1 / cost) 0.5 |W|, where the norm of the weights W is not squared.

    One call of L-BFGS from zeros, with at most 100 iterations and a strong Wolfe line search; the bias is free.

    Args:
        samples: [N, F] and classes [N].
        cost: the inverse of the regularisation.
        num_classes: C.

    Returns:
        The model; a class without samples is an output like any other.
    """
    import torch  # the config of a task needs this module, and need not wait for torch

    x, labels = torch.as_tensor(samples.x, dtype=torch.float64), torch.as_tensor(np.array(samples.labels))
    weight = torch.zeros(num_classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weight.T + bias, labels) + 0.5 / cost * weight.norm()
        loss.backward()
        return loss.item()

    optimizer.step(closure)
    return LinearModel(weight.detach().numpy(), bias.detach().numpy(), cost)


def notebook(train: Samples, *, num_classes: int) -> LinearModel | None:
    """Logistic regression whose cost has the best mean recall in five folds of the training samples.

    Args:
        train: samples that it is fitted to; folds are stratified and not shuffled.
        num_classes: C.

    Returns:
        The model, fitted to all samples; None where a class has fewer samples than there are folds.
    """
    from sklearn.model_selection import StratifiedKFold  # slow to import

    counts = np.bincount(train.labels)
    if counts[counts > 0].min() < _NOTEBOOK_FOLDS or (counts > 0).sum() < 2:
        return None
    recalls = []
    for fit_rows, choose_rows in StratifiedKFold(_NOTEBOOK_FOLDS).split(train.x, train.labels):
        path = _path(train.take(fit_rows), NOTEBOOK_COSTS, num_classes)
        recalls.append([mean_recall(model, train.take(choose_rows)) for model in path])
    cost = NOTEBOOK_COSTS[int(np.argmax(np.mean(recalls, axis=0)))]
    (model,) = _path(train, (cost,), num_classes)
    return model


def grid_per_label(fit: Samples, choose: Samples) -> LinearModel:
    """A logistic regression for each of C labels. One cost for all has the best macro F1 on `choose`; then as `grid`.

    A label is predicted from a probability of 0.5. One that all or no samples have is predicted for all or none.
    """
    scores = [_macro_f1(_per_label(fit, cost).outputs(choose.x) > 0, choose.labels) for cost in COSTS]
    return _per_label(fit.joined(choose), COSTS[int(np.argmax(scores))])


def ridge(train: Samples) -> list[LinearModel]:
    """Linear regression with an L2 penalty: a model for each of `COSTS`, from which the test split chooses."""
    from sklearn.linear_model import Ridge

    models = []
    for cost in COSTS:
        model = Ridge(alpha=1 / cost).fit(train.x, train.labels)
        weight = model.coef_.reshape(train.labels.shape[1], -1)
        models.append(LinearModel(weight, np.atleast_1d(model.intercept_), cost))
    return models


def mean_recall(model: LinearModel, samples: Samples) -> float:
    """Balanced accuracy of the largest output, over the classes among the samples."""
    right = model.outputs(samples.x).argmax(axis=1) == samples.labels
    return float(np.mean([right[samples.labels == value].mean() for value in np.unique(samples.labels)]))


def _path(samples: Samples, costs: Sequence[float], num_classes: int) -> list[LinearModel]:
    """A fitted model for each cost; each fit starts from the one before."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model, fitted, width = LogisticRegression(max_iter=_ITERATIONS, warm_start=True), [], samples.x.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the published limit of iterations is kept
        for cost in costs:
            model.set_params(C=cost).fit(samples.x, samples.labels)
            fitted.append(from_scikit(model, np.zeros(width), np.ones(width), num_classes, cost))
    return fitted


def _per_label(samples: Samples, cost: float) -> LinearModel:
    weights, biases = [], []
    for labels in samples.labels.T:
        if len(np.unique(labels)) < 2:
            one = with_absent_classes(np.zeros((1, samples.x.shape[1])), np.zeros(1), labels[:1], 2, cost)
        else:
            (one,) = _path(Samples(samples.x, labels), (cost,), 2)
        weights.append(one.weight[1] - one.weight[0])
        biases.append(one.bias[1] - one.bias[0])
    return LinearModel(np.stack(weights), np.array(biases), cost)


def _macro_f1(predicted: NDArray[np.bool_], labels: NDArray[Any]) -> float:
    both = (predicted & (labels == 1)).sum(axis=0)
    total = predicted.sum(axis=0) + labels.sum(axis=0)
    return float(np.mean(2 * both / np.maximum(total, 1)))
