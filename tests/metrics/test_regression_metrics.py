"""Metrics of numbers against loops in float64, and against scikit-learn and SciPy."""

import math

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn import metrics as sk

from m3col.errors import InputError
from m3col.metrics import intervals, regression, spec

RNG = np.random.default_rng(5)
N, K = 19, 3
TARGETS = RNG.normal(size=(N, K)) * [1.0, 100.0, 0.01] + [0.0, -50.0, 1e6]
PREDICTIONS = TARGETS + RNG.normal(size=(N, K)) * [0.5, 90.0, 0.02]


def slow(name: str, targets, predictions) -> float:
    """A metric by loops over samples and targets."""
    values = []
    for k in range(len(targets[0])):
        y, p = [row[k] for row in targets], [row[k] for row in predictions]
        mean_y, mean_p = math.fsum(y) / len(y), math.fsum(p) / len(p)
        errors = [a - b for a, b in zip(y, p, strict=True)]
        spread = math.fsum((a - mean_y) ** 2 for a in y)
        if name == "mse":
            values.append(math.fsum(e * e for e in errors) / len(y))
        elif name == "mae":
            values.append(math.fsum(abs(e) for e in errors) / len(y))
        elif name == "r2":
            values.append(1 - math.fsum(e * e for e in errors) / spread)
        else:
            together = math.fsum((a - mean_y) * (b - mean_p) for a, b in zip(y, p, strict=True))
            values.append(together / math.sqrt(spread * math.fsum((b - mean_p) ** 2 for b in p)))
    return sum(values) / len(values)


@pytest.mark.parametrize("name", regression.NAMES)
def test_it_is_the_value_of_the_loops(name):
    value = regression.compute(TARGETS, PREDICTIONS)[name]
    assert value == pytest.approx(slow(name, TARGETS.tolist(), PREDICTIONS.tolist()), rel=1e-9)
    assert spec.higher_is_better(name) == (name in ("r2", "pearson"))


def test_they_are_those_of_scikit_learn_and_scipy():
    values = regression.compute(TARGETS, PREDICTIONS)
    assert values["mse"] == pytest.approx(sk.mean_squared_error(TARGETS, PREDICTIONS))
    assert values["mae"] == pytest.approx(sk.mean_absolute_error(TARGETS, PREDICTIONS))
    assert values["r2"] == pytest.approx(sk.r2_score(TARGETS, PREDICTIONS))
    correlations = [pearsonr(TARGETS[:, k], PREDICTIONS[:, k]).statistic for k in range(K)]
    assert values["pearson"] == pytest.approx(np.mean(correlations))


@pytest.mark.parametrize("name", regression.NAMES)
def test_a_bootstrap_draw_is_the_samples_repeated(name):
    counts = intervals.bootstrap_counts(np.zeros(N, dtype=np.int64), draws=30, seed=1)
    drawn = regression.bootstrap_scores(name, TARGETS, PREDICTIONS, counts)
    for score, count in zip(drawn, counts, strict=True):
        again = regression.compute(np.repeat(TARGETS, count, 0), np.repeat(PREDICTIONS, count, 0))[name]
        assert score == pytest.approx(again, rel=1e-9)


@pytest.mark.parametrize("name", regression.NAMES)
def test_equal_predictions_have_equal_scores_whatever_their_memory_layout(name):
    counts = intervals.bootstrap_counts(np.zeros(N, dtype=np.int64), draws=30, seed=1)
    one, other = (
        regression.bootstrap_scores(name, TARGETS, np.array(PREDICTIONS, order=order), counts) for order in "CF"
    )
    assert np.array_equal(one, other)


def test_what_does_not_vary_has_no_correlation():
    flat = np.tile(TARGETS.mean(axis=0), (N, 1))
    assert regression.compute(TARGETS, flat)["pearson"] == 0.0
    assert regression.compute(TARGETS, flat)["r2"] == pytest.approx(0.0, abs=1e-9)
    values = regression.compute(flat, PREDICTIONS)
    assert np.isnan(values["r2"]) and np.isnan(values["pearson"]) and np.isfinite(values["mse"])
    half = np.column_stack([TARGETS[:, 0], flat[:, 1]])
    expected = regression.compute(TARGETS[:, :1], PREDICTIONS[:, :1])
    assert regression.compute(half, PREDICTIONS[:, :2])["r2"] == pytest.approx(expected["r2"])


def test_a_model_that_diverged_has_no_value():
    broken = PREDICTIONS.copy()
    broken[0, 0] = np.inf
    assert all(np.isnan(value) for value in regression.compute(TARGETS, broken).values())
    assert all(np.isnan(value) for value in regression.cross_validated([TARGETS], [broken]).values())


def test_over_folds_correlations_are_averaged_and_the_others_pooled():
    folds = [slice(0, 8), slice(8, N)]
    shifted = PREDICTIONS + np.repeat([[0.0], [40.0]], [8, N - 8], axis=0)  # the models of two folds
    targets, predictions = ([part[fold] for fold in folds] for part in (TARGETS, shifted))
    values = regression.cross_validated(targets, predictions)
    assert values["mse"] == pytest.approx(regression.compute(TARGETS, shifted)["mse"])
    each = [regression.compute(*fold)["pearson"] for fold in zip(targets, predictions, strict=True)]
    assert values["pearson"] == pytest.approx(np.mean(each))
    assert values["pearson"] != pytest.approx(regression.compute(TARGETS, shifted)["pearson"], rel=1e-3)


def test_every_fault_is_named_at_once():
    with pytest.raises(InputError) as error:
        regression.compute([[0.0, np.nan]], [0.0, 1.0])
    assert [line.partition(" must ")[0] for line in error.value.faults] == ["predictions", "targets", "targets"]
    with pytest.raises(InputError, match="'rsquared' is not one of numbers"):
        regression.require("rsquared")
