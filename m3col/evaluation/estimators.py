"""Estimators of scikit-learn and of optional packages, for the baselines of the test table.

A new estimator is one entry in `TABLE`. Each makes predictions for every task of this package: with several labels per
sample one classifier is fitted per label, and with numbers a regressor per target.

Letters: N samples, D features, C classes, labels or targets. Features are already preprocessed by steps that were
fitted on the training fold.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from m3col.metrics.classification import Floats
from m3col.tasks.base import Task

Setting = Mapping[str, Any]

_SEED = 0

_CALIBRATION_FOLDS = 5

_MOST_DENSE = 20_000_000  # cells of a sparse table that are written out


@dataclass(frozen=True)
class Estimator:
    """A kind of model.

    Attributes:
        classifier: from a setting to a new classifier of scikit-learn's interface.
        regressor: from a setting to a new regressor of one target.
        settings: candidates; one is chosen on the folds of a study.
        most_work: the largest work, see `work`, with which it is fitted unless a config names it.
        most_samples: the largest number of training samples, likewise.
        dense: whether it needs dense features.
        package: the package that it needs beyond those of this project.
    """

    classifier: Callable[..., Any]
    regressor: Callable[..., Any]
    settings: tuple[Setting, ...] = field(default=({},))
    most_work: float = np.inf
    most_samples: float = np.inf
    dense: bool = False
    package: str | None = None

    @property
    def is_installed(self) -> bool:
        """Whether the package that it needs is there."""
        return self.package is None or importlib.util.find_spec(self.package) is not None

    def too_large(self, samples: int, values: int, outputs: int) -> str | None:
        """Why it is left out for a training split of this size unless a config names it; None: it is not.

        Args:
            samples: N.
            values: N D, or the stored values of a sparse table.
            outputs: C for more than two classes or for labels and targets, else 1.
        """
        if samples > self.most_samples:
            return f"{samples:,} training samples are more than {int(self.most_samples):,}"
        if values * outputs > self.most_work:
            return f"{values:,} values times {outputs:,} outputs are more than {int(self.most_work):,}"
        return None


def boosted_trees(kind: str, setting: Setting) -> Any:
    """scikit-learn's histogram gradient boosting. `kind`: "Classifier" or "Regressor"."""
    from sklearn import ensemble

    build = getattr(ensemble, f"HistGradientBoosting{kind}")
    return build(early_stopping=False, random_state=_SEED, max_iter=40, **setting)


def forest(kind: str, setting: Setting) -> Any:
    """scikit-learn's random forest. `kind`: "Classifier" or "Regressor"."""
    from sklearn import ensemble

    return getattr(ensemble, f"RandomForest{kind}")(n_estimators=60, random_state=_SEED, **setting)


def support_vectors(kind: str, setting: Setting) -> Any:
    """A support vector machine with an RBF kernel. `kind`: "Classifier" or "Regressor".

    Its probabilities are a sigmoid of its scores, which is fitted to scores of samples that it was not trained on.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC, SVR

    def scaled(machine: Any) -> Any:
        return make_pipeline(StandardScaler(with_mean=False), machine)

    if kind == "Regressor":
        return scaled(SVR(**setting))
    return _Calibrated(lambda folds: CalibratedClassifierCV(scaled(SVC(**setting)), ensemble=False, cv=folds))


def lightgbm(kind: str, setting: Setting) -> Any:
    """LightGBM's boosted trees. `kind`: "Classifier" or "Regressor"."""
    package: Any = importlib.import_module("lightgbm")
    return getattr(package, f"LGBM{kind}")(random_state=_SEED, n_jobs=1, verbose=-1, **setting)


def xgboost(kind: str, setting: Setting) -> Any:
    """XGBoost's boosted trees. `kind`: "Classifier" or "Regressor"."""
    package: Any = importlib.import_module("xgboost")
    return getattr(package, f"XGB{kind}")(random_state=_SEED, n_jobs=1, **setting)


class _Calibrated:
    """A classifier that is fitted on folds of the training samples; `build` gives it from their number.

    A class with one sample cannot be on both sides of a division, so that it is left out.
    """

    def __init__(self, build: Callable[[int], Any]) -> None:
        self._build = build

    def fit(self, x: Any, y: NDArray[Any]) -> "_Calibrated":
        classes, counts = np.unique(y, return_counts=True)
        self.classes_ = classes[counts > 1] if (counts > 1).sum() > 1 else classes
        kept = np.isin(y, classes[counts > 1])
        self._model: Any = None
        if (counts > 1).sum() > 1:
            self._model = self._build(min(_CALIBRATION_FOLDS, int(counts[counts > 1].min()))).fit(x[kept], y[kept])
        self._frequencies = counts / counts.sum()
        return self

    def predict_proba(self, x: Any) -> Floats:
        if self._model is None:
            return np.tile(self._frequencies, (x.shape[0], 1))
        return np.asarray(self._model.predict_proba(x), dtype=np.float64)


def _entry(build: Callable[[str, Setting], Any], **properties: Any) -> Estimator:
    return Estimator(
        lambda setting: build("Classifier", setting), lambda setting: build("Regressor", setting), **properties
    )


TABLE: dict[str, Estimator] = {
    "hist_gradient_boosting": _entry(
        boosted_trees,
        settings=({"max_leaf_nodes": 4}, {"max_leaf_nodes": 8}),
        most_work=2e7,
        dense=True,
    ),
    "random_forest": _entry(
        forest,
        settings=({"min_samples_leaf": 1}, {"min_samples_leaf": 5}),
        most_work=5e7,
    ),
    "svm": _entry(
        support_vectors,
        settings=({"C": 1.0}, {"C": 10.0}),
        most_samples=5000,
        most_work=1e8,
    ),
    "lightgbm": _entry(lightgbm, settings=({}, {"learning_rate": 0.03}), most_work=1e8, package="lightgbm"),
    "xgboost": _entry(xgboost, settings=({}, {"max_depth": 3}), most_work=1e8, package="xgboost"),
}


def predict(task: Task, name: str, setting: Setting, x_train: Any, labels: NDArray[Any], x_apply: Any) -> Floats:
    """Predictions of an estimator of `TABLE`.

    Args:
        task: says what the labels are: classes, several labels per sample, or numbers (`Task.estimates`).
        name: of the estimator.
        setting: one of its `settings`.
        x_train: [N_train, D] features.
        labels: of the N_train samples.
        x_apply: [N, D] features of the samples to predict.

    Returns:
        Predictions [N, C]: probabilities, or numbers. A class without training samples has probability 0; a label
        that all or no training samples have, 1 or 0.
    """
    estimator = TABLE[name]
    train, apply = (_fitting(estimator, x) for x in (x_train, x_apply))
    columns = np.asarray(labels).reshape(len(labels), -1).T
    if task.estimates == "classes":
        return _probabilities(estimator.classifier(setting), train, columns[0], apply, task.width)
    if task.estimates == "labels":
        of_labels = [_probabilities(estimator.classifier(setting), train, y, apply, 2)[:, 1] for y in columns]
        return np.stack(of_labels, axis=1)
    predicted = [estimator.regressor(setting).fit(train, y).predict(apply) for y in columns]
    return np.stack(predicted, axis=1).astype(np.float64)


def _probabilities(model: Any, train: Any, labels: NDArray[Any], apply: Any, num_classes: int) -> Floats:
    probabilities = np.zeros((apply.shape[0], num_classes))
    present = np.unique(labels)
    if len(present) == 1:
        probabilities[:, present[0]] = 1.0
    else:
        # Some packages expect the classes 0..k-1 without gaps.
        model.fit(train, np.searchsorted(present, labels))
        probabilities[:, present[model.classes_]] = model.predict_proba(apply)
    return probabilities


def _fitting(estimator: Estimator, x: Any) -> Any:
    is_sparse: bool = sparse.issparse(x)
    if not is_sparse:
        return np.asarray(x, dtype=np.float64)
    return x.toarray() if estimator.dense or x.shape[0] * x.shape[1] <= _MOST_DENSE else x
