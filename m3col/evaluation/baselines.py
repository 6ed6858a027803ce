"""Cheap baselines of the test table: the class frequencies, and a linear model.

Letters: N samples, D features (of all modalities, concatenated, or of one), C classes. Features are already
preprocessed by steps that were fitted on the training fold.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from m3col.errors import InputError
from m3col.metrics.classification import Floats

MAX_ITERATIONS = 10_000

Table = ArrayLike | sparse.csr_matrix


def majority(y_train: ArrayLike, n_apply: int, *, num_classes: int) -> Floats:
    """Predicts the class frequencies of the training labels for every sample.

    The prediction is then the most frequent class, the log-loss is the entropy that a model has to beat, and AUROC is
    0.5. A probability of 1 for the most frequent class would predict the same with a far higher log-loss.

    Args:
        y_train: [N_train] labels.
        n_apply: samples to predict.
        num_classes: C.

    Returns:
        Probabilities [n_apply, C].

    Raises:
        InputError: with every fault of the arguments.
    """
    labels = np.asarray(y_train)
    faults = _label_faults(labels, num_classes)
    if n_apply < 0:
        faults.append(f"n_apply must be >= 0, but is {n_apply}")
    if faults:
        raise InputError(faults)
    return np.tile(np.bincount(labels, minlength=num_classes) / len(labels), (n_apply, 1))


def logistic(x_train: Table, y_train: ArrayLike, x_apply: Table, *, num_classes: int, cost: float = 1.0) -> Floats:
    """Predictions of scikit-learn's LogisticRegression (L2), which has no randomness.

    Args:
        x_train: [N_train, D] features; sparse tables stay sparse.
        y_train: [N_train] labels.
        x_apply: [N, D] features of the samples to predict.
        num_classes: C.
        cost: the inverse of the regularisation.

    Returns:
        Probabilities [N, C]; 0 for a class that is absent from `y_train`.

    Raises:
        InputError: with every fault: shapes, NaN or infinity, labels, one class only.
    """
    train, apply, labels = _matrix(x_train), _matrix(x_apply), np.asarray(y_train)
    faults = _label_faults(labels, num_classes) + _feature_faults(train, apply, labels.shape[:1])
    if not faults and len(np.unique(labels)) < 2:
        faults.append(f"y_train must hold at least two classes, but holds only {labels[0]}")
    if faults:
        raise InputError(faults)
    from sklearn.linear_model import LogisticRegression  # slow to import

    model = LogisticRegression(C=cost, max_iter=MAX_ITERATIONS).fit(train, labels)
    probabilities = np.zeros((apply.shape[0], num_classes))
    if apply.shape[0]:
        probabilities[:, model.classes_] = model.predict_proba(apply)
    return probabilities


def checked_features(x_train: Table, x_apply: Table, rows: int) -> tuple[Any, Any]:
    """Features as float64, sparse where they are sparse.

    Args:
        x_train: [N_train, D] features.
        x_apply: [N, D] features of the samples to predict.
        rows: N_train, the number of labels.

    Returns:
        Both.

    Raises:
        InputError: with every fault: shapes, NaN or infinity.
    """
    train, apply = _matrix(x_train), _matrix(x_apply)
    faults = _feature_faults(train, apply, (rows,))
    if faults:
        raise InputError(faults)
    return train, apply


def _feature_faults(train: Any, apply: Any, rows: tuple[int, ...]) -> list[str]:
    """Faults of the features [N_train, D] and [N, D]. `rows`: the shape of the training labels without columns."""
    faults = []
    for name, x in (("x_train", train), ("x_apply", apply)):
        if x.ndim != 2 or x.shape[-1] == 0:
            faults.append(f"{name} must have the shape [samples, features >= 1], but has {list(x.shape)}")
        else:
            for row, column in _not_finite(x)[:1]:
                faults.append(f"{name} must be finite, but row {row}, column {column} is {x[row, column]}")
    if train.shape[:1] != rows:
        faults.append(f"x_train must have one row per label {rows}, but has {list(train.shape)}")
    if train.shape[1:] != apply.shape[1:]:
        faults.append(f"x_apply must have the columns of x_train, but has {apply.shape} for {train.shape}")
    return faults


def _matrix(x: Any) -> Any:
    return sparse.csr_matrix(x, dtype=np.float64) if _is_sparse(x) else np.asarray(x, dtype=np.float64)


def _is_sparse(x: Any) -> bool:
    return bool(sparse.issparse(x))


def _not_finite(x: Any) -> NDArray[np.int64]:
    """Rows and columns [n, 2] of NaN and infinite entries."""
    if not _is_sparse(x):
        return np.argwhere(~np.isfinite(x))
    cells = x.tocoo()
    return np.stack([cells.row, cells.col], axis=1)[~np.isfinite(cells.data)]


def _label_faults(labels: NDArray[Any], num_classes: int) -> list[str]:
    """One line unless `labels` is a non-empty vector of integers from 0 to num_classes - 1."""
    fits = labels.ndim == 1 and len(labels) > 0 and labels.dtype.kind in "iu"
    if fits and labels.min() >= 0 and labels.max() < num_classes:
        return []
    shown = np.unique(labels)[:12].tolist()
    return [f"y_train must be at least one integer from 0 to {num_classes - 1}, but is {shown}"]
