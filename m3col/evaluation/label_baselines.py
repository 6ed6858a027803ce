"""Cheap baselines for several labels per sample and for numbers. See `m3col.evaluation.baselines` for classes.

Letters: N samples, D features, C labels or targets. Features are already preprocessed by steps that were fitted on the
training fold.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from m3col.evaluation.baselines import MAX_ITERATIONS, Table, checked_features
from m3col.metrics.classification import Floats


def frequencies(y_train: ArrayLike, n_apply: int) -> Floats:
    """Predicts the frequency of each label in training for every sample.

    Args:
        y_train: [N_train, C] of 0 and 1.
        n_apply: samples to predict.

    Returns:
        Probabilities [n_apply, C].
    """
    return mean(y_train, n_apply)


def mean(y_train: ArrayLike, n_apply: int) -> Floats:
    """Predicts the mean of the training targets for every sample: the constant with the smallest squared error.

    Args:
        y_train: [N_train, C] numbers.
        n_apply: samples to predict.

    Returns:
        Predictions [n_apply, C].
    """
    return np.tile(np.asarray(y_train, dtype=np.float64).mean(axis=0), (n_apply, 1))


def logistic_per_label(x_train: Table, y_train: ArrayLike, x_apply: Table, *, cost: float = 1.0) -> Floats:
    """Predictions of one LogisticRegression of scikit-learn (L2) per label.

    Args:
        x_train: [N_train, D] features; sparse tables stay sparse.
        y_train: [N_train, C] of 0 and 1.
        x_apply: [N, D] features of the samples to predict.
        cost: the inverse of the regularisation.

    Returns:
        Probabilities [N, C]; for a label that all training samples or none have, 1 or 0.

    Raises:
        InputError: with every fault of the features: shapes, NaN or infinity.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import

    labels = np.asarray(y_train)
    train, apply = checked_features(x_train, x_apply, len(labels))
    probabilities = mean(labels, apply.shape[0])
    for number, truth in enumerate(labels.T):
        if apply.shape[0] and truth.min() < truth.max():
            model = LogisticRegression(C=cost, max_iter=MAX_ITERATIONS).fit(train, truth)
            probabilities[:, number] = model.predict_proba(apply)[:, 1]
    return probabilities


def ridge(x_train: Table, y_train: ArrayLike, x_apply: Table, *, cost: float = 1.0) -> Floats:
    """Predictions of scikit-learn's Ridge on all targets.

    Args:
        x_train: [N_train, D] features; sparse tables stay sparse.
        y_train: [N_train, C] numbers.
        x_apply: [N, D] features of the samples to predict.
        cost: the inverse of the regularisation.

    Returns:
        Predictions [N, C].

    Raises:
        InputError: with every fault of the features: shapes, NaN or infinity.
    """
    from sklearn.linear_model import Ridge  # slow to import

    targets = np.asarray(y_train, dtype=np.float64)
    train, apply = checked_features(x_train, x_apply, len(targets))
    if not apply.shape[0]:
        return np.zeros((0, targets.shape[1]))
    model: Any = Ridge(alpha=1.0 / cost, solver="sparse_cg" if hasattr(train, "tocoo") else "auto", tol=1e-8)
    predicted = np.asarray(model.fit(train, targets).predict(apply), dtype=np.float64)
    return predicted.reshape(apply.shape[0], -1)
