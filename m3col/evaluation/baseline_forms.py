"""The forms of a baseline: all modalities side by side, one alone, the mean of them (late), and stacked.

Letters: N training samples, N' samples to predict, M modalities, D_m features of modality m, C outputs of the task.
Features are already preprocessed by steps that were fitted on all N training samples; inner folds share these steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from m3col.evaluation import linear_features
from m3col.evaluation.cooperative import Cooperative
from m3col.metrics.classification import Floats
from m3col.tasks.base import Task

COSTS = (0.01, 0.1, 0.3, 1.0, 10.0)  # C of scikit-learn: the inverse of the regularisation

_GROUPED = (0.1, 0.3, 1.0)  # shares of the modalities' own costs

_AGREEMENTS = (0.0, 0.5, 2.0)  # rho

_PENALTIES = (0.01, 0.1, 1.0)  # lambda, as a share of the mean sum of squares of a column

_INNER_FOLDS = 5

_LARGEST_LOGIT = 16.0

Fit = Callable[[Any, NDArray[Any], Any], Floats]  # x_train, labels, x_apply -> predictions [N', C]


@dataclass(frozen=True)
class Block:
    """The features of one modality.

    Attributes:
        train: [N, D_m], dense or sparse.
        apply: [N', D_m].
        in_train: [N] False where a sample lacks the modality.
        in_apply: [N'] likewise.
    """

    train: Any
    apply: Any
    in_train: NDArray[np.bool_]
    in_apply: NDArray[np.bool_]

    def inner(self, fit: NDArray[np.int64], rest: NDArray[np.int64]) -> "Block":
        """Training samples at the positions `fit` to fit, and those at `rest` to predict."""
        return Block(self.train[fit], self.train[rest], self.in_train[fit], self.in_train[rest])


class Forms:
    """All forms of linear models and of other estimators for one pair of training samples and samples to predict.

    Args:
        task: what the labels are.
        labels: of the N training samples.
        blocks: the features by modality.
        groups: [N] groups of samples that inner folds keep together; None: there are none.
    """

    def __init__(
        self, task: Task, labels: NDArray[Any], blocks: dict[str, Block], groups: NDArray[Any] | None = None
    ) -> None:
        self.task, self.labels, self.blocks, self.groups = task, np.asarray(labels), blocks, groups
        self._costs: dict[str, float] = {}
        self._within: dict[tuple[str, float], Floats] = {}

    @property
    def count(self) -> int:
        """N', the number of samples to predict."""
        return len(next(iter(self.blocks.values())).in_apply)

    @cached_property
    def joined(self) -> Block:
        """All modalities side by side. Every sample has it: what a sample lacks was filled in by the preprocessing."""
        train, apply = (
            linear_features.concatenate(parts)
            for parts in zip(*((block.train, block.apply) for block in self.blocks.values()), strict=True)
        )
        return Block(train, apply, np.ones(train.shape[0], dtype=bool), np.ones(apply.shape[0], dtype=bool))

    def constant(self) -> Floats:
        """Predictions that ignore the input."""
        return self.task.constant(self.labels, self.count)

    def together(self, fit: Fit) -> Floats:
        """Predictions from all modalities side by side."""
        return self._of_block(fit, self.joined, self.labels)

    def alone(self, fit: Fit, name: str) -> Floats:
        """Predictions from one modality. Samples that lack it get the constant baseline."""
        return self._of_block(fit, self.blocks[name], self.labels)

    def late(self, fit: Fit) -> Floats:
        """The mean of the predictions from each modality that a sample has."""
        return self.mean_over_modalities({name: self.alone(fit, name) for name in self.blocks})

    def mean_over_modalities(self, predictions: dict[str, Floats]) -> Floats:
        """The mean of predictions [N', C] over the modalities that a sample has."""
        has = np.stack([self.blocks[name].in_apply for name in predictions])
        total = (np.stack([*predictions.values()]) * has[:, :, None]).sum(axis=0)
        counts = has.sum(axis=0)[:, None]
        mean: Floats = np.where(counts > 0, total / np.maximum(counts, 1), self.constant())
        return mean

    # Linear models

    def linear(self, cost: float = 1.0) -> Fit:
        """The task's linear model with a cost, the inverse of its regularisation."""
        if cost == 1.0:
            return self.task.linear
        return lambda x, labels, apply: self.task.linear(x, labels, apply, cost=cost)

    def tuned(self, name: str | None = None) -> Fit:
        """The task's linear model with a cost chosen for one modality, or for all side by side (None)."""
        return self.linear(self.cost(name))

    def cost(self, name: str | None = None) -> float:
        """The cost with the least loss over the inner folds, the smallest in a tie; 1 where there are no inner folds.

        Args:
            name: a modality; None: all side by side.
        """
        key = name or ""
        if key not in self._costs:
            losses = [self._loss(self._inner_linear(name, cost)) for cost in COSTS] if self.inner_folds else []
            self._costs[key] = COSTS[int(np.argmin(losses))] if losses else 1.0
        return self._costs[key]

    def late_tuned(self) -> Floats:
        """The mean over modalities, each with the cost chosen for it."""
        return self.mean_over_modalities({name: self.alone(self.tuned(name), name) for name in self.blocks})

    def stacked(self, *, tuned: bool = False) -> Floats | None:
        """A linear model of the predictions from each modality.

        It is fitted to predictions of inner models, which were not trained on the samples they predict.

        Args:
            tuned: whether the model of each modality has the cost chosen for it.

        Returns:
            Predictions [N', C]; None where there are no inner folds.
        """
        if not self.inner_folds:
            return None
        costs = {name: self.cost(name) if tuned else 1.0 for name in self.blocks}
        inner = [self._inner_linear(name, cost) for name, cost in costs.items()]
        outer = [self.alone(self.linear(cost), name) for name, cost in costs.items()]
        return self.task.linear(self._columns(inner), self.labels, self._columns(outer))

    def grouped(self) -> Floats:
        """A linear model of all modalities with a penalty for each.

        The cost of a modality is the one chosen for it alone, times a share for all modalities that is chosen on the
        inner folds. A column times the square root of a cost has the same effect as that cost.
        """
        roots = np.concatenate(
            [np.full(block.train.shape[1], np.sqrt(self.cost(name))) for name, block in self.blocks.items()]
        )

        def fit(share: float) -> Fit:
            factor = roots * np.sqrt(share)

            def scaled(x: Any) -> Any:
                is_sparse: bool = sparse.issparse(x)
                return x.multiply(factor).tocsr() if is_sparse else x * factor

            return lambda x, labels, apply: self.task.linear(scaled(x), labels, scaled(apply))

        losses = [self._loss(self._inner(fit(share), self.joined)) for share in _GROUPED] if self.inner_folds else [0.0]
        return self.together(fit(_GROUPED[int(np.argmin(losses))] if self.inner_folds else 1.0))

    def cooperative(self) -> Floats | None:
        """Cooperative learning, with the agreement and the penalty chosen on the inner folds.

        Classes and labels are fitted as 0 and 1; their probabilities come from a linear model of the outputs, which is
        fitted to outputs of inner models.

        Returns:
            Predictions [N', C]; None where there are no inner folds.
        """
        if not self.inner_folds:
            return None
        targets = self._numbers()
        dense = {name: (_dense(block.train), _dense(block.apply)) for name, block in self.blocks.items()}
        train, apply = [pair[0] for pair in dense.values()], [pair[1] for pair in dense.values()]
        size = float(np.mean([np.mean((x - x.mean(axis=0)) ** 2) * len(x) for x in train]))
        settings = [(rho, share * size) for rho in _AGREEMENTS for share in _PENALTIES]
        inner = np.zeros((len(settings), *targets.shape))
        for fit, rest in self.inner_folds:
            model = Cooperative([x[fit] for x in train], targets[fit])
            for number, (rho, penalty) in enumerate(settings):
                inner[number, rest] = model.predict([x[rest] for x in train], rho=rho, penalty=penalty)
        best = int(np.argmin(((inner - targets) ** 2).mean(axis=(1, 2))))
        rho, penalty = settings[best]
        outputs = Cooperative(train, targets).predict(apply, rho=rho, penalty=penalty)
        if not self.task.probabilities:
            return outputs
        return self.task.linear(inner[best], self.labels, outputs, cost=1e3)

    # Inner folds

    @cached_property
    def inner_folds(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Positions to fit and to predict of each inner fold; empty where a class has one sample or group."""
        return inner_folds(self.task, self.labels, self.groups)

    def _inner_linear(self, name: str | None, cost: float) -> Floats:
        key = (name or "", cost)
        if key not in self._within:
            self._within[key] = self._inner(self.linear(cost), self.joined if name is None else self.blocks[name])
        return self._within[key]

    def _inner(self, fit: Fit, block: Block) -> Floats:
        """Predictions [N, C] of the training samples by models of the other inner folds."""
        predicted = np.zeros((len(self.labels), self.task.width))
        for fitted, rest in self.inner_folds:
            predicted[rest] = self._of_block(fit, block.inner(fitted, rest), self.labels[fitted])
        return predicted

    def _of_block(self, fit: Fit, block: Block, labels: NDArray[Any]) -> Floats:
        constant = self.task.constant(labels, len(block.in_apply))
        own = labels[block.in_train]
        if not len(own) or (self.task.exact_strata and len(np.unique(self.task.strata(own))) < 2):
            return constant
        apply = block.apply[block.in_apply]
        constant[block.in_apply] = fit(block.train[block.in_train], own, apply) if apply.shape[0] else 0.0
        return constant

    def _loss(self, predictions: Floats) -> float:
        value = self.task.score(self.task.loss_metric, self.labels, predictions)
        return value if np.isfinite(value) else np.inf

    def _columns(self, predictions: Sequence[Floats]) -> Floats:
        """Outputs of all modalities side by side. Those of a certain probability are kept finite."""
        outputs = np.concatenate([self.task.inverse_link(part) for part in predictions], axis=1)
        return np.clip(outputs, -_LARGEST_LOGIT, _LARGEST_LOGIT) if self.task.probabilities else outputs

    def _numbers(self) -> Floats:
        """The labels as numbers [N, C]: one column of 0 and 1 per class, or the labels or targets as they are."""
        if self.task.estimates == "classes":
            return np.eye(self.task.width)[self.labels]
        return np.asarray(self.labels, dtype=np.float64).reshape(len(self.labels), -1)


def inner_folds(
    task: Task, labels: NDArray[Any], groups: NDArray[Any] | None, *, folds: int = _INNER_FOLDS
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Divides training samples once more, always in the same way, with equal shares of each stratum.

    Args:
        task: defines the strata.
        labels: of the samples.
        groups: of the samples, which are kept together; None: there are none.
        folds: the number of folds; fewer where a stratum has fewer samples or groups.

    Returns:
        Positions to fit and to predict by fold; none where a stratum that must be in every fold has a single sample or
        group.
    """
    from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold  # slow to import

    strata = task.strata(labels)
    units = np.arange(len(strata)) if groups is None else np.asarray(groups)
    members = (
        [np.unique(units[strata == value]) for value in np.unique(strata)] if task.exact_strata else [np.unique(units)]
    )
    count = min(folds, *(len(part) for part in members))
    if count < 2:
        return []
    if groups is not None:
        division: Any = StratifiedGroupKFold(count, shuffle=True, random_state=0)
    else:
        division = (StratifiedKFold if task.exact_strata else KFold)(count, shuffle=True, random_state=0)
    return [*division.split(np.zeros(len(strata)), strata, groups)]


def _dense(x: Any) -> Floats:
    is_sparse: bool = sparse.issparse(x)
    return np.asarray(x.toarray() if is_sparse else x, dtype=np.float64)
