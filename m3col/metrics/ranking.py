"""Area under the ROC curve for several classes, and for a model's confidence.

Letters: N samples, C classes, B bootstrap draws. `auroc_macro` and `auroc_weighted` are the means over classes of the
AUROC of one class against the rest, plain or weighted with the number of samples of the class; this is scikit-learn's
`roc_auc_score(..., multi_class="ovr")`. Classes without samples do not count.
Papers: Hanley and McNeil, Radiology 143, 1982 (AUROC as the probability that a positive ranks before a negative);
DeLong et al., Biometrics 44, 1988 (structural components).
"""

import numpy as np
from numpy.typing import NDArray

from m3col.metrics.types import Floats, Labels


def components(positive: NDArray[np.bool_], values: Floats) -> tuple[float, Floats]:
    """The AUROC of values [N] for separating positive from negative samples, and how much each sample moves it.

    Args:
        positive: [N] which samples are positive.
        values: [N], higher for positive samples.

    Returns:
        The AUROC and the influence [N] of each sample: the share of the other side that it ranks right, minus the
        AUROC, over the number of samples of its own side. Their sum is 0. NaN where a side is empty.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return np.nan, np.full(len(positive), np.nan)
    side = np.sort(values[~positive]), np.sort(values[positive])
    won = _below(side[0], values[positive]) / negatives
    lost = 1.0 - _below(side[1], values[~positive]) / positives
    area = float(won.mean())
    influence = np.empty(len(positive))
    influence[positive] = (won - area) / positives
    influence[~positive] = (lost - area) / negatives
    return area, influence


def _below(ascending: Floats, values: Floats) -> Floats:
    """How many of `ascending` are below each value; equal ones count one half."""
    below: Floats = (np.searchsorted(ascending, values, "left") + np.searchsorted(ascending, values, "right")) / 2
    return below


def over_classes(labels: Labels, probabilities: Floats, *, weighted: bool) -> tuple[float, Floats]:
    """The mean over classes of the AUROC of one class against the rest, and how much each sample moves it.

    Args:
        labels: [N] integers 0..C-1.
        probabilities: [N, C], finite.
        weighted: whether classes count by their number of samples.

    Returns:
        The mean and the influences [N], see `components`. NaN where there is one class only.
    """
    present, counts = np.unique(labels, return_counts=True)
    shares = counts / counts.sum() if weighted else np.full(len(present), 1 / len(present))
    total, influence = 0.0, np.zeros(len(labels))
    for value, share in zip(present, shares, strict=True):
        area, moved = components(labels == value, probabilities[:, value])
        total += share * area
        influence += share * moved
    return total, influence


def of_confidence(labels: Labels, probabilities: Floats) -> tuple[float, Floats]:
    """How well the largest probability separates right from wrong predictions, and how much each sample moves it.

    Args:
        labels: [N] integers 0..C-1.
        probabilities: [N, C], finite.

    Returns:
        The AUROC and the influences [N], see `components`. NaN where all predictions are right, or all wrong.
    """
    return components(probabilities.argmax(axis=1) == labels, probabilities.max(axis=1))
