"""One table of facts about metrics: each fact against what the metric does."""

import numpy as np
import pytest

from m3col import metrics
from m3col.errors import InputError
from m3col.metrics import classification, multilabel, regression, spec

RNG = np.random.default_rng(3)
LABELS = np.arange(30) % 2
PROBABILITIES = classification.softmax(RNG.normal(size=(30, 2)) + np.eye(2)[LABELS])
PERFECT, WRONG = np.eye(2)[LABELS], np.eye(2)[1 - LABELS]
REPORTED = classification.names(2)
OF_CONFIDENCE = "confidence_auroc"  # without a wrong prediction, or a right one, it is undefined


@pytest.mark.parametrize("name", [name for name in REPORTED if name != OF_CONFIDENCE])
def test_the_direction_is_that_in_which_a_perfect_prediction_lies(name):
    best, worst = (classification.score(name, LABELS, p) for p in (PERFECT, WRONG))
    assert (best > worst) == spec.of(name).higher_is_better


@pytest.mark.parametrize("name", REPORTED)
def test_metrics_per_sample_are_the_mean_of_scores_of_single_samples(name):
    y, p = np.array([0, 1, 2] * 5 + [0] * 15), classification.softmax(RNG.normal(size=(30, 3)))
    if name not in classification.names(3):
        assert not spec.of(name).per_sample
        return
    single = [classification.score(name, y[i : i + 1], p[i : i + 1]) for i in range(30)]
    assert np.isclose(np.mean(single), classification.score(name, y, p)) == spec.of(name).per_sample


@pytest.mark.parametrize("name", REPORTED)
def test_ranking_metrics_ignore_what_keeps_the_order(name):
    squeezed = np.column_stack([1 - PROBABILITIES[:, 1] / 4, PROBABILITIES[:, 1] / 4])
    if name == OF_CONFIDENCE:  # the order of the largest probabilities, with the same predictions
        squeezed = 0.5 + (PROBABILITIES - 0.5) / 4
    before, after = (classification.score(name, LABELS, p) for p in (PROBABILITIES, squeezed))
    assert (before == pytest.approx(after)) == spec.of(name).ranking


def test_losses_are_shown_as_they_are_and_the_rest_in_percent():
    plain = {"log_loss", "brier", "ece", "loss", "ce", "bce", "nmse", *regression.NAMES}
    assert {s.name for s in spec.TABLE.values() if s.unit == ""} == plain
    assert {s.name for s in spec.TABLE.values() if s.unit == "%"} == {
        *REPORTED, *classification.names(3), *multilabel.NAMES,
    } - plain  # fmt: skip
    assert all(s.bounded == (s.unit == "%" or s.name in ("r2", "pearson")) for s in spec.TABLE.values())
    assert {s.name for s in spec.TABLE.values() if s.has_unit} == {"mse", "mae"}


@pytest.mark.parametrize(
    ("reported", "name"),
    [("auroc", "auroc"), ("val/accuracy_a b", "accuracy"), ("val/accuracy_a/b", "accuracy"), ("val/ce_fused", "ce"),
     ("train/loss_contrastive", "loss"), ("test/log_loss", "log_loss")],
)  # fmt: skip
def test_reported_names_lead_to_their_entry(reported, name):
    assert spec.of(reported).name == name
    assert metrics.higher_is_better(reported) == spec.of(name).higher_is_better


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(InputError, match="'val/acuracy_a' is unknown; did you mean 'accuracy'"):
        spec.of("val/acuracy_a")


def test_a_metric_of_a_method_of_ones_own_is_shown_as_well():
    assert spec.text("val/agreement", 0.25) == "0.2500" and spec.text("val/mse_fused", 1234567.0) == "1.235e+06"
