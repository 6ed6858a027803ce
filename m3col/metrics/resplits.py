"""Comparison of two procedures over several outer splits of one data set (PROTOCOL 9).

Letters: J outer splits, n_train and n_test samples of one of them; d_j the difference of two scores on split j.

Source: Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52 (2003), section 3: the training
sets of resplits overlap, so that the d_j are correlated, and s_d^2 / J is too small. Their correction replaces 1 / J by
1 / J + n_test / n_train.
Differs: they derive it for random divisions; here it serves repeated cross-validation too, with n_test / n_train =
1 / (folds - 1), as in Bouckaert and Frank (2004).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from m3col.errors import InputError

_DECIMALS = 12  # differences of equal scores are rounding errors


@dataclass(frozen=True)
class PairedDifference:
    """The mean of paired differences over outer splits, with its 95 % interval.

    Attributes:
        estimate: mean of d_j.
        low: lower end of the interval; NaN with one split.
        high: upper end of the interval.
        standard_error: sqrt(s_d^2 (1 / J + n_test / n_train)).
        df: degrees of freedom, J - 1.
        p_value: two-sided, of the hypothesis that the true mean is 0; NaN with one split.
        splits: J, the splits on which both scores exist.
    """

    estimate: float
    low: float
    high: float
    standard_error: float
    df: int
    p_value: float
    splits: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def paired_difference(differences: ArrayLike, *, test_to_train: float) -> PairedDifference:
    """The corrected resampled t interval of a mean difference (Nadeau and Bengio 2003, section 3).

        SE^2 = s_d^2 (1 / J + n_test / n_train)
        interval = mean +- t(0.975, J - 1) SE
        p = 2 P(T > |mean| / SE), T ~ t(J - 1)

    Args:
        differences: d_j [J], paired by split; NaN where a split lacks one of the scores, which is then left out.
        test_to_train: n_test / n_train, of one split.

    Returns:
        The mean difference. Where all differences are equal, they say nothing of how much it varies: the interval and p
        are NaN, or 0 to 0 and 1 if all are 0.

    Raises:
        InputError: with every fault of the arguments.

    Example:
        >>> paired_difference([0.01, 0.03, 0.02, 0.02], test_to_train=0.25).excludes_zero
        True
    """
    d = np.asarray(differences, dtype=np.float64)
    faults = []
    if d.ndim != 1:
        faults.append(f"differences must have the shape [splits], but have {list(d.shape)}")
    if not (np.isfinite(test_to_train) and test_to_train >= 0):
        faults.append(f"test_to_train must be a finite number >= 0, but is {test_to_train}")
    if faults:
        raise InputError(faults)
    d = np.round(d[np.isfinite(d)], _DECIMALS)
    count = len(d)
    mean = float(d.mean()) if count else float("nan")
    if count < 2 or (mean != 0 and (d == d[0]).all()):
        nan = float("nan")
        return PairedDifference(mean, nan, nan, nan, max(count - 1, 0), nan, count)
    error = float(np.sqrt(d.var(ddof=1) * (1 / count + test_to_train)))
    from scipy.stats import t as student_t  # slow to import

    half = float(student_t.ppf(0.975, count - 1)) * error
    p = 1.0
    if error > 0:
        p = float(2 * student_t.sf(abs(mean) / error, count - 1))
    return PairedDifference(mean, mean - half, mean + half, error, count - 1, p, count)


def share_won(differences: ArrayLike, *, higher_is_better: bool = True) -> float:
    """The share of splits in which the first of two procedures has the better score; a tie counts half.

    Args:
        differences: d_j [J], first minus second; NaN is left out.
        higher_is_better: whether a higher score is better.

    Returns:
        A share from 0 to 1; NaN without any split.
    """
    d = np.asarray(differences, dtype=np.float64)
    d = np.round(d[np.isfinite(d)], _DECIMALS) * (1 if higher_is_better else -1)
    return float(np.mean((d > 0) + 0.5 * (d == 0))) if len(d) else float("nan")
