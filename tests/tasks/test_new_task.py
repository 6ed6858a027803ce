"""A new task is one file and a table entry: a toy regression trains, is watched, predicts, and has a test table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import m3col
from m3col import tasks
from m3col.data.dataset import Dataset, build_split
from m3col.data.splits import draw
from m3col.evaluation.epoch_metrics import known_metrics
from m3col.methods import registry
from m3col.methods.supervised import SupervisedMethod
from m3col.metrics import intervals
from m3col.training.history import TrainingJob
from m3col.training.loop import LockstepTrainer
from tests.support.helpers import tiny_config
from tests.tasks import toy_regression
from tune.results import baseline_rows, prediction_table

TARGETS = ("height", "weight")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    toy_regression.register(monkeypatch)


def dataset() -> Dataset:
    """Two tables, and two numbers per sample that are linear in them."""
    rng = np.random.default_rng(0)
    inputs = {"a": rng.normal(size=(60, 4)), "b": rng.normal(size=(60, 3))}
    numbers = inputs["a"][:, :2] + 2 * inputs["b"][:, :2] + 10
    parts = {}
    for name, rows in (("train", slice(0, 40)), ("test", slice(40, 60))):
        parts[name] = build_split({m: x[rows] for m, x in inputs.items()}, numbers[rows], name)
    features = {"a": ("a0", "a1", "a2", "a3"), "b": ("b0", "b1", "b2")}
    return Dataset("numbers", TARGETS, features, parts["train"], test=parts["test"])


SUPERVISED = [
    name
    for name in registry.names()
    if issubclass(registry.load(name), SupervisedMethod)
    and not registry.find(name).one_modality
    and registry.find(name).tasks is None
    and registry.find(name).kinds is None
]


@pytest.mark.parametrize("method", SUPERVISED)
def test_it_is_trained_and_its_metric_watched(method):
    data, config = dataset(), tiny_config(task=toy_regression.NAME, method=method, train__epochs=2)
    task = tasks.build(config.task, data.classes)
    job = TrainingJob(
        data.train, draw(data, kind="kfold", folds=2, seed=0, task=task), data.features, task, keep_best=True
    )
    training = LockstepTrainer(config, job)
    first, second = training.advance(2)
    assert training.metric == "val/mse" and second.value == second.metrics["val/mse"]
    assert second.value < first.value and training.best.epoch == 2  # lower is better
    assert {n for n in second.metrics if n.startswith("val/")} == {
        n for n in known_metrics(config, data.modalities, task) if n.startswith("val/")
    }
    rows, _, outputs = training.out_of_fold()
    assert outputs.shape == (40, 2)
    assert second.value == pytest.approx(np.mean((outputs - data.train.labels[rows]) ** 2), rel=1e-6)


def test_a_run_from_python_tests_it_and_its_checkpoint_predicts(tmp_path):
    data = dataset()
    changes = {"task": toy_regression.NAME, "train.epochs": 60, "train.learning_rate": 0.03, "method": "concat"}
    result = m3col.train(
        {"validation": {"kind": "holdout"}}, data=data, overrides=changes, runs=tmp_path, tracking_uri="none"
    )
    predictor = m3col.load(result.checkpoint)
    assert predictor.task.name == toy_regression.NAME and predictor.task.classes == TARGETS
    predicted = predictor.predict(data.test.inputs)
    assert result.metrics["test/mse"] == pytest.approx(((predicted - data.test.labels) ** 2).mean(), rel=1e-6)
    assert result.metrics["test/mse"] < np.var(data.test.labels, axis=0).mean()
    assert list(predictor.predict_table(data.test.inputs)) == list(TARGETS)


def test_its_baselines_and_intervals_stand_in_a_table():
    data, config = dataset(), tiny_config(task=toy_regression.NAME)
    task = tasks.build(config.task, data.classes)
    folds = draw(data, kind="kfold", folds=2, seed=0, task=task)
    table = pd.concat(baseline_rows.baseline_predictions(config, data, data.train, folds))
    scores = {
        job: prediction_table.cross_validated(rows[rows["kind"] == "oof"], task)["mse"]
        for job, rows in table.groupby("job")
    }
    assert min(scores, key=scores.get) == "baselines/least squares"
    forms = ["", " a", " b", " late", " stacked"]
    assert set(scores) == {"baselines/mean", *(f"baselines/least squares{form}" for form in forms)}
    rows = table[(table["job"] == "baselines/mean") & (table["kind"] == "test")]
    counts = intervals.bootstrap_counts(task.strata(data.test.labels), draws=200)
    predictions = task.link(task.outputs_of(rows))
    drawn = task.bootstrap_scores("mse", task.labels_of(rows), predictions, counts)
    score = task.score("mse", data.test.labels, predictions)
    found = intervals.interval([score], drawn[None], len(rows))
    assert found.low < score < found.high


def test_outside_of_the_tests_it_is_unknown(monkeypatch):
    monkeypatch.undo()
    with pytest.raises(m3col.InputError, match="task 'toy_regression' is unknown"):
        tiny_config(task=toy_regression.NAME)


def test_its_file_imports_nothing_of_the_project_but_its_contract():
    lines = Path(toy_regression.__file__).read_text(encoding="utf-8").splitlines()
    imported = {line.split()[1] for line in lines if line.startswith("from m3col")}
    assert imported == {"m3col.metrics", "m3col.tasks", "m3col.tasks.base"}
