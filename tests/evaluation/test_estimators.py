"""Estimators of scikit-learn and optional packages as baselines of every task, and which rows a table has."""

import numpy as np
import pytest
from scipy import sparse

from m3col import tasks
from m3col.errors import InputError
from m3col.evaluation import baseline_table, estimators
from m3col.evaluation.baseline_forms import Block, Forms
from m3col.evaluation.baseline_table import BaselineTable, Wanted
from tests.tasks import toy_regression
from tune.config import loading

RNG = np.random.default_rng(0)

X, NEW = RNG.normal(size=(60, 5)), RNG.normal(size=(12, 5))

LABELS = {
    "single_label": (X[:, 0] > 0).astype(np.int64) + 2 * (X[:, 1] > 0.8),
    "multi_label": np.stack([X[:, 0] > 0, X[:, 1] > 0, np.ones(60)], axis=1).astype(np.int64),
    "regression": np.stack([X[:, 0], 10 + X[:, 1]], axis=1),
}

INSTALLED = [name for name, estimator in estimators.TABLE.items() if estimator.is_installed]


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("task_name", LABELS)
def test_it_learns_every_task(name, task_name):
    labels = LABELS[task_name]
    width = 4 if task_name == "single_label" else labels.shape[1]
    task = tasks.build(task_name, [str(number) for number in range(width)])
    setting = estimators.TABLE[name].settings[0]
    p = estimators.predict(task, name, setting, X, labels, NEW)
    assert p.shape == (12, width) and np.isfinite(p).all()
    if task_name == "single_label":
        assert p.sum(axis=1) == pytest.approx(1) and ((p[:, 1] + p[:, 3] > 0.5) == (NEW[:, 0] > 0)).mean() > 0.7
    elif task_name == "multi_label":
        assert (p[:, 2] == 1).all() and ((p[:, 0] > 0.5) == (NEW[:, 0] > 0)).mean() > 0.7
    else:
        assert np.corrcoef(p[:, 0], NEW[:, 0])[0, 1] > 0.5 and abs(p[:, 1].mean() - 10) < 1
    again = estimators.predict(task, name, setting, sparse.csr_matrix(X), labels, sparse.csr_matrix(NEW))
    np.testing.assert_allclose(again, p, atol=1e-6)


@pytest.mark.parametrize("name", INSTALLED)
def test_a_class_without_samples_or_with_one_is_no_obstacle(name):
    task = tasks.build(classes=5)
    labels = np.array([0] * 29 + [2] * 30 + [4])
    p = estimators.predict(task, name, estimators.TABLE[name].settings[0], X, labels, NEW)
    assert (p[:, [1, 3]] == 0).all() and p.sum(axis=1) == pytest.approx(1)
    alone = estimators.predict(task, name, {}, X[:3], np.array([2, 2, 2]), NEW)
    assert (alone[:, 2] == 1).all()


def forms(task, labels, columns=3) -> Forms:
    ones = np.ones(len(X), dtype=bool), np.ones(len(NEW), dtype=bool)
    blocks = {"a": Block(X[:, :2], NEW[:, :2], *ones), "late": Block(X[:, 2:], NEW[:, 2:], *ones)}
    return Forms(task, labels, blocks)


def test_rows_of_a_table_and_a_modality_named_like_a_form():
    task = tasks.build(classes=4)
    table = BaselineTable(task, Wanted.of(True))
    made = forms(task, LABELS["single_label"])
    rows = dict(table.fixed(made, None, ()))
    base = ["", " a", " late (modality)", " late", " stacked"]
    assert [*rows] == [
        "majority", *(f"logistic{form}" for form in base), *(f"logistic tuned{form}" for form in base),
        "logistic grouped", "cooperative",
    ]  # fmt: skip
    chosen = dict(table.candidates(made))
    wanted = [name for name in INSTALLED]
    assert [*chosen] == [f"{name}{form}" for name in wanted for form in ("", " late")]
    late = chosen["random_forest late"][0].predictions(task, made)
    parts = [
        estimators.predict(task, "random_forest", {"min_samples_leaf": 1}, block.train, made.labels, block.apply)
        for block in made.blocks.values()
    ]
    np.testing.assert_allclose(late, np.mean(parts, axis=0))


def test_what_takes_long_is_left_out_with_the_reason_unless_it_is_named(monkeypatch):
    task = tasks.build(classes=4)
    made = forms(task, LABELS["single_label"])
    monkeypatch.setattr(baseline_table, "_MOST_WORK", {baseline_table.TUNED: 10})
    few = estimators.Estimator(*[None] * 2, most_samples=5)
    monkeypatch.setitem(estimators.TABLE, "svm", few)
    table = BaselineTable(task, Wanted.of(True))
    assert not any("tuned" in row for row, _ in table.fixed(made, None, ()))
    assert not any("svm" in row for row, _ in table.candidates(made))
    assert table.left_out["svm"] == "60 training samples are more than 5; name it in final.baselines to have it"
    assert table.left_out["linear_tuned"].startswith("1,200 values times outputs are more than 10;")
    named = BaselineTable(task, Wanted.of(["linear_tuned", "svm"]))
    assert any("tuned" in row for row, _ in named.fixed(made, None, ())) and named.left_out == {}
    assert [row for row, _ in named.candidates(made)] == ["svm", "svm late"]


def test_faults_of_the_key():
    assert baseline_table.faults(True) == baseline_table.faults(["linear", "svm"]) == []
    missing = [name for name in estimators.TABLE if name not in INSTALLED]
    assert baseline_table.faults(["sv", "linear", "linear", *missing]) == [
        "'sv' is unknown; did you mean 'svm'?",
        *(f"{name!r} needs the package {name}, which is not installed" for name in missing),
        "'linear' is given twice",
    ]


def test_a_task_that_says_nothing_of_its_labels_has_linear_rows_only():
    task = toy_regression.ToyRegression(["x", "y"])
    table = BaselineTable(task, Wanted.of(True))
    made = forms(task, LABELS["regression"])
    assert {row.split(" ")[0] for row, _ in table.fixed(made, None, ())} == {"mean", "least"}
    assert [*table.candidates(made)] == []


def test_a_search_says_what_is_wrong_with_the_key():
    with pytest.raises(InputError, match=r"overrides: final.baselines 'sv' is unknown; did you mean 'svm'\?, but got"):
        loading.load("digits", overrides={"final.baselines": ["sv"]})
    with pytest.raises(InputError, match=r"final\.baselines must be true or false or a list"):
        loading.load("digits", overrides={"final.baselines": "yes"})
