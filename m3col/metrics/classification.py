"""Classification metrics from labels and class probabilities, as scikit-learn defines them.

Letters: N samples, C classes. `confusion[..., i, j]` counts samples of class i that are predicted as class j;
the prediction is the most probable class, the first one in a tie.

- accuracy, balanced_accuracy (mean recall), macro_f1, weighted_f1; f1 is that of class 1. Classes that occur
  neither among the labels nor among the predictions do not count, and 0 / 0 is 0, both as in scikit-learn.
- log_loss: mean of -log p[label], natural logarithm, p kept within float64's [eps, 1 - eps].
- brier: mean over samples of the squared error summed over classes, from 0 to 2; with two classes half of it,
  from 0 to 1, which is the usual mean of (p[1] - label)^2. This is `sklearn.metrics.brier_score_loss`.
- ece: expected calibration error. The largest probabilities are divided into 15 intervals of equal width; the mean over
  samples of the distance between accuracy and mean probability of their interval (Guo et al., arXiv 1706.04599, Eq. 3).
- confidence_auroc: how well the largest probability separates right from wrong predictions.
- auroc, average_precision (step-wise, not interpolated), mcc: two classes only, class 1 is the positive one.
- auroc_macro, auroc_weighted: three classes or more, see m3col.metrics.ranking.

Differs: where scikit-learn warns or raises because a ranking metric has one class only, it is NaN here; a
NaN among the probabilities (a model that diverged) makes every metric NaN instead of raising.

Scores follow from the confusion matrix by code of this file, because `m3col.metrics.intervals` needs them for thousands
of matrices at once, and because separate calls of scikit-learn would cost 8 ms in every epoch. Tests compare each value
with scikit-learn.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m3col.errors import InputError, nearest
from m3col.metrics import ranking, spec
from m3col.metrics.types import Floats as Floats
from m3col.metrics.types import Labels as Labels

Fold = TypeVar("Fold")  # labels and predictions of one fold


_GENERAL = (
    "accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "log_loss", "brier", "ece", "confidence_auroc",
)  # fmt: skip

_BINARY = ("f1", "auroc", "average_precision", "mcc")

_SEVERAL = ("auroc_macro", "auroc_weighted")

_BINS = 15  # of the expected calibration error

ECE, CONFIDENCE, WEIGHTED = "ece", "confidence_auroc", "auroc_weighted"

PER_SAMPLE = tuple(name for name in _GENERAL if spec.TABLE[name].per_sample)

RANKING = tuple(name for name in (*_GENERAL, *_BINARY, *_SEVERAL) if spec.TABLE[name].ranking)


def names(num_classes: int) -> tuple[str, ...]:
    """The metrics that apply to a number of classes.

    Args:
        num_classes: C.

    Returns:
        Names in the order in which `compute` reports them.

    Example:
        >>> names(3)
        ('accuracy', 'balanced_accuracy', 'macro_f1', 'weighted_f1', 'log_loss', 'brier', 'ece', 'confidence_auroc', \
'auroc_macro', 'auroc_weighted')
    """
    return (*_GENERAL, *(_BINARY if num_classes == 2 else _SEVERAL))


def default(num_classes: int) -> str:
    """The metric that ranks trials when the config names none: auroc for two classes, else macro_f1.

    See docs/protocol.md, section 4.
    """
    return "auroc" if num_classes == 2 else "macro_f1"


def softmax(logits: ArrayLike) -> Floats:
    """Class probabilities [..., C] of logits [..., C], in float64."""
    values = np.asarray(logits, dtype=np.float64)
    # A row with +inf gives NaN, which marks the row as diverged; numpy need not warn about it.
    with np.errstate(invalid="ignore"):
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
    probabilities: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def checked(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Labels, Floats]:
    """Validates labels and probabilities, and converts them to the types that the metrics use.

    Args:
        labels: [N] integers 0..C-1.
        probabilities: [N, C]. Rows must add up to 1 within 0.001, so that logits passed by mistake are noticed; NaN is
            allowed.

    Returns:
        Labels as int64 and probabilities as float64.

    Raises:
        InputError: with every fault.
    """
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    faults = []
    if p.ndim != 2 or p.shape[1] < 2:
        faults.append(f"probabilities must have the shape [samples, classes >= 2], but have {list(p.shape)}")
    elif y.shape != p.shape[:1]:
        faults.append(f"labels must have the shape [{len(p)}], as probabilities have rows, but have {list(y.shape)}")
    elif len(p) == 0:
        faults.append("labels and probabilities must hold at least one sample, but are empty")
    elif y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= p.shape[1]:
        values = np.unique(y)[:12].tolist()
        faults.append(f"labels must be integers from 0 to {p.shape[1] - 1}, but are {values}")
    else:
        # Written so that a NaN passes: it compares as false.
        wrong = (np.abs(p.sum(axis=1) - 1) > 1e-3) | (p < 0).any(axis=1)
        if wrong.any():
            row = int(wrong.argmax())
            faults.append(f"probabilities must be >= 0 and add up to 1, but row {row} is {p[row].tolist()}")
    if faults:
        raise InputError(faults)
    return y.astype(np.int64, copy=False), p


def require(name: str, num_classes: int) -> None:
    """InputError unless `name` is a metric for `num_classes` classes."""
    if name not in names(num_classes):
        others = "two classes only" if name in names(2) else "three classes or more"
        rule = f"is for {others}" if name in (*_BINARY, *_SEVERAL) else "is unknown"
        raise InputError([f"metric {name!r} {rule}{nearest(name, names(num_classes))}"])


def compute(labels: ArrayLike, probabilities: ArrayLike) -> dict[str, float]:
    """Every metric of `names(C)`.

    Args:
        labels: [N] integers 0..C-1.
        probabilities: [N, C], C >= 2.

    Returns:
        Values by name. NaN where a metric is undefined: auroc and average_precision with one class among the labels,
        and all of them when a probability is not finite.

    Raises:
        InputError: with every fault of the arguments.

    Example:
        >>> compute([0, 1, 1, 0], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])["accuracy"]
        0.75
    """
    y, p = checked(labels, probabilities)
    values = {**_thresholded(y, p), **_ranked(y, p)}
    return {name: values[name] for name in names(p.shape[1])}


def score(name: str, labels: ArrayLike, probabilities: ArrayLike) -> float:
    """One metric of `compute`.

    Args:
        name: one of `names(C)`.
        labels: [N] integers 0..C-1.
        probabilities: [N, C], C >= 2.

    Returns:
        Its value; NaN where it is undefined.

    Raises:
        InputError: for a metric that is unknown or does not apply to C classes, and for faulty arguments.
    """
    y, p = checked(labels, probabilities)
    require(name, p.shape[1])
    return (_ranked(y, p) if spec.TABLE[name].ranking else _thresholded(y, p))[name]


def checked_folds(
    labels: Sequence[ArrayLike],
    predictions: Sequence[ArrayLike],
    check: Callable[[ArrayLike, ArrayLike], Fold],
    *,
    names: str = "labels and probabilities",
) -> list[Fold]:
    """What `check` returns for the labels and predictions of each fold.

    Args:
        labels: of each fold.
        predictions: of each fold.
        check: validates the labels and predictions of one fold.
        names: of both, for the message.

    Returns:
        One pair per fold.

    Raises:
        InputError: the numbers of folds differ, or are 0; or what `check` raises.
    """
    if not labels or len(labels) != len(predictions):
        counts = f"{len(labels)} and {len(predictions)}"
        raise InputError([f"{names} must hold the same number >= 1 of folds, but hold {counts}"])
    return [check(*fold) for fold in zip(labels, predictions, strict=True)]


def cross_validated(labels: Sequence[ArrayLike], probabilities: Sequence[ArrayLike]) -> dict[str, float]:
    """Every metric over the validation samples of k folds.

    Ranking metrics are means over folds, without the folds that have one class among their labels (the same folds for
    every model, since labels decide it). The others come from the pooled predictions.

    Args:
        labels: of each fold, [N_k] integers 0..C-1.
        probabilities: of each fold, [N_k, C].

    Returns:
        Values of `names(C)` by name; NaN where a metric is undefined.

    Raises:
        InputError: with every fault of the arguments.
    """
    folds = checked_folds(labels, probabilities, checked)
    if len({p.shape[1] for _, p in folds}) > 1:
        raise InputError([f"all folds must have the same classes, but have {[p.shape[1] for _, p in folds]}"])
    values = _thresholded(np.concatenate([y for y, _ in folds]), np.concatenate([p for _, p in folds]))
    num_classes = folds[0][1].shape[1]
    ranked = [_ranked(y, p) for y, p in folds if y.min() < y.max()]
    for name in RANKING:
        if name in names(num_classes):
            values[name] = float(np.mean([fold[name] for fold in ranked])) if ranked else np.nan
    # Where every prediction of a fold is right, its confidence has nothing to separate.
    judged = [fold[CONFIDENCE] for fold in ranked if np.isfinite(fold[CONFIDENCE])]
    values[CONFIDENCE] = float(np.mean(judged)) if judged and np.isfinite(values[ECE]) else np.nan
    return {name: values[name] for name in names(num_classes)}


def per_sample(name: str, labels: Labels, probabilities: Floats) -> Floats:
    """The values [N] whose mean is the metric `name`, one of PER_SAMPLE.

    `labels` and `probabilities` must come from `checked`.
    """
    if name == "accuracy":
        return np.asarray(probabilities.argmax(axis=1) == labels, dtype=np.float64)
    if name == "log_loss":
        eps = float(np.finfo(np.float64).eps)
        surprise: Floats = -np.log(np.clip(probabilities[np.arange(len(labels)), labels], eps, 1 - eps))
        return surprise
    error = np.array(probabilities)
    error[np.arange(len(labels)), labels] -= 1
    squared: Floats = (error**2).sum(axis=1) / (2 if probabilities.shape[1] == 2 else 1)
    return squared


def from_confusion(confusion: ArrayLike) -> dict[str, Floats]:
    """Metrics of confusion matrices [..., C, C]: balanced_accuracy, macro_f1, weighted_f1; f1 and mcc for two classes.

    Each has the shape [...]. A matrix of zeros gives zeros.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    support, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    recall = _ratio(right, support)
    f1 = _ratio(2 * right, support + predicted)
    values = {
        "balanced_accuracy": _ratio(recall.sum(axis=-1), (support > 0).sum(axis=-1)),
        "macro_f1": _ratio(f1.sum(axis=-1), (support + predicted > 0).sum(axis=-1)),
        "weighted_f1": _ratio((f1 * support).sum(axis=-1), support.sum(axis=-1)),
    }
    if counts.shape[-1] == 2:
        values["f1"] = f1[..., 1]
        determinant = right.prod(axis=-1) - counts[..., 0, 1] * counts[..., 1, 0]
        values["mcc"] = _ratio(determinant, np.sqrt(support.prod(axis=-1) * predicted.prod(axis=-1)))
    return values


def _thresholded(labels: Labels, probabilities: Floats) -> dict[str, float]:
    """All metrics except RANKING."""
    num_classes = probabilities.shape[1]
    if not np.isfinite(probabilities).all():
        return {name: np.nan for name in names(num_classes) if name not in RANKING}
    cells = labels * num_classes + probabilities.argmax(axis=1)
    confusion = np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)
    values = {name: float(value) for name, value in from_confusion(confusion).items()}
    values |= {name: float(per_sample(name, labels, probabilities).mean()) for name in PER_SAMPLE}
    gaps, bins = calibration_gaps(labels, probabilities)
    return values | {ECE: float(np.abs(np.bincount(bins, gaps)).sum() / len(labels))}


def calibration_gaps(labels: Labels, probabilities: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """The largest probability minus 1 where it is right, [N], and the interval that it is in, [N]."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    return confidence - right, bins


def _ranked(labels: Labels, probabilities: Floats) -> dict[str, float]:
    """The RANKING metrics of `names(C)`."""
    num_classes = probabilities.shape[1]
    if not np.isfinite(probabilities).all():
        return {name: np.nan for name in RANKING if name in names(num_classes)}
    values = {CONFIDENCE: ranking.of_confidence(labels, probabilities)[0]}
    if num_classes == 2:
        return values | _ranked_of_two(labels, probabilities)
    return values | {
        name: ranking.over_classes(labels, probabilities, weighted=name == WEIGHTED)[0] for name in _SEVERAL
    }


def _ranked_of_two(labels: Labels, probabilities: Floats) -> dict[str, float]:
    """auroc and average_precision from one ROC curve, instead of two functions that each sort and check again."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return {"auroc": np.nan, "average_precision": np.nan}
    from sklearn.metrics import roc_curve  # slow to import, and not needed for more than two classes

    fall_out, recall, _ = roc_curve(labels, probabilities[:, 1], drop_intermediate=False)
    true, false = recall[1:] * positives, fall_out[1:] * negatives
    return {
        "auroc": float(np.trapezoid(recall, fall_out)),
        "average_precision": float(np.sum(np.diff(recall) * true / (true + false))),
    }


def _ratio(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    """numerator / denominator, 0 where the denominator is 0."""
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    out = np.zeros(np.broadcast_shapes(top.shape, bottom.shape))
    return np.divide(top, bottom, out=out, where=bottom != 0)
