"""Intervals and comparisons for a test table: stratified bootstrap over samples, t over seeds (PROTOCOL 6).

Letters: N test samples, C classes, B bootstrap draws, R models of one setting that differ in their seed.
`counts[b, i]` is how often draw b holds sample i. The same counts serve all seeds and all settings, so that a
difference between two settings is paired: subtract scores and bootstrap scores, then call `interval`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m3col.errors import InputError
from m3col.metrics import classification, ranking, spec
from m3col.metrics.classification import Floats, Labels

Counts = NDArray[np.int32]


VISIBLE_FACTOR = 2.8

"""A true difference of 2.8 standard errors is detected in 80 % of the cases (1.96 + 0.84)."""

_BLOCK = 4_000_000

"""Entries of `counts` that are processed at once: 32 MB in float64."""


@dataclass(frozen=True)
class Interval:
    """A metric, or a paired difference of it, with its 95 % interval.

    Attributes:
        estimate: the mean over seeds.
        low: lower end of the interval.
        high: upper end of the interval.
        variance: of the estimate.
        df: degrees of freedom of its t distribution.
        seeds: R, models that differ in their seed. With one model the interval covers the test samples alone, and
            models with other seeds may lie outside.
        samples: independent test units: samples, or groups where groups were drawn.
    """

    estimate: float
    low: float
    high: float
    variance: float
    df: float
    seeds: int
    samples: int

    @property
    def covers_seeds(self) -> bool:
        """Whether the interval includes the variance over seeds, which one model cannot show."""
        return self.seeds > 1

    @property
    def excludes_zero(self) -> bool:
        """For a difference: whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    @property
    def smallest_visible(self) -> float:
        """The smallest true difference that would be detected with a probability of 80 %: 2.8 sqrt(V)."""
        return VISIBLE_FACTOR * float(np.sqrt(self.variance))

    @property
    def p_value(self) -> float:
        """Two-sided p of the hypothesis that the true value is 0, from t(df); an exact 0 gives 1."""
        if self.variance == 0:
            return 1.0 if self.estimate == 0 else 0.0
        from scipy.stats import t as student_t  # slow to import

        return float(2 * student_t.sf(abs(self.estimate) / np.sqrt(self.variance), self.df))


def bootstrap_counts(labels: ArrayLike, *, draws: int = 2000, seed: int = 0, groups: ArrayLike | None = None) -> Counts:
    """Draws bootstrap samples with replacement, within each class.

    Args:
        labels: [N] integers >= 0: classes, or other strata within which is drawn.
        draws: B.
        seed: of the draws.
        groups: [N]; whole groups are then drawn, within the class that most of a group's samples have (the lowest in a
            tie), so that class sizes may vary from draw to draw.

    Returns:
        Counts [B, N]: how often each draw holds each sample. The only sample or group of a class is in every draw once.

    Raises:
        InputError: with every fault of the arguments.
    """
    y = np.asarray(labels)
    g = np.arange(len(y)) if groups is None else np.asarray(groups)
    faults = []
    if y.ndim != 1 or len(y) == 0 or y.dtype.kind not in "iu" or y.min() < 0:
        faults.append(f"labels must be at least one integer >= 0, but are {y.dtype} of shape {list(y.shape)}")
    if g.shape != y.shape:
        faults.append(f"groups must have the shape of labels {list(y.shape)}, but have {list(g.shape)}")
    if draws < 2:
        faults.append(f"draws must be >= 2, but is {draws}")
    if faults:
        raise InputError(faults)
    _, unit = np.unique(g, return_inverse=True)
    votes = np.zeros((unit.max() + 1, y.max() + 1), dtype=np.int64)
    np.add.at(votes, (unit, y), 1)
    stratum = votes.argmax(axis=1)
    rng = np.random.default_rng(seed)
    counts = np.empty((draws, len(stratum)), dtype=np.int32)
    for value in np.unique(stratum):
        members = np.flatnonzero(stratum == value)
        size = len(members)
        chosen = rng.integers(size, size=(draws, size)) + np.arange(draws)[:, None] * size
        counts[:, members] = np.bincount(chosen.ravel(), minlength=draws * size).reshape(draws, size)
    return counts[:, unit]


def bootstrap_scores(metric: str, labels: ArrayLike, probabilities: ArrayLike, counts: ArrayLike) -> Floats:
    """A metric on each draw, equal to `m3col.metrics.score` on the samples repeated as counted.

    The AUROC of several classes and that of the confidence are linear in the counts instead: their value plus how much
    each sample moves it. The exact values would take minutes, and differ in second order.

    Args:
        metric: one of `m3col.metrics.names(C)`.
        labels: [N] integers 0..C-1.
        probabilities: [N, C].
        counts: [B, N] integers >= 0, see `bootstrap_counts`.

    Returns:
        Scores [B]; NaN where the metric is undefined.

    Raises:
        InputError: with every fault of the arguments.
    """
    y, p = classification.checked(labels, probabilities)
    classification.require(metric, p.shape[1])
    if not np.isfinite(p).all():
        return in_blocks(counts, len(y), lambda block: np.full(len(block), np.nan))
    return in_blocks(counts, len(y), lambda block: _scores(metric, y, p, block))


def in_blocks(counts: ArrayLike, samples: int, scores: Callable[[Floats], Floats]) -> Floats:
    """Scores [B] of bootstrap draws, computed for a limited number of draws at a time.

    Args:
        counts: [B, N] integers >= 0, see `bootstrap_counts`.
        samples: N.
        scores: from counts [b, N] as floats to scores [b].

    Returns:
        The scores of all draws.

    Raises:
        InputError: for counts of another shape.
    """
    drawn = np.asarray(counts)
    if drawn.ndim != 2 or drawn.shape[1] != samples:
        raise InputError([f"counts must have the shape [draws, {samples}], but have {list(drawn.shape)}"])
    rows = max(1, _BLOCK // samples)
    blocks = [drawn[start : start + rows].astype(np.float64) for start in range(0, len(drawn), rows)]
    return np.concatenate([scores(block) for block in blocks])


def interval(scores: ArrayLike, boots: ArrayLike, n: int) -> Interval:
    """The 95 % interval of the mean of `scores` [R] over seeds; `boots` [R, B] are bootstrap scores.

    `n` is the number of test samples, or of groups where groups were drawn. V_bar is the variance over draws
    of the seed mean, V_one the mean over seeds of the variance over draws, s2 the variance over seeds:

        V  = max(V_bar + s2 / R - (V_one - V_bar) / (R - 1), V_bar, s2 / R)
        df = max(1, V^2 / ((s2 / R)^2 / (R - 1) + V_bar^2 / (n - 1)))

    The middle term takes out of s2 what is sampling noise already counted in V_bar. For R = 1, V = V_bar.
    Draws on which a score is undefined (NaN) are left out. A NaN among `scores`, or fewer than two draws
    left, gives NaN.
    """
    t_r, draws = np.asarray(scores, dtype=np.float64), np.asarray(boots, dtype=np.float64)
    faults = []
    if t_r.ndim != 1 or len(t_r) == 0:
        faults.append(f"scores must have the shape [seeds >= 1], but have {list(t_r.shape)}")
    if draws.ndim != 2 or draws.shape[:1] != t_r.shape[:1]:
        faults.append(f"boots must have the shape [{t_r.size} seeds, draws], but have {list(draws.shape)}")
    if n < 2:
        faults.append(f"n must be >= 2 samples, but is {n}")
    if faults:
        raise InputError(faults)
    seeds, theta = len(t_r), float(t_r.mean())
    draws = draws[:, np.isfinite(draws).all(axis=0)]
    if not np.isfinite(theta) or draws.shape[1] < 2:
        return Interval(theta, np.nan, np.nan, np.nan, np.nan, seeds, n)
    v_bar = float(draws.mean(axis=0).var(ddof=1))
    if seeds == 1:
        variance, spread = v_bar, 0.0
    else:
        v_one, s2 = float(draws.var(axis=1, ddof=1).mean()), float(t_r.var(ddof=1))
        variance = max(v_bar + s2 / seeds - (v_one - v_bar) / (seeds - 1), v_bar, s2 / seeds)
        spread = (s2 / seeds) ** 2 / (seeds - 1)
    noise = spread + v_bar**2 / (n - 1)
    # Without any variance the interval is a point whatever df is.
    df = max(1.0, variance**2 / noise) if noise > 0 else float(n - 1)
    from scipy.stats import t as student_t  # slow to import

    half = float(student_t.ppf(0.975, df)) * float(np.sqrt(variance))
    return Interval(theta, theta - half, theta + half, variance, df, seeds, n)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p values.

    Args:
        p: p values; NaN stands for no comparison.

    Returns:
        Adjusted values in the same order; NaN stays NaN.

    Raises:
        InputError: where one is not between 0 and 1.
    """
    values = np.asarray(p, dtype=np.float64)
    outside = values[(values < 0) | (values > 1)]
    if values.ndim != 1 or outside.size:
        raise InputError([f"p must be a list of numbers from 0 to 1, but is {values.tolist()}"])
    adjusted = np.full(len(values), np.nan)
    order = [int(i) for i in np.argsort(values, kind="stable") if not np.isnan(values[i])]
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * float(values[i])))
        adjusted[i] = largest
    return adjusted.tolist()


def _scores(metric: str, labels: Labels, probabilities: Floats, counts: Floats) -> Floats:
    """`bootstrap_scores` for one block of draws. Counts as floats are exact, and BLAS multiplies them."""
    if spec.TABLE[metric].per_sample:
        means: Floats = counts @ classification.per_sample(metric, labels, probabilities) / counts.sum(axis=1)
        return means
    if metric == classification.ECE:
        gaps, bins = classification.calibration_gaps(labels, probabilities)
        by_bin = counts @ (gaps[:, None] * (bins[:, None] == np.unique(bins)))
        return np.asarray(np.abs(by_bin).sum(axis=1) / counts.sum(axis=1))
    if metric == classification.CONFIDENCE:
        return _linear(ranking.of_confidence(labels, probabilities), counts)
    if spec.TABLE[metric].ranking and probabilities.shape[1] > 2:
        weighted = metric == classification.WEIGHTED
        return _linear(ranking.over_classes(labels, probabilities, weighted=weighted), counts)
    if spec.TABLE[metric].ranking:
        return ranking_scores(metric, labels, probabilities[:, 1], counts)
    num_classes = probabilities.shape[1]
    cells = labels * num_classes + probabilities.argmax(axis=1)
    occupied, column = np.unique(cells, return_inverse=True)
    confusion = np.zeros((len(counts), num_classes**2))
    confusion[:, occupied] = counts @ (column[:, None] == np.arange(len(occupied))).astype(np.float64)
    return classification.from_confusion(confusion.reshape(-1, num_classes, num_classes))[metric]


def _linear(score_and_influence: tuple[float, Floats], counts: Floats) -> Floats:
    score, influence = score_and_influence
    return np.asarray(score + (counts - 1.0) @ influence)


def ranking_scores(metric: str, labels: Labels, positive: Floats, counts: Floats) -> Floats:
    """auroc or average_precision on each draw; samples of equal probability form one step of the curve.

    Args:
        metric: "auroc" or "average_precision".
        labels: [N] of 0 and 1.
        positive: [N] probabilities of 1, finite.
        counts: [B, N] how often each draw has each sample, as floats.

    Returns:
        Scores [B]; NaN for draws without a positive or without a negative sample.
    """
    order = np.argsort(-positive, kind="stable")
    starts = np.flatnonzero(np.diff(positive[order], prepend=np.inf))
    weights, truth = counts[:, order], labels[order]
    true = np.add.reduceat(weights * truth, starts, axis=1)
    false = np.add.reduceat(weights * (1 - truth), starts, axis=1)
    positives, negatives = true.sum(axis=1), false.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        if metric == "auroc":
            # Midranks: a positive wins against the negatives of later steps and half of its own step's.
            below = negatives[:, None] - np.cumsum(false, axis=1) + false / 2
            values = (true * below).sum(axis=1) / (positives * negatives)
        else:
            positives_so_far = np.cumsum(true, axis=1)
            precision = positives_so_far / np.maximum(positives_so_far + np.cumsum(false, axis=1), 1)
            values = (true * precision).sum(axis=1) / positives
    return np.where((positives > 0) & (negatives > 0), values, np.nan)
