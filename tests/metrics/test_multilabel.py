"""Metrics of several labels per sample against loops in float64, and against scikit-learn."""

import itertools
import math
import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from m3col.errors import InputError
from m3col.metrics import intervals, multilabel, spec

RNG = np.random.default_rng(3)
N, C = 23, 4
LABELS = (RNG.random((N, C)) < [0.5, 0.2, 0.7, 0.1]).astype(np.int64)
LABELS[:, 3] = 0
LABELS[4, 3] = 1
LABELS[7] = 0  # a sample without labels
PROBABILITIES = np.round(0.5 * LABELS + 0.7 * RNG.random((N, C)), 1).clip(0, 1)  # with ties, also at 0.5
THRESHOLDS = np.array([0.5, 0.3, 0.65, 0.5])


def f1(hits: float, support: float, predicted: float) -> float:
    return 0.0 if support + predicted == 0 else 2 * hits / (support + predicted)


def slow(name: str, labels, probabilities, thresholds) -> float:
    """A metric by loops over samples and labels."""
    rows, columns = range(len(labels)), range(len(labels[0]))
    decided = [[1 if probabilities[i][c] > thresholds[c] else 0 for c in columns] for i in rows]
    if name == "log_loss":
        total = sum(-math.log(p if y else 1 - p) for y, p in zip(np.ravel(labels), clipped(probabilities), strict=True))
        return total / (len(labels) * len(columns))
    if name == "subset_accuracy":
        return sum(all(decided[i][c] == labels[i][c] for c in columns) for i in rows) / len(labels)
    if name == "samples_f1":
        return sum(f1(sum(a * b for a, b in zip(labels[i], decided[i], strict=True)), sum(labels[i]), sum(decided[i]))
                   for i in rows) / len(labels)  # fmt: skip
    if name == "map":
        values = [average_precision([row[c] for row in labels], [row[c] for row in probabilities]) for c in columns]
        return sum(v for v in values if v is not None) / sum(v is not None for v in values)
    counts = [
        (sum(labels[i][c] * decided[i][c] for i in rows), sum(labels[i][c] for i in rows),
         sum(decided[i][c] for i in rows)) for c in columns
    ]  # fmt: skip
    if name == "micro_f1":
        return f1(*(sum(part) for part in zip(*counts, strict=True)))
    if name == "macro_f1":
        return sum(f1(*count) for count in counts) / len(counts)
    return sum(f1(*count) * count[1] for count in counts) / sum(count[1] for count in counts)


def clipped(probabilities) -> list[float]:
    eps = float(np.finfo(np.float64).eps)
    return [min(max(float(p), eps), 1 - eps) for p in np.ravel(probabilities)]


def average_precision(truth, scores) -> float | None:
    if not 0 < sum(truth) < len(truth):
        return None
    area, before = 0.0, 0.0
    for level in sorted(set(scores), reverse=True):
        above = [y for y, s in zip(truth, scores, strict=True) if s >= level]
        recall = sum(above) / sum(truth)
        area += (recall - before) * sum(above) / len(above)
        before = recall
    return area


@pytest.mark.parametrize("name", multilabel.NAMES)
def test_it_is_the_value_of_the_loops(name):
    value = multilabel.compute(LABELS, PROBABILITIES, THRESHOLDS)[name]
    assert value == pytest.approx(slow(name, LABELS.tolist(), PROBABILITIES.tolist(), THRESHOLDS), abs=1e-9)
    assert spec.of(name).per_sample == (name in ("samples_f1", "subset_accuracy", "log_loss"))


def test_they_are_those_of_scikit_learn():
    decided, values = (PROBABILITIES > 0.5).astype(int), multilabel.compute(LABELS, PROBABILITIES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about samples without labels
        for average in ("micro", "macro", "weighted", "samples"):
            expected = sk.f1_score(LABELS, decided, average=average, zero_division=0)
            assert values[f"{average}_f1"] == pytest.approx(expected, abs=1e-12)
    assert values["subset_accuracy"] == sk.accuracy_score(LABELS, decided)
    assert values["map"] == pytest.approx(sk.average_precision_score(LABELS, PROBABILITIES, average="macro"))
    losses = [sk.log_loss(LABELS[:, c], PROBABILITIES[:, c], labels=[0, 1]) for c in range(C)]
    assert values["log_loss"] == pytest.approx(np.mean(losses))


@pytest.mark.parametrize("name", multilabel.NAMES)
def test_a_bootstrap_draw_is_the_samples_repeated(name):
    counts = intervals.bootstrap_counts(np.zeros(N, dtype=np.int64), draws=30, seed=1)
    drawn = multilabel.bootstrap_scores(name, LABELS, PROBABILITIES, counts, THRESHOLDS)
    for score, count in zip(drawn, counts, strict=True):
        again = multilabel.compute(np.repeat(LABELS, count, 0), np.repeat(PROBABILITIES, count, 0), THRESHOLDS)[name]
        assert score == pytest.approx(again, abs=1e-9)


def test_labels_without_a_positive_or_a_negative_sample_are_left_out_of_map():
    labels = np.array([[1, 0, 1], [1, 0, 0], [1, 0, 1]])
    probabilities = np.array([[0.2, 0.3, 0.9], [0.5, 0.1, 0.4], [0.3, 0.2, 0.8]])
    assert multilabel.compute(labels, probabilities)["map"] == 1.0
    assert np.isnan(multilabel.compute(labels[:, :2], probabilities[:, :2])["map"])


def test_a_model_that_diverged_has_no_value():
    broken = PROBABILITIES.copy()
    broken[3, 1] = np.nan
    assert all(np.isnan(value) for value in multilabel.compute(LABELS, broken).values())


def slow_threshold(truth, scores) -> float:
    levels = sorted(set(scores))
    candidates = sorted({0.5, levels[0] / 2, *((a + b) / 2 for a, b in itertools.pairwise(levels))})
    best, chosen = -1.0, 0.5
    for candidate in sorted(candidates, key=lambda t: (abs(t - 0.5), t)):
        decided = [score > candidate for score in scores]
        value = f1(sum(d and y for d, y in zip(decided, truth, strict=True)), sum(truth), sum(decided))
        if value > best:
            best, chosen = value, candidate
    return chosen


def test_thresholds_have_the_highest_f1_and_are_near_a_half_otherwise():
    chosen = multilabel.best_thresholds(LABELS, PROBABILITIES)
    expected = [slow_threshold(LABELS[:, c].tolist(), PROBABILITIES[:, c].tolist()) for c in range(C)]
    assert chosen.tolist() == pytest.approx(expected)
    assert multilabel.best_thresholds([[0], [0]], [[0.3], [0.1]]).tolist() == [0.5]
    assert multilabel.best_thresholds([[0], [1]], [[0.3], [np.nan]]).tolist() == [0.5]
    assert multilabel.best_thresholds([[0], [1]], [[0.1], [0.9]]).tolist() == [0.5]
    # A constant prediction has its highest F1 where the label is predicted everywhere.
    assert multilabel.best_thresholds([[0], [0], [1]], [[0.3], [0.3], [0.3]]).tolist() == [0.15]


def test_no_sample_chooses_its_own_threshold():
    folds = [slice(0, 9), slice(9, N)]
    labels, probabilities = ([part[fold] for fold in folds] for part in (LABELS, PROBABILITIES))
    values = multilabel.cross_validated(labels, probabilities, tune=True)
    decided = np.concatenate([
        multilabel.decide(probabilities[0], multilabel.best_thresholds(labels[1], probabilities[1])),
        multilabel.decide(probabilities[1], multilabel.best_thresholds(labels[0], probabilities[0])),
    ])  # fmt: skip
    assert values["micro_f1"] == pytest.approx(sk.f1_score(LABELS, decided, average="micro"))
    each = [multilabel.compute(*fold)["map"] for fold in zip(labels, probabilities, strict=True)]
    assert values["map"] == pytest.approx(np.mean(each))
    one = multilabel.cross_validated([LABELS], [PROBABILITIES], tune=True)
    halves = multilabel.cross_validated([LABELS[0::2], LABELS[1::2]], [PROBABILITIES[0::2], PROBABILITIES[1::2]],
                                        tune=True)  # fmt: skip
    assert one["macro_f1"] == pytest.approx(halves["macro_f1"])
    # What noise would gain by choosing its own thresholds.
    noise = np.random.default_rng(0).random((60, 1))
    truth = (np.random.default_rng(1).random((60, 1)) < 0.2).astype(int)
    own = multilabel.compute(truth, noise, multilabel.best_thresholds(truth, noise))["macro_f1"]
    assert multilabel.cross_validated([truth], [noise], tune=True)["macro_f1"] < own


def test_every_fault_is_named_at_once():
    with pytest.raises(InputError) as error:
        multilabel.compute([[0, 2], [1, 0]], [[0.1, 1.5], [0.2, 0.3], [0.1, 0.1]])
    assert [line.partition(" must ")[0] for line in error.value.faults] == ["labels", "labels", "probabilities"]
    with pytest.raises(InputError, match="'makro_f1' is not one of several labels per sample; did you mean 'macro_f1'"):
        multilabel.require("makro_f1")
