"""Metrics of numbers that are predicted, in the units of the targets. Letters: N samples, K targets, B bootstrap draws.

Each is the mean over targets of the value of one target, all with the same weight:

- mse: mean squared error. mae: mean absolute error. Lower is better.
- r2: 1 - (sum of squared errors) / (sum of squared deviations from the mean of the targets); 0 for that mean itself.
- pearson: the correlation of predictions and targets.

Differs: a target that is the same in all samples has neither r2 nor pearson; it is left out of their mean, and they are
NaN if none is left (scikit-learn gives it an r2 of 0 or 1). Predictions that are all the same have a pearson of 0, as
they say nothing about the order of the samples (SciPy gives NaN). A NaN among the predictions makes every metric NaN.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from m3col.errors import InputError, nearest
from m3col.metrics import classification, intervals
from m3col.metrics.classification import Floats

NAMES = ("mse", "mae", "r2", "pearson")

DEFAULT = "r2"

_ROUNDING = 1e-12  # a sum of squares below this share of its terms is rounding of an exact 0


def checked(targets: ArrayLike, predictions: ArrayLike) -> tuple[Floats, Floats]:
    """Validates targets and predictions, and converts them to float64.

    Args:
        targets: [N, K] finite numbers.
        predictions: [N, K]; NaN is allowed.

    Returns:
        Both as float64.

    Raises:
        InputError: with every fault.
    """
    # One memory layout: sums in another order differ in their last bit, and equal predictions would differ.
    y, p = (np.asarray(part, dtype=np.float64, order="C") for part in (targets, predictions))
    faults = []
    if p.ndim != 2 or 0 in p.shape:
        faults.append(f"predictions must have the shape [samples >= 1, targets >= 1], but have {list(p.shape)}")
    if y.shape != p.shape:
        faults.append(f"targets must have the shape of predictions {list(p.shape)}, but have {list(y.shape)}")
    if not np.isfinite(y).all():
        faults.append(f"targets must be finite, but {int((~np.isfinite(y)).sum())} of them are not")
    if faults:
        raise InputError(faults)
    return y, p


def compute(targets: ArrayLike, predictions: ArrayLike) -> dict[str, float]:
    """Every metric of `NAMES`.

    Args:
        targets: [N, K].
        predictions: [N, K].

    Returns:
        Values by name; NaN where a metric is undefined.

    Raises:
        InputError: with every fault of the arguments.

    Example:
        >>> compute([[1.0], [2.0], [3.0]], [[1.0], [2.0], [4.0]])["r2"]
        0.5
    """
    y, p = checked(targets, predictions)
    return {name: float(_scores(name, y, p, np.ones((1, len(y))))[0]) for name in NAMES}


def bootstrap_scores(metric: str, targets: ArrayLike, predictions: ArrayLike, counts: ArrayLike) -> Floats:
    """A metric on each draw, equal to `compute` on the samples repeated as counted.

    Args:
        metric: one of `NAMES`.
        targets: [N, K].
        predictions: [N, K].
        counts: [B, N] integers >= 0, see `m3col.metrics.intervals.bootstrap_counts`.

    Returns:
        Scores [B]; NaN where the metric is undefined.

    Raises:
        InputError: with every fault of the arguments, and for an unknown metric.
    """
    y, p = checked(targets, predictions)
    require(metric)
    return intervals.in_blocks(counts, len(y), lambda block: _scores(metric, y, p, block))


def require(metric: str) -> None:
    """InputError unless `metric` is one of `NAMES`."""
    if metric not in NAMES:
        raise InputError([f"metric {metric!r} is not one of numbers{nearest(metric, NAMES)}"])


def cross_validated(targets: Sequence[ArrayLike], predictions: Sequence[ArrayLike]) -> dict[str, float]:
    """Every metric over the validation samples of k folds.

    pearson is the mean over folds, without folds in which it is undefined, because the predictions of different models
    may be shifted against each other. The others come from the pooled predictions.

    Args:
        targets: of each fold, [N_k, K].
        predictions: of each fold, [N_k, K].

    Returns:
        Values by name; NaN where a metric is undefined.

    Raises:
        InputError: with every fault of the arguments.
    """
    folds = classification.checked_folds(targets, predictions, checked, names="targets and predictions")
    values = compute(*(np.concatenate(part) for part in zip(*folds, strict=True)))
    correlations = [float(_scores("pearson", y, p, np.ones((1, len(y))))[0]) for y, p in folds]
    defined = [value for value in correlations if np.isfinite(value)]
    broken = not all(np.isfinite(p).all() for _, p in folds)
    values["pearson"] = float(np.mean(defined)) if defined and not broken else np.nan
    return values


def _scores(metric: str, targets: Floats, predictions: Floats, counts: Floats) -> Floats:
    """`bootstrap_scores` for one block of draws: [B] from `counts` [B, N] as floats."""
    if not np.isfinite(predictions).all():
        return np.full(len(counts), np.nan)
    total = counts.sum(axis=1, keepdims=True)
    errors = targets - predictions
    if metric == "mae":
        absolute: Floats = (counts @ np.abs(errors) / total).mean(axis=1)
        return absolute
    squares = counts @ errors**2
    if metric == "mse":
        squared: Floats = (squares / total).mean(axis=1)
        return squared
    spread = _deviations(targets, targets, counts)
    if metric == "r2":
        return _mean_of_defined(squares, spread, lambda top, bottom: 1 - top / bottom)
    own = _deviations(predictions, predictions, counts)
    product = np.sqrt(spread) * np.sqrt(own)
    together = np.where(own > 0, _deviations(targets, predictions, counts, signed=True), 0.0)
    return _mean_of_defined(together, spread, lambda top, _: top / np.where(product > 0, product, 1.0))


def _deviations(a: Floats, b: Floats, counts: Floats, *, signed: bool = False) -> Floats:
    """Sums [B, K] of (a - mean a) (b - mean b) over the samples of each draw."""
    # The mean over all samples is subtracted first, so that little is lost where it is far from 0.
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    whole, total = counts @ (a * b), counts.sum(axis=1, keepdims=True)
    sums = whole - (counts @ a) * (counts @ b) / total
    return sums if signed else np.where(sums > _ROUNDING * whole, sums, 0.0)


def _mean_of_defined(top: Floats, spread: Floats, value: Callable[[Floats, Floats], Floats]) -> Floats:
    """The mean over targets of `value(top, spread)`, of those whose spread is not 0; NaN without any."""
    defined = spread > 0
    count = defined.sum(axis=1)
    values = np.where(defined, value(top, np.where(defined, spread, 1.0)), 0.0)
    return np.where(count > 0, values.sum(axis=1) / np.maximum(count, 1), np.nan)
