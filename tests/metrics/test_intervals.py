"""Draws, intervals against their formula and by simulation, Holm. The scores of draws: test_metrics.py."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import t as student_t

from m3col.errors import InputError
from m3col.metrics import classification, intervals
from m3col.metrics.classification import Floats, Labels


def predictions(num_classes: int, n: int) -> tuple[Labels, Floats]:
    """Labels, each class among them, and probabilities better than chance."""
    rng = np.random.default_rng(n)
    y = np.arange(n) % num_classes
    return y, classification.softmax(rng.normal(size=(n, num_classes)) + np.eye(num_classes)[y])


@pytest.mark.parametrize("metric", classification.names(2))
def test_undefined_draws_and_diverged_models(metric: str) -> None:
    y, p = predictions(2, 12)
    only_positives = np.stack([y, np.ones_like(y)])
    scores = intervals.bootstrap_scores(metric, y, p, only_positives)
    assert np.isnan(scores[0]) == (metric in ("auroc", "average_precision"))
    assert scores[1] == pytest.approx(classification.score(metric, y, p))
    p[3] = np.nan
    assert np.isnan(intervals.bootstrap_scores(metric, y, p, only_positives)).all()


def test_blocks_do_not_change_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    y, p = predictions(2, 40)
    counts = intervals.bootstrap_counts(y, draws=50)
    whole = intervals.bootstrap_scores("auroc", y, p, counts)
    monkeypatch.setattr(intervals, "_BLOCK", 7 * 40)
    np.testing.assert_array_equal(intervals.bootstrap_scores("auroc", y, p, counts), whole)


def test_draws_keep_class_sizes_and_are_those_of_a_multinomial() -> None:
    y = np.repeat([0, 1, 2], [50, 8, 1])
    counts = intervals.bootstrap_counts(y, draws=4000, seed=1)
    for label, size in enumerate([50, 8, 1]):
        assert (counts[:, y == label].sum(axis=1) == size).all()
        assert counts[:, y == label].mean(axis=0) == pytest.approx(1, abs=0.1)
        assert counts[:, y == label].var(axis=0) == pytest.approx(1 - 1 / size, abs=0.15)
    np.testing.assert_array_equal(counts, intervals.bootstrap_counts(y, draws=4000, seed=1))
    assert (counts != intervals.bootstrap_counts(y, draws=4000, seed=2)).any()


def test_groups_are_drawn_whole_within_their_class() -> None:
    y = np.array([0, 0, 1, 1, 1, 0, 1, 0, 0])
    groups = np.array(["a", "a", "b", "b", "c", "d", "c", "d", "e"])
    counts = intervals.bootstrap_counts(y, draws=300, groups=groups)
    per_group = np.stack([counts[:, groups == g][:, 0] for g in "abcde"], axis=1)
    for column, group in enumerate("abcde"):
        assert (counts[:, groups == group] == per_group[:, [column]]).all()
    assert (per_group[:, [0, 3, 4]].sum(axis=1) == 3).all()
    assert (per_group[:, [1, 2]].sum(axis=1) == 2).all()
    assert per_group.max() > 1


def test_interval_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=500)
    boots = 0.8 + 0.03 * shared + 0.01 * rng.normal(size=(4, 500))
    scores = np.array([0.80, 0.86, 0.70, 0.83])
    got = intervals.interval(scores, boots, 106)
    v_bar = np.var(np.mean(boots, axis=0), ddof=1)
    v_one = sum(np.var(row, ddof=1) for row in boots) / 4
    s2 = sum((score - scores.mean()) ** 2 for score in scores) / 3
    v = v_bar + s2 / 4 - (v_one - v_bar) / 3
    assert v > max(v_bar, s2 / 4)
    df = v**2 / ((s2 / 4) ** 2 / 3 + v_bar**2 / 105)
    assert got.variance == pytest.approx(v)
    assert got.df == pytest.approx(df)
    assert got.low == pytest.approx(scores.mean() - student_t.ppf(0.975, df) * v**0.5)
    assert got.high == pytest.approx(scores.mean() + student_t.ppf(0.975, df) * v**0.5)
    assert got.smallest_visible == pytest.approx(2.8 * v**0.5)
    assert (got.seeds, got.samples, got.covers_seeds) == (4, 106, True)


@pytest.mark.parametrize(
    ("scores", "noise", "expected"), [([0.5, 0.5, 0.5], 0.05, "v_bar"), ([0.4, 0.5, 0.6], 0.2, "seeds")]
)
def test_variance_is_never_below_its_parts(scores: list[float], noise: float, expected: str) -> None:
    boots = 0.5 + noise * np.random.default_rng(1).normal(size=(3, 400))
    if expected == "seeds":
        boots -= boots.mean(axis=0)  # the seed mean does not vary over draws
    parts = {"v_bar": boots.mean(axis=0).var(ddof=1), "seeds": np.var(scores, ddof=1) / 3}
    assert intervals.interval(scores, boots, 50).variance == pytest.approx(parts[expected])


def test_one_seed_has_the_sampling_variance_alone_and_says_so() -> None:
    boots = np.random.default_rng(2).normal(0.7, 0.04, size=(1, 1000))
    got = intervals.interval([0.7], boots, 80)
    assert got.variance == pytest.approx(boots.var(ddof=1))
    assert got.df == pytest.approx(79)
    assert not got.covers_seeds


def test_p_value_agrees_with_the_interval() -> None:
    boots = np.random.default_rng(3).normal(0, 0.02, size=(3, 800))
    differences = np.array([0.01, 0.02, 0.03])
    got = intervals.interval(differences, boots + differences[:, None], 200)
    ratio = got.estimate / got.variance**0.5
    assert got.p_value == pytest.approx(2 * (1 - student_t.cdf(ratio, got.df)))
    edge = student_t.ppf(0.975, got.df) * got.variance**0.5
    for shift, distinguishable in ((0.999 * edge, False), (1.001 * edge, True), (-1.001 * edge, True)):
        moved = intervals.interval(differences - differences.mean() + shift, boots, 200)
        assert moved.excludes_zero is distinguishable
        assert (moved.p_value < 0.05) is distinguishable


def test_identical_settings_do_not_differ_and_undefined_stays_undefined() -> None:
    same = intervals.interval(np.zeros(3), np.zeros((3, 100)), 50)
    assert (same.low, same.high, same.p_value, same.excludes_zero) == (0, 0, 1, False)
    never = intervals.interval([0.5], np.full((1, 100), np.nan), 50)
    assert np.isnan([never.low, never.high, never.p_value]).all()
    assert not never.excludes_zero
    holes = np.random.default_rng(0).normal(size=(2, 100))
    holes[0, :10] = np.nan
    assert intervals.interval([0, 1], holes, 50) == intervals.interval([0, 1], holes[:, 10:], 50)


def test_holm() -> None:
    assert intervals.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert intervals.holm([0.6, 0.7]) == [1.0, 1.0]
    adjusted = intervals.holm([0.02, float("nan"), 0.03])
    assert adjusted == pytest.approx([0.04, np.nan, 0.04], nan_ok=True)
    assert intervals.holm([]) == []
    with pytest.raises(InputError, match="from 0 to 1"):
        intervals.holm([1.5])


def test_bad_input_is_named_all_at_once() -> None:
    with pytest.raises(InputError) as caught:
        intervals.bootstrap_counts([0.5, 1.0], draws=1, groups=["a"])
    assert [line.split()[0] for line in caught.value.faults] == ["labels", "groups", "draws"]
    with pytest.raises(InputError, match=r"counts must have the shape \[draws, 2\]"):
        intervals.bootstrap_scores("accuracy", [0, 1], [[0.5, 0.5]] * 2, np.ones((5, 3)))
    with pytest.raises(InputError, match=r"boots must have the shape \[2 seeds, draws\](.|\n)*n must be >= 2"):
        intervals.interval([0.1, 0.2], np.zeros((3, 5)), 1)


@pytest.mark.parametrize(("num_classes", "metric"), [(10, "macro_f1"), (10, "log_loss"), (2, "auroc")])
def test_two_thousand_draws_of_a_real_test_set_take_less_than_a_second(num_classes: int, metric: str) -> None:
    y, p = predictions(num_classes, 1600)
    counts = intervals.bootstrap_counts(y)
    start = time.process_time()
    intervals.bootstrap_scores(metric, y, p, counts)
    assert time.process_time() - start < 1


def simulated_logits(rng: np.random.Generator, y: NDArray[np.int64], seeds: int) -> Floats:
    """Logit of class 1 [R, N]: signal, difficulty of the sample, bias of the seed, and the rest."""
    signal, difficulty = 1.2 * (2 * y - 1), rng.normal(size=len(y))
    bias, rest = rng.normal(scale=0.3, size=(seeds, 1)), rng.normal(scale=0.5, size=(seeds, len(y)))
    return signal + difficulty + bias + rest


def seed_only(scores: Floats, truth: float) -> bool:
    half = student_t.ppf(0.975, len(scores) - 1) * scores.std(ddof=1) / len(scores) ** 0.5
    return bool(abs(scores.mean() - truth) <= half)


@pytest.mark.parametrize(("seeds", "seed_only_at_most"), [(3, 0.90), (5, 0.75), (25, 0.55)])
def test_interval_covers_the_true_accuracy(seeds: int, seed_only_at_most: float) -> None:
    """1,500 experiments on 106 test samples; the truth is the accuracy over all samples and seeds."""
    rng = np.random.default_rng(11)
    y = np.repeat([0, 1], [53, 53])
    counts = intervals.bootstrap_counts(y, draws=300).astype(np.float64)
    noise = (1 + 0.3**2 + 0.5**2) ** 0.5
    truth = float(student_t.cdf(1.2 / noise, 1e9))
    ours, naive = [], []
    for _ in range(1500):
        correct = ((simulated_logits(rng, y, seeds) > 0) == y).astype(np.float64)
        scores = correct.mean(axis=1)
        got = intervals.interval(scores, correct @ counts.T / len(y), len(y))
        ours.append(got.low <= truth <= got.high)
        naive.append(seed_only(scores, truth))
    assert 0.92 <= np.mean(ours) <= 0.98
    assert np.mean(naive) < seed_only_at_most


def test_interval_covers_the_true_auroc() -> None:
    rng = np.random.default_rng(12)
    y = np.repeat([0, 1], [53, 53])
    counts = intervals.bootstrap_counts(y, draws=200)
    # Two samples of one seed differ by N(2.4, 2 (1 + 0.5^2)); the seed's bias cancels.
    truth = float(student_t.cdf(2.4 / (2 * 1.25) ** 0.5, 1e9))
    ours, naive = [], []
    for _ in range(300):
        logits = simulated_logits(rng, y, 5)
        models = [classification.softmax(np.stack([0 * z, z], axis=1)) for z in logits]
        scores = np.array([classification.score("auroc", y, p) for p in models])
        boots = np.stack([intervals.bootstrap_scores("auroc", y, p, counts) for p in models])
        got = intervals.interval(scores, boots, len(y))
        ours.append(got.low <= truth <= got.high)
        naive.append(seed_only(scores, truth))
    assert 0.89 <= np.mean(ours) <= 0.98
    assert np.mean(naive) < 0.75
