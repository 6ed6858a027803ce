"""Baselines of several labels per sample and of numbers, against simpler computations."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from m3col.errors import InputError
from m3col.evaluation import label_baselines

RNG = np.random.default_rng(0)
X, NEW = RNG.normal(size=(40, 5)), RNG.normal(size=(9, 5))
NUMBERS = X[:, :2] @ [[1.0, 20.0], [-2.0, 5.0]] + RNG.normal(size=(40, 2)) + [3.0, 1000.0]
LABELS = (NUMBERS > [3.0, 1010.0]).astype(np.int64)


def test_constants_are_means_of_the_columns():
    assert label_baselines.mean(NUMBERS, 3).tolist() == [pytest.approx(NUMBERS.mean(axis=0))] * 3
    assert label_baselines.frequencies(LABELS, 2).tolist() == [pytest.approx(LABELS.sum(axis=0) / 40)] * 2


def slow_ridge() -> np.ndarray:
    """(X'X + I) w = X'y on centred columns."""
    columns = []
    for target in NUMBERS.T:
        x, y = X - X.mean(axis=0), target - target.mean()
        left = [[sum(x[i, a] * x[i, b] for i in range(40)) + (a == b) for b in range(5)] for a in range(5)]
        weights = np.linalg.solve(left, [sum(x[i, a] * y[i] for i in range(40)) for a in range(5)])
        columns.append([target.mean() + sum((row - X.mean(axis=0)) * weights) for row in NEW])
    return np.array(columns).T


def test_ridge_is_the_solution_of_its_equations_also_for_sparse_features():
    assert label_baselines.ridge(X, NUMBERS, NEW) == pytest.approx(slow_ridge(), rel=1e-9)
    sparse_rows = label_baselines.ridge(sparse.csr_matrix(X), NUMBERS, sparse.csr_matrix(NEW))
    assert sparse_rows == pytest.approx(slow_ridge(), rel=1e-4)
    assert label_baselines.ridge(X, NUMBERS[:, :1], NEW).shape == (9, 1)


def test_each_label_has_a_logistic_regression_of_its_own():
    predicted = label_baselines.logistic_per_label(X, LABELS, NEW)
    for number in range(2):
        alone = LogisticRegression(C=1.0, max_iter=10_000).fit(X, LABELS[:, number]).predict_proba(NEW)[:, 1]
        assert predicted[:, number] == pytest.approx(alone)


def test_a_label_that_a_fold_lacks_is_never_predicted():
    labels = LABELS.copy()
    labels[:, 0] = 0
    assert label_baselines.logistic_per_label(X, labels, NEW)[:, 0].tolist() == [0.0] * 9


def test_features_are_checked():
    for fit in (label_baselines.ridge, label_baselines.logistic_per_label):
        with pytest.raises(InputError, match=r"x_train must have one row per label \(40,\), but has \[39, 5\]"):
            fit(X[:39], LABELS, NEW)
        with pytest.raises(InputError, match="x_apply must be finite"):
            fit(X, LABELS, np.where(NEW[0, 0] == NEW, np.nan, NEW))
