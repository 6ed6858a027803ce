"""AUROC of several classes and of the confidence, and the expected calibration error: slow twins, and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from m3col.errors import InputError
from m3col.metrics import classification, intervals, ranking

RNG = np.random.default_rng(0)

LABELS = RNG.integers(4, size=80)

P = classification.softmax(RNG.normal(size=(80, 4)) + 1.2 * np.eye(4)[LABELS])

ROUNDED = np.round(P, 1) / np.round(P, 1).sum(axis=1, keepdims=True)  # with ties


def slow_auroc(positive, values):
    pairs = [(v > w) + (v == w) / 2 for v in values[positive] for w in values[~positive]]
    return np.mean(pairs)


@pytest.mark.parametrize("p", [P, ROUNDED])
def test_it_is_the_share_of_pairs_in_order_and_scikit_learns(p):
    values = classification.compute(LABELS, p)
    by_class = [slow_auroc(k == LABELS, p[:, k]) for k in range(4)]
    counts = np.bincount(LABELS)
    assert values["auroc_macro"] == pytest.approx(np.mean(by_class), abs=1e-12)
    assert values["auroc_weighted"] == pytest.approx(np.average(by_class, weights=counts), abs=1e-12)
    for average in ("macro", "weighted"):
        expected = roc_auc_score(LABELS, p, multi_class="ovr", average=average)
        assert values[f"auroc_{average}"] == pytest.approx(expected, abs=1e-12)
    right = p.argmax(axis=1) == LABELS
    assert values["confidence_auroc"] == pytest.approx(slow_auroc(right, p.max(axis=1)), abs=1e-12)


def test_calibration_error_is_its_definition():
    right, confidence = P.argmax(axis=1) == LABELS, P.max(axis=1)
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence >= low) & (confidence < low + 1 / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert classification.score("ece", LABELS, P) == pytest.approx(total, abs=1e-12)
    assert classification.score("ece", [0, 1], [[1.0, 0.0], [0.0, 1.0]]) == 0.0


def test_influences_are_derivatives_of_the_score():
    score, influence = ranking.over_classes(LABELS, P, weighted=False)
    assert influence.sum() == pytest.approx(0, abs=1e-12)
    # The sample is there twice instead of once, which differs from the derivative in second order.
    for sample in (0, 7, 31):
        twice = np.append(np.arange(80), sample)
        exact = ranking.over_classes(LABELS[twice], P[twice], weighted=False)[0]
        assert exact - score == pytest.approx(influence[sample], rel=0.1, abs=2e-5)


@pytest.mark.parametrize("metric", ["auroc_macro", "auroc_weighted", "confidence_auroc", "ece"])
def test_bootstrap_scores_spread_like_those_of_repeated_samples(metric):
    counts = intervals.bootstrap_counts(LABELS, draws=400)
    drawn = intervals.bootstrap_scores(metric, LABELS, P, counts)
    repeated = [np.repeat(np.arange(80), row) for row in counts]
    exact = np.array([classification.score(metric, LABELS[rows], P[rows]) for rows in repeated])
    assert np.std(drawn) == pytest.approx(np.std(exact), rel=0.08)
    assert np.corrcoef(drawn, exact)[0, 1] > 0.98
    if metric == "ece":
        np.testing.assert_allclose(drawn, exact, atol=1e-12)


def test_where_nothing_can_be_ranked_it_is_nan():
    assert np.isnan(classification.score("auroc_macro", [1, 1], [[0.1, 0.8, 0.1]] * 2))
    assert np.isnan(classification.score("confidence_auroc", [1, 0], [[0.1, 0.9], [0.8, 0.2]]))
    assert np.isnan(classification.score("auroc_weighted", [1, 0], [[np.nan, 0.5, 0.5], [0.8, 0.1, 0.1]]))
    absent = classification.compute([0, 1, 0, 1], [[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]] * 2)
    assert absent["auroc_macro"] == 1.0
    with pytest.raises(InputError, match="'auroc_macro' is for three classes or more"):
        classification.score("auroc_macro", [0, 1], [[0.5, 0.5]] * 2)
    with pytest.raises(InputError, match="'auroc' is for two classes only"):
        classification.score("auroc", LABELS, P)


def test_over_folds_they_are_averaged():
    first, second = slice(0, 40), slice(40, 80)
    folds = [classification.compute(LABELS[rows], P[rows]) for rows in (first, second)]
    whole = classification.cross_validated([LABELS[first], LABELS[second]], [P[first], P[second]])
    for name in ("auroc_macro", "auroc_weighted", "confidence_auroc"):
        assert whole[name] == pytest.approx(np.mean([fold[name] for fold in folds]))
    assert whole["ece"] == pytest.approx(classification.score("ece", LABELS, P))
