"""Searches for several labels per sample and for numbers, driven by hand: they learn what can be learnt, rank by their
metric in its direction, and show it beside the constant baseline."""

import copy
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import m3col
from m3col import tasks
from m3col.metrics import multilabel, spec
from tests.support import table_labels
from tests.support.driving import coordinator, drive, prepare_study
from tests.support.table_labels import NAMES, QUICK
from tune.results import collect, prediction_table, report
from tune.results.study_results import StudyResults
from tune.study.record import StudyFolder
from tune.tracking import final_results


def study(task: str, runs, **changes) -> StudyFolder:
    """A finished search of three trials with its results."""
    config = {
        "base": "digits",
        "overrides": {**QUICK, "method": "concat", "task": task, "train.epochs": 20, "checkpoint.every_s": 0.0},
        "space": {"train.learning_rate": {"low": 0.001, "high": 0.1, "log": True}},
        "validation": {"kind": "kfold", "folds": 2},
        "search": {"trials": 3, "replicates": 0, "confirm": None},
        "final": {"seeds": 2, "draws": 100, "rows": {"without heads": {"objective.unimodal_supervision": False}}},
    }
    config["overrides"] |= {key.replace("__", "."): value for key, value in changes.items()}
    folder, ready = prepare_study(runs, copy.deepcopy(config), data=table_labels.frames(task))
    drive(coordinator(folder, ready), ready.dataset)
    collect.collect(folder, ready.config, ready.dataset)
    report.write(folder)
    return folder


@pytest.fixture(scope="module", params=["multi_label", "regression"])
def finished(request, tmp_path_factory) -> tuple[str, StudyFolder]:
    # The error of numbers: lower is better.
    changes = {"metric": "val/mse"} if request.param == "regression" else {"threshold": "validation"}
    return request.param, study(request.param, tmp_path_factory.mktemp("runs"), **changes)


def line(folder: StudyFolder, row: str, metric: str) -> pd.Series:
    table = pd.read_csv(folder.results / report.TEST_METRICS)
    return table[(table["row"] == row) & (table["metric"] == metric)].iloc[0]


def test_what_can_be_learnt_stands_in_the_test_table_beside_the_constant_baseline(finished):
    task, folder = finished
    built = tasks.build(task, NAMES[task])
    metric = "mse" if task == "regression" else "macro_f1"
    winner, constant, linear = (
        line(folder, row, metric) for row in ("winner", built.constant_baseline, built.linear_baseline)
    )
    better = (lambda a, b: a > b) if spec.higher_is_better(metric) else (lambda a, b: a < b)
    for row in (winner, linear):
        assert better(row["test"], constant["test"]) and better(row["cv"], constant["cv"])
        assert row["low"] < row["test"] < row["high"]
    if task == "multi_label":  # with thresholds from validation it predicts every label, in CV as on the test split
        assert constant["cv"] == pytest.approx(constant["test"], abs=0.1)
    # The intervals do not touch.
    assert better(*((winner["low"], constant["high"]) if metric == "macro_f1" else (winner["high"], constant["low"])))
    table = pd.read_csv(folder.results / report.TEST_METRICS)
    assert table["metric"].unique().tolist() == [metric, *(name for name in built.metrics if name != metric)]


def test_the_sampler_is_told_the_direction_and_the_best_trial_wins(finished):
    task, folder = finished
    results = StudyResults.read(folder)
    assert results.maximize == (task == "multi_label") and results.described["dataset"]["classes"] == [*NAMES[task]]
    values = [trial.value for trial in results.trials]
    assert results.decision.values[results.decision.best] == (max if results.maximize else min)(values)


def test_the_constant_baseline_is_what_it_is_named_after(finished):
    task, folder = finished
    labels = table_labels.frames(task)["train"][1].to_numpy()
    built = tasks.build(task, NAMES[task])
    rows = prediction_table.read(folder)
    rows = rows[(rows["job"] == f"baselines/{built.constant_baseline}") & (rows["kind"] == "test")]
    assert built.link(built.outputs_of(rows))[0] == pytest.approx(labels.mean(axis=0))
    assert np.array_equal(built.labels_of(rows), table_labels.frames(task)["test"][1].to_numpy())


def test_the_page_has_the_charts_of_the_task(finished):
    task, folder = finished
    page = (folder.results / "report.html").read_text(encoding="utf-8")
    charts = {
        "multi_label": ("F1 of each label", "all labels pooled", "probability of a label"),
        "regression": ("predicted over true", 'class="diagonal"'),
    }
    for words in (*charts[task], 'id="leaderboard"', 'id="differences"', "Votes of the winner"):
        assert words in page, words
    assert "nan" not in page.partition("<main>")[2].partition("<pre>")[0]


def test_the_summary_speaks_of_the_task(finished):
    task, folder = finished
    text = (folder.results / report.SUMMARY).read_text(encoding="utf-8")
    assert "points of accuracy" not in text and "within class" not in text
    assert ("Thresholds of each row were chosen" in text) == (task == "multi_label")
    assert "class" not in text.replace("classifier", "")


def test_the_delivered_model_predicts_and_has_the_thresholds_of_the_table(finished):
    task, folder = finished
    model, (tables, labels) = m3col.load(folder.results / "model"), table_labels.frames(task)["test"]
    assert len(model) == 2
    metric = "mse" if task == "regression" else "macro_f1"
    scores = model.task.scores(labels.to_numpy(), model.votes(tables)["fused"])
    assert scores[metric] == pytest.approx(line(folder, "ensemble", metric)["test"])
    if task == "multi_label":
        results = StudyResults.read(folder)
        jobs = results.deciding_runs(results.decision.winner)
        rows = results.predictions[results.predictions["job"].isin(jobs) & (results.predictions["kind"] == "oof")]
        chosen = multilabel.best_thresholds(
            results.task.labels_of(rows), results.task.link(results.task.outputs_of(rows))
        )
        assert np.array_equal(model.task.thresholds, chosen) and not np.allclose(chosen, 0.5)
        fixed = tasks.build(task, NAMES[task]).scores(labels.to_numpy(), model.votes(tables)["fused"])
        assert fixed["macro_f1"] != scores["macro_f1"]


def test_figures_of_the_study_have_the_thresholds_of_the_delivered_model(finished):
    task, folder = finished
    study = SimpleNamespace(config=folder.config(), described=folder.described(), folder=folder)
    delivered, model = final_results.delivered_task(study), m3col.load(folder.results / "model")
    assert delivered.classes == NAMES[task] and delivered.choices() == model.task.choices()


def test_a_row_without_validation_predictions_keeps_a_half(finished):
    task, folder = finished
    if task != "multi_label":
        return
    results = StudyResults.read(folder)
    assert results.task_of(["refits/without-heads/0"]).thresholds.tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("regression", "mean"),
        ("regression", "ridge of mine"),
        ("multi_label", "label frequencies"),
        ("multi_label", "logistic 2"),
        ("single_label", "majority"),
        ("single_label", "logistic 2"),
    ],
)
def test_names_of_the_tasks_baselines_are_reserved(task, name, tmp_path):
    config = {"base": "digits", "overrides": {"task": task}, "final": {"rows": {name: {}}}}
    with pytest.raises(m3col.InputError, match=f"final.rows.{name}: this name is reserved"):
        prepare_study(tmp_path, config)
