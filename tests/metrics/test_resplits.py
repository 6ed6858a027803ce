"""Differences over outer splits: the formula again with plain loops, and the coverage of the interval by simulation."""

import math

import numpy as np
import pytest
from scipy.stats import t as student_t

from m3col.errors import InputError
from m3col.metrics import resplits


def slow(differences: list[float], ratio: float) -> tuple[float, float, float, float]:
    """Mean, ends of the interval and p of Nadeau and Bengio's corrected resampled t-test, in plain loops."""
    mean = 0.0
    for d in differences:
        mean += d / len(differences)
    squares = 0.0
    for d in differences:
        squares += (d - mean) * (d - mean)
    error = math.sqrt(squares / (len(differences) - 1) * (1 / len(differences) + ratio))
    quantile = student_t.ppf(0.975, len(differences) - 1)
    p = 2 * (1 - student_t.cdf(abs(mean / error), len(differences) - 1))
    return mean, mean - quantile * error, mean + quantile * error, p


@pytest.mark.parametrize(("count", "ratio"), [(2, 0.25), (10, 0.25), (10, 106 / 245), (30, 1.0), (5, 0.0)])
def test_interval_and_p_equal_the_formula_in_plain_loops(count: int, ratio: float) -> None:
    differences = np.random.default_rng(count).normal(0.01, 0.02, size=count)
    got = resplits.paired_difference(differences, test_to_train=ratio)
    assert (got.estimate, got.low, got.high, got.p_value) == pytest.approx(slow(differences.tolist(), ratio), abs=1e-9)
    assert (got.df, got.splits) == (count - 1, count)
    assert got.excludes_zero == (got.p_value < 0.05)
    with_gaps = [*differences[:1], math.nan, *differences[1:]]
    assert resplits.paired_difference(with_gaps, test_to_train=ratio) == got


def test_one_split_and_equal_differences() -> None:
    one = resplits.paired_difference([0.03], test_to_train=0.25)
    assert one.estimate == 0.03 and one.splits == 1 and not one.excludes_zero
    assert np.isnan([one.low, one.high, one.p_value, one.standard_error]).all()
    assert np.isnan(resplits.paired_difference([], test_to_train=0.25).estimate)
    equal = resplits.paired_difference([0.5, 0.5], test_to_train=0.25)
    assert equal.estimate == 0.5 and np.isnan([equal.low, equal.p_value]).all() and not equal.excludes_zero
    rounded = [np.mean([0.8] * 3) - 0.8] * 2  # 1.1e-16
    assert resplits.paired_difference(rounded, test_to_train=0.25).p_value == 1.0
    assert resplits.share_won(rounded) == 0.5
    assert resplits.paired_difference([0.0, 0.0], test_to_train=0.25).p_value == 1.0


def test_every_fault_of_the_arguments_is_reported() -> None:
    with pytest.raises(InputError) as raised:
        resplits.paired_difference([[0.1]], test_to_train=-1)
    assert len(raised.value.faults) == 2


def test_the_share_won_counts_ties_half_and_knows_which_way_is_better() -> None:
    d = [0.1, -0.2, 0.0, 0.3, math.nan]
    assert resplits.share_won(d) == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert resplits.share_won(d, higher_is_better=False) == pytest.approx((0 + 1 + 0.5 + 0) / 4)
    assert math.isnan(resplits.share_won([]))


def simulated(samples: int, splits: int, share: float, data_sets: int) -> np.ndarray:
    """Differences [data_sets, splits] of two predictors over random divisions of the same normal samples.

    The first predicts the mean of the training samples, the second always 0; scores are mean squared errors.
    """
    draw = np.random.default_rng(5)
    x = draw.normal(1.0, 1.0, size=(data_sets, samples))
    test = round(share * samples)
    order = np.argsort(draw.random((data_sets, splits, samples)), axis=2)
    values = np.take_along_axis(np.broadcast_to(x[:, None], order.shape), order, axis=2)
    train, held_out = values[..., test:], values[..., :test]
    fitted = train.mean(axis=2, keepdims=True)
    return ((held_out - fitted) ** 2).mean(axis=2) - (held_out**2).mean(axis=2)


@pytest.mark.parametrize(("splits", "naive_at_most"), [(10, 0.75), (30, 0.5)])
def test_the_interval_covers_the_truth_and_the_uncorrected_one_is_too_narrow(splits: int, naive_at_most: float) -> None:
    samples, share = 100, 0.3
    differences = simulated(samples, splits, share, data_sets=800)
    test = round(share * samples)
    truth = 1 / (samples - test) - 1.0**2  # expectation over data sets of this size
    hits = {"corrected": 0, "naive": 0}
    for d in differences:
        corrected = resplits.paired_difference(d, test_to_train=test / (samples - test))
        naive = resplits.paired_difference(d, test_to_train=0.0)
        hits["corrected"] += corrected.low <= truth <= corrected.high
        hits["naive"] += naive.low <= truth <= naive.high
    assert 0.92 <= hits["corrected"] / len(differences) <= 0.98, hits
    assert hits["naive"] / len(differences) < naive_at_most, hits
