"""Every metric, of samples and of bootstrap draws, against scikit-learn's own function; undefined ones."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from sklearn import metrics as reference

from m3col.errors import InputError
from m3col.metrics import classification, intervals, spec
from m3col.metrics.classification import Floats, Labels

FUNCTIONS: dict[str, Callable[[Labels, Floats], float]] = {
    "accuracy": lambda y, p: reference.accuracy_score(y, p.argmax(axis=1)),
    "balanced_accuracy": lambda y, p: reference.balanced_accuracy_score(y, p.argmax(axis=1)),
    "macro_f1": lambda y, p: reference.f1_score(y, p.argmax(axis=1), average="macro", zero_division=0),
    "weighted_f1": lambda y, p: reference.f1_score(y, p.argmax(axis=1), average="weighted", zero_division=0),
    "log_loss": lambda y, p: reference.log_loss(y, p, labels=np.arange(p.shape[1])),
    "brier": lambda y, p: reference.brier_score_loss(y, p, labels=np.arange(p.shape[1])),
    "f1": lambda y, p: reference.f1_score(y, p.argmax(axis=1), zero_division=0),
    "auroc": lambda y, p: reference.roc_auc_score(y, p[:, 1]),
    "average_precision": lambda y, p: reference.average_precision_score(y, p[:, 1]),
    "mcc": lambda y, p: reference.matthews_corrcoef(y, p.argmax(axis=1)),
    "ece": lambda y, p: expected_calibration_error(y, p),
    "confidence_auroc": lambda y, p: auroc_of(p.argmax(axis=1) == y, p.max(axis=1)),
    "auroc_macro": lambda y, p: one_against_rest(y, p, np.ones(p.shape[1])),
    "auroc_weighted": lambda y, p: one_against_rest(y, p, np.bincount(y, minlength=p.shape[1])),
}

IN_FIRST_ORDER = ("confidence_auroc", "auroc_macro", "auroc_weighted")  # on bootstrap draws: see test_ranking.py


def auroc_of(positive: Labels, values: Floats) -> float:
    return reference.roc_auc_score(positive, values) if len(set(positive.tolist())) == 2 else np.nan


def one_against_rest(y: Labels, p: Floats, weights: Floats) -> float:
    """scikit-learn's own needs every class among the labels."""
    present = np.unique(y)
    return np.average([auroc_of(y == k, p[:, k]) for k in present], weights=weights[present])


def expected_calibration_error(y: Labels, p: Floats) -> float:
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    bins = np.clip(np.ceil(15 * confidence + 1e-12), 1, 15)
    gaps = [np.sum(confidence[bins == k] - right[bins == k]) for k in range(1, 16)]
    return float(np.abs(gaps).sum() / len(y))


def predictions(num_classes: int, n: int, *, case: str = "plain") -> tuple[Labels, Floats]:
    """Labels and probabilities better than chance; `case` makes them awkward."""
    rng = np.random.default_rng(num_classes + n)
    y = rng.integers(num_classes, size=n)
    y[:num_classes] = np.arange(num_classes)
    p = classification.softmax(rng.normal(size=(n, num_classes)) + 1.2 * np.eye(num_classes)[y])
    if case == "ties":
        p = np.round(p[:, :1], 1) * [1.0] + 0.0
        p = np.hstack([p, (1 - p) / (num_classes - 1) * np.ones((1, num_classes - 1))])
    if case == "certain":
        p = np.eye(num_classes)[p.argmax(axis=1)]
    if case == "absent":  # the last class is neither a label nor a prediction, class 0 is never predicted
        y[y == num_classes - 1], p[:, -1] = 1, 0.0
        p[:, 0] *= 1e-6
        p /= p.sum(axis=1, keepdims=True)
    return y, p


@pytest.mark.filterwarnings("ignore")  # scikit-learn warns of classes without a prediction
@pytest.mark.parametrize(
    ("num_classes", "n", "case"),
    [(c, n, case) for c, n in ((2, 250), (2, 7), (3, 40), (10, 250)) for case in ("plain", "ties", "certain")]
    + [(3, 40, "absent"), (10, 250, "absent")],  # two classes, one absent: undefined, see below
)
def test_every_metric_is_that_of_scikit_learn(num_classes: int, n: int, case: str) -> None:
    y, p = predictions(num_classes, n, case=case)
    values = classification.compute(y, p)
    assert tuple(values) == classification.names(num_classes)
    for name, value in values.items():
        assert value == pytest.approx(FUNCTIONS[name](y, p), abs=1e-12, nan_ok=True), name
        assert classification.score(name, y, p) == pytest.approx(value, abs=0, nan_ok=True)


@pytest.mark.filterwarnings("ignore")  # scikit-learn warns of classes without a prediction
@pytest.mark.parametrize("case", ["plain", "ties", "certain"])
@pytest.mark.parametrize(
    ("metric", "num_classes"), [(m, c) for c in (2, 4) for m in classification.names(c) if m not in IN_FIRST_ORDER]
)
def test_scores_from_counts_are_those_of_the_repeated_samples(metric: str, num_classes: int, case: str) -> None:
    y, p = predictions(num_classes, 37, case=case)
    counts = intervals.bootstrap_counts(y, draws=25, seed=3)
    scores = intervals.bootstrap_scores(metric, y, p, counts)
    for draw, score in zip(counts, scores, strict=True):
        chosen = np.repeat(np.arange(len(y)), draw)
        assert score == pytest.approx(FUNCTIONS[metric](y[chosen], p[chosen]), abs=1e-12)


def test_brier_is_a_sum_over_classes_and_half_of_it_for_two() -> None:
    assert classification.score("brier", [2], [[0.5, 0.5, 0.0]]) == pytest.approx(0.25 + 0.25 + 1.0)
    assert classification.score("brier", [1], [[0.7, 0.3]]) == pytest.approx(0.7**2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("label", "accuracy"), [(0, 1 / 3), (1, 2 / 3)])
def test_one_class_among_the_labels_leaves_the_ranking_metrics_undefined(label: int, accuracy: float) -> None:
    values = classification.compute([label] * 3, [[0.2, 0.8], [0.6, 0.4], [0.1, 0.9]])
    assert {name for name, value in values.items() if np.isnan(value)} == {"auroc", "average_precision"}
    assert values["mcc"] == 0
    assert values["accuracy"] == pytest.approx(accuracy)


def test_a_diverged_model_has_no_metrics_instead_of_flattering_ones() -> None:
    p = classification.softmax([[np.nan, 1.0], [2.0, 1.0], [np.inf, 0.0]])
    assert np.isnan(p[[0, 2]]).all()
    assert all(np.isnan(value) for value in classification.compute([0, 0, 1], p).values())


def test_softmax_survives_large_logits() -> None:
    assert classification.softmax([[1000.0, 1001.0]]) == pytest.approx(classification.softmax([[-1.0, 0.0]]))
    assert classification.softmax(np.zeros((2, 4), dtype=np.float32)).dtype == np.float64


def test_cross_validation_pools_predictions_but_averages_rankings() -> None:
    rng = np.random.default_rng(0)
    labels = [np.repeat([0, 1], [6, 4]), np.repeat([0, 1], [20, 10]), np.repeat([0, 1], [5, 5])]
    # Each fold's scores sit on a scale of its own, so that pooling would change the ranking.
    shifts = [-1.5, 0.0, 1.5]
    logits = [np.stack([0 * y, y + rng.normal(size=len(y)) + s], 1) for y, s in zip(labels, shifts, strict=True)]
    folds = [classification.softmax(z) for z in logits]
    values = classification.cross_validated(labels, folds)
    pooled = classification.compute(np.concatenate(labels), np.concatenate(folds))
    for name in classification.names(2):
        if name in classification.RANKING:
            mean = np.mean([FUNCTIONS[name](y, p) for y, p in zip(labels, folds, strict=True)])
            assert values[name] == pytest.approx(mean)
            assert values[name] > pooled[name] + 0.01 or name == "confidence_auroc"
        else:
            assert values[name] == pooled[name]


def test_a_fold_with_one_class_is_left_out_of_the_mean_but_a_diverged_fold_is_not() -> None:
    y, p = predictions(2, 30)
    single = ([0, 0], [[0.5, 0.5], [0.4, 0.6]])
    values = classification.cross_validated([y, single[0]], [p, single[1]])
    assert values["auroc"] == classification.score("auroc", y, p)
    assert np.isnan(classification.cross_validated([single[0]], [single[1]])["auroc"])
    diverged = classification.cross_validated([y, y], [p, np.full_like(p, np.nan)])
    assert np.isnan(list(diverged.values())).all()


def test_directions_and_defaults() -> None:
    lower = {name for name in classification.names(2) if not spec.higher_is_better(name)}
    assert lower == {"log_loss", "brier", "ece"}
    assert spec.higher_is_better("val/accuracy_mRNA")
    assert not spec.higher_is_better("train/loss_contrastive")
    assert (classification.default(2), classification.default(3)) == ("auroc", "macro_f1")
    with pytest.raises(InputError, match=r"'val/aucroc' is unknown; did you mean 'auroc'"):
        spec.higher_is_better("val/aucroc")


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], [[0.5, 0.5]], r"labels must have the shape \[1\]"),
        ([0], [[1.0]], r"classes >= 2"),
        (np.zeros(0, dtype=int), np.zeros((0, 2)), "at least one sample"),
        ([0, 2], [[0.5, 0.5]] * 2, r"integers from 0 to 1, but are \[0, 2\]"),
        ([0.0, 1.0], [[0.5, 0.5]] * 2, "integers from 0 to 1"),
        ([0, 1], [[0.5, 0.5], [3.0, 1.0]], "row 1 is"),
        ([0, 1], [[0.5, 0.5], [1.5, -0.5]], "row 1 is"),
    ],
)
def test_bad_input_is_named(labels: list[int], probabilities: list[list[float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        classification.compute(labels, probabilities)


def test_a_metric_that_does_not_apply_is_refused() -> None:
    y, p = predictions(3, 20)
    with pytest.raises(InputError, match="'auroc' is for two classes only"):
        classification.score("auroc", y, p)
    with pytest.raises(InputError, match="'acuracy' is unknown; did you mean 'accuracy'"):
        classification.score("acuracy", y, p)
    with pytest.raises(InputError, match="same number >= 1 of folds"):
        classification.cross_validated([], [])


@pytest.mark.parametrize("num_classes", [2, 10])
def test_an_epoch_pays_little_for_all_metrics(num_classes: int) -> None:
    y, p = predictions(num_classes, 250)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        classification.compute(y, p)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.004
