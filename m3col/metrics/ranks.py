"""Compares several methods over several data sets by their ranks: Friedman's test, Nemenyi's critical difference.

Letters: D data sets, M methods; r[i, m] the rank of method m on data set i (1 is best, ties share the mean of their
ranks), R_m its mean over data sets.

Source: Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006), section 3.2.
Differs: the statistic is corrected for ties, as in Conover, "Practical Nonparametric Statistics" (1999), section 5.8;
without ties it is Demsar's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from m3col.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RankComparison:
    """Mean ranks of M methods over D data sets, and whether they differ.

    Attributes:
        methods: names of the methods.
        mean_ranks: R_m, in the order of `methods`; 1 is best.
        statistic: Friedman's chi-square; NaN if all scores are tied on every data set.
        f_statistic: F of Iman and Davenport, with M - 1 and (M - 1)(D - 1) degrees of freedom; infinite if the ranks
            are the same on every data set.
        p_value: of F: the probability of ranks as different as these if all methods were equal.
        critical_difference: mean ranks that differ by less are not distinguishable at `alpha` (Nemenyi).
        alpha: the level of the critical difference.
        datasets: D.
    """

    methods: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    statistic: float
    f_statistic: float
    p_value: float
    critical_difference: float
    alpha: float
    datasets: int

    def groups(self) -> list[tuple[str, ...]]:
        """The largest groups of methods of which no two are distinguishable, best first; each has two or more."""
        order = sorted(range(len(self.methods)), key=lambda m: self.mean_ranks[m])
        ranks = [self.mean_ranks[m] for m in order]
        spans: list[tuple[int, int]] = []
        for first in range(len(order)):
            last = max(m for m in range(first, len(order)) if ranks[m] - ranks[first] < self.critical_difference)
            if last > first and (not spans or last > spans[-1][1]):
                spans.append((first, last))
        return [tuple(self.methods[order[m]] for m in range(first, last + 1)) for first, last in spans]


def ranks(scores: ArrayLike, *, higher_is_better: bool = True) -> Floats:
    """Ranks [D, M] of methods within each data set; 1 is best, tied methods share the mean of their ranks.

    Args:
        scores: [D, M].
        higher_is_better: whether a higher score is better.

    Returns:
        The ranks.

    Example:
        >>> ranks([[0.9, 0.8, 0.9]]).tolist()
        [[1.5, 3.0, 1.5]]
    """
    from scipy.stats import rankdata  # slow to import

    values = np.asarray(scores, dtype=np.float64)
    ranked: Floats = rankdata(-values if higher_is_better else values, axis=1)
    return ranked


def critical_difference(methods: int, datasets: int, *, alpha: float = 0.05) -> float:
    """Nemenyi's critical difference of two mean ranks (Demsar 2006, section 3.2.2).

        CD = q_alpha sqrt(M (M + 1) / (6 D)),

    where q_alpha is the quantile of the studentised range of M means, infinite degrees of freedom, divided by sqrt(2).

    Args:
        methods: M >= 2.
        datasets: D >= 1.
        alpha: the level.

    Returns:
        The smallest difference of mean ranks that is distinguishable.
    """
    from scipy.stats import studentized_range  # slow to import

    q = float(studentized_range.ppf(1 - alpha, methods, np.inf)) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * datasets)))


def compare(
    scores: ArrayLike, methods: Sequence[str], *, higher_is_better: bool = True, alpha: float = 0.05
) -> RankComparison:
    """Compares methods over several data sets.

        chi2 = (M - 1) sum_m (S_m - D (M + 1) / 2)^2 / (A - D M (M + 1)^2 / 4),  S_m = D R_m, A = sum of r[i, m]^2
        F = (D - 1) chi2 / (D (M - 1) - chi2)

    Without ties the first is Demsar's 12 D / (M (M + 1)) (sum_m R_m^2 - M (M + 1)^2 / 4); F is his equation of Iman and
    Davenport.

    Args:
        scores: [D, M], one row per data set; metrics may differ from row to row, because only ranks count.
        methods: the M names.
        higher_is_better: whether a higher score is better, in every row.
        alpha: the level of the critical difference.

    Returns:
        Mean ranks, test and critical difference.

    Raises:
        InputError: with every fault of the arguments.

    Example:
        >>> compare([[0.9, 0.8], [0.7, 0.6], [0.8, 0.7]], ["a", "b"]).mean_ranks
        (1.0, 2.0)
    """
    values = np.asarray(scores, dtype=np.float64)
    faults = []
    if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] < 2:
        faults.append(f"scores must have the shape [data sets >= 2, methods >= 2], but have {list(values.shape)}")
    elif not np.isfinite(values).all():
        faults.append(f"scores must be finite, but {int((~np.isfinite(values)).sum())} are not; leave the method out")
    if values.ndim == 2 and len(methods) != values.shape[1]:
        faults.append(f"methods must name the {values.shape[1]} columns of scores, but are {len(methods)}")
    if not 0 < alpha < 1:
        faults.append(f"alpha must be between 0 and 1, but is {alpha}; nearest 0.05")
    if faults:
        raise InputError(faults)
    datasets, count = values.shape
    r = ranks(values, higher_is_better=higher_is_better)
    mean = r.mean(axis=0)
    expected = datasets * (count + 1) / 2
    spread = float((r**2).sum()) - datasets * count * (count + 1) ** 2 / 4
    if spread == 0:  # all methods are tied everywhere
        statistic, f, p = float("nan"), 0.0, 1.0
    else:
        statistic = float((count - 1) * ((datasets * mean - expected) ** 2).sum() / spread)
        left = datasets * (count - 1) - statistic
        f = float((datasets - 1) * statistic / left) if left > 1e-9 * datasets else float("inf")
        from scipy.stats import f as f_distribution  # slow to import

        p = float(f_distribution.sf(f, count - 1, (count - 1) * (datasets - 1)))
    difference = critical_difference(count, datasets, alpha=alpha)
    return RankComparison(tuple(methods), tuple(map(float, mean)), statistic, f, p, difference, alpha, datasets)
