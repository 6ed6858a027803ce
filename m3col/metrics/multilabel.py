"""Metrics of several labels per sample, from labels of 0 and 1 and one probability per label, as scikit-learn has them.

Letters: N samples, C labels, B bootstrap draws. A label is predicted where its probability exceeds its threshold.

- micro_f1: F1 of all N C decisions together. macro_f1: mean over labels of the F1 of each. weighted_f1: that mean,
  weighted with the number of samples that have the label. samples_f1: mean over samples of the F1 of each. 0 / 0 is 0.
- map: mean over labels of the average precision (step-wise, not interpolated). It needs no threshold.
- subset_accuracy: share of the samples of which every label is decided correctly.
- log_loss: mean over samples and labels of -log of the probability of the truth, kept within float64's [eps, 1 - eps].

Differs: scikit-learn gives a label without a positive sample an average precision of 0; here labels that lack a
positive or a negative sample are left out of map, and it is NaN if none is left. A NaN among the probabilities makes
every metric NaN.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from m3col.errors import InputError, nearest
from m3col.metrics import classification, intervals
from m3col.metrics.classification import Floats, Labels

NAMES = ("micro_f1", "macro_f1", "weighted_f1", "samples_f1", "map", "subset_accuracy", "log_loss")

DEFAULT = "macro_f1"

HALF = 0.5


def checked(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Labels, Floats]:
    """Validates labels and probabilities, and converts them to the types that the metrics use.

    Args:
        labels: [N, C] of 0 and 1.
        probabilities: [N, C] from 0 to 1; NaN is allowed.

    Returns:
        Labels as int64 and probabilities as float64.

    Raises:
        InputError: with every fault.
    """
    # One memory layout: sums in another order differ in their last bit, and equal predictions would differ.
    y, p = np.asarray(labels, order="C"), np.asarray(probabilities, dtype=np.float64, order="C")
    faults = []
    if p.ndim != 2 or 0 in p.shape:
        faults.append(f"probabilities must have the shape [samples >= 1, labels >= 1], but have {list(p.shape)}")
    if y.shape != p.shape:
        faults.append(f"labels must have the shape of probabilities {list(p.shape)}, but have {list(y.shape)}")
    if y.dtype.kind not in "iub" or not np.isin(y, (0, 1)).all():
        faults.append(f"labels must be 0 or 1, but are {np.unique(y)[:12].tolist()}")
    if ((p < 0) | (p > 1)).any():
        faults.append(f"probabilities must be from 0 to 1, but reach from {np.nanmin(p):g} to {np.nanmax(p):g}")
    if faults:
        raise InputError(faults)
    return y.astype(np.int64, copy=False), p


def decide(probabilities: ArrayLike, thresholds: ArrayLike = HALF) -> Labels:
    """The decisions [N, C], 1 where the probability exceeds the threshold of the label (a number, or one per label)."""
    return (np.asarray(probabilities, dtype=np.float64) > np.asarray(thresholds)).astype(np.int64)


def compute(labels: ArrayLike, probabilities: ArrayLike, thresholds: ArrayLike = HALF) -> dict[str, float]:
    """Every metric of `NAMES`.

    Args:
        labels: [N, C] of 0 and 1.
        probabilities: [N, C].
        thresholds: one number, or one per label [C].

    Returns:
        Values by name; NaN where a metric is undefined.

    Raises:
        InputError: with every fault of the arguments.

    Example:
        >>> compute([[1, 0], [1, 1]], [[0.9, 0.2], [0.8, 0.4]])["subset_accuracy"]
        0.5
    """
    y, p = checked(labels, probabilities)
    once = np.ones((1, len(y)))
    return {name: float(_scores(name, y, p, decide(p, thresholds), once)[0]) for name in NAMES}


def bootstrap_scores(
    metric: str, labels: ArrayLike, probabilities: ArrayLike, counts: ArrayLike, thresholds: ArrayLike = HALF
) -> Floats:
    """A metric on each draw, equal to `compute` on the samples repeated as counted.

    Args:
        metric: one of `NAMES`.
        labels: [N, C] of 0 and 1.
        probabilities: [N, C].
        counts: [B, N] integers >= 0, see `m3col.metrics.intervals.bootstrap_counts`.
        thresholds: one number, or one per label [C].

    Returns:
        Scores [B]; NaN where the metric is undefined.

    Raises:
        InputError: with every fault of the arguments, and for an unknown metric.
    """
    y, p = checked(labels, probabilities)
    require(metric)
    decided = decide(p, thresholds)
    return intervals.in_blocks(counts, len(y), lambda block: _scores(metric, y, p, decided, block))


def require(metric: str) -> None:
    """InputError unless `metric` is one of `NAMES`."""
    if metric not in NAMES:
        raise InputError([f"metric {metric!r} is not one of several labels per sample{nearest(metric, NAMES)}"])


def cross_validated(
    labels: Sequence[ArrayLike], probabilities: Sequence[ArrayLike], *, tune: bool = False, thresholds: ArrayLike = HALF
) -> dict[str, float]:
    """Every metric over the validation samples of k folds.

    map is the mean over folds. The others come from the pooled decisions.

    Args:
        labels: of each fold, [N_k, C].
        probabilities: of each fold, [N_k, C].
        tune: whether thresholds are chosen on validation samples. Those of a fold are then decided with thresholds that
            were chosen on the other folds, and with one fold each half of its samples with those of the other half:
            no sample chooses its own threshold.
        thresholds: without `tune`: one number, or one per label [C].

    Returns:
        Values by name; NaN where a metric is undefined.

    Raises:
        InputError: with every fault of the arguments.
    """
    folds = parts = classification.checked_folds(labels, probabilities, checked)
    if tune and len(folds) == 1 and len(folds[0][0]) > 1:
        parts = [(folds[0][0][start::2], folds[0][1][start::2]) for start in (0, 1)]
    decided = [decide(p, _chosen_elsewhere(parts, number) if tune else thresholds) for number, (_, p) in
               enumerate(parts)]  # fmt: skip
    y, p = (np.concatenate(part) for part in zip(*parts, strict=True))
    once, pooled = np.ones((1, len(y))), np.concatenate(decided)
    values = {name: float(_scores(name, y, p, pooled, once)[0]) for name in NAMES}
    ranked = [float(_scores("map", *fold, fold[0], np.ones((1, len(fold[0]))))[0]) for fold in folds]
    defined = [value for value in ranked if np.isfinite(value)]
    values["map"] = float(np.mean(defined)) if defined else np.nan
    return values


def _chosen_elsewhere(parts: Sequence[tuple[Labels, Floats]], number: int) -> ArrayLike:
    """Thresholds chosen on all parts but one."""
    others = [part for at, part in enumerate(parts) if at != number]
    if not others:
        return HALF
    return best_thresholds(*(np.concatenate(part) for part in zip(*others, strict=True)))


def best_thresholds(labels: ArrayLike, probabilities: ArrayLike) -> Floats:
    """The threshold of each label with the highest F1 on these samples.

    Candidates are the middles between neighbouring probabilities, half of the lowest one (which predicts the label
    everywhere), and 0.5. Of equally good ones the nearest to 0.5 is taken. A label without a positive sample gets 0.5.

    Args:
        labels: [N, C] of 0 and 1, of samples that the model was not trained on.
        probabilities: [N, C].

    Returns:
        Thresholds [C].

    Raises:
        InputError: with every fault of the arguments.

    Example:
        >>> best_thresholds([[1], [1], [0]], [[0.4], [0.3], [0.2]]).tolist()
        [0.25]
    """
    y, p = checked(labels, probabilities)
    return np.array([_best_threshold(y[:, label], p[:, label]) for label in range(y.shape[1])])


def _best_threshold(truth: Labels, positive: Floats) -> float:
    if not truth.any() or not np.isfinite(positive).all():
        return HALF
    levels = np.unique(positive)
    candidates = np.unique([levels[0] / 2, *((levels[1:] + levels[:-1]) / 2), HALF])
    order = np.argsort(positive, kind="stable")
    # Samples above each candidate, and positive ones among them.
    below = np.searchsorted(positive[order], candidates, side="right")
    predicted = len(truth) - below
    right = truth.sum() - np.concatenate([[0], np.cumsum(truth[order])])[below]
    f1 = 2 * right / (truth.sum() + predicted)
    best = candidates[f1 == f1.max()]
    return float(best[np.abs(best - HALF).argmin()])


def _scores(metric: str, labels: Labels, probabilities: Floats, decided: Labels, counts: Floats) -> Floats:
    """`bootstrap_scores` for one block of draws: [B] from `counts` [B, N] as floats."""
    if not np.isfinite(probabilities).all():
        return np.full(len(counts), np.nan)
    if metric == "map":
        return _mean_average_precision(labels, probabilities, counts)
    if metric in ("samples_f1", "subset_accuracy", "log_loss"):
        means: Floats = counts @ per_sample(metric, labels, probabilities, decided) / counts.sum(axis=1)
        return means
    hits, support, predicted = (counts @ part.astype(np.float64) for part in (labels * decided, labels, decided))
    if metric == "micro_f1":
        return _f1(hits.sum(axis=1), support.sum(axis=1), predicted.sum(axis=1))
    of_labels = _f1(hits, support, predicted)
    if metric == "macro_f1":
        macro: Floats = of_labels.mean(axis=1)
        return macro
    return _ratio((of_labels * support).sum(axis=1), support.sum(axis=1))


def per_sample(metric: str, labels: Labels, probabilities: Floats, decided: Labels) -> Floats:
    """The values [N] whose mean is samples_f1, subset_accuracy or log_loss."""
    if metric == "samples_f1":
        return _f1(*(part.sum(axis=1).astype(np.float64) for part in (labels * decided, labels, decided)))
    if metric == "subset_accuracy":
        return np.asarray((labels == decided).all(axis=1), dtype=np.float64)
    eps = float(np.finfo(np.float64).eps)
    of_truth = np.clip(np.where(labels == 1, probabilities, 1 - probabilities), eps, 1 - eps)
    surprise: Floats = -np.log(of_truth).mean(axis=1)
    return surprise


def _mean_average_precision(labels: Labels, probabilities: Floats, counts: Floats) -> Floats:
    by_label = np.stack(
        [
            intervals.ranking_scores("average_precision", labels[:, label], probabilities[:, label], counts)
            for label in range(labels.shape[1])
        ]
    )
    defined = np.isfinite(by_label)
    count = defined.sum(axis=0)
    means = np.where(defined, by_label, 0.0).sum(axis=0) / np.maximum(count, 1)
    return np.where(count > 0, means, np.nan)


def _f1(hits: Floats, support: Floats, predicted: Floats) -> Floats:
    return _ratio(2 * hits, support + predicted)


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """top / bottom, 0 where the bottom is 0."""
    return np.divide(top, bottom, out=np.zeros(np.shape(bottom)), where=bottom != 0)
