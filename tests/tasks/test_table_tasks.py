"""Several labels per sample and numbers, from DataFrames to a model that predicts: every method learns what can be."""

import json

import numpy as np
import pandas as pd
import pytest

import m3col
from m3col import tasks
from m3col.data.arrays import from_arrays
from m3col.methods import registry
from m3col.metrics import multilabel
from tests.support import table_labels
from tests.support.table_labels import NAMES, QUICK

TASKS = ["multi_label", "regression"]
METHODS = [name for name in registry.names() if registry.find(name).tasks is None and registry.find(name).kinds is None]


def train(task: str, tmp_path, *, method: str = "concat", **changes):
    overrides = {**QUICK, "task": task, "method": method, **{key.replace("__", "."): v for key, v in changes.items()}}
    if registry.find(method).one_modality:
        overrides["data.modalities"] = ["b"]
    return m3col.train(
        {"validation": {"kind": "holdout"}}, data=table_labels.frames(task), overrides=overrides, runs=tmp_path,
        tracking_uri="none",
    )  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", TASKS)
def test_every_method_learns_it(task, method, tmp_path):
    # A critic of FactorCL scores all pairs of a batch.
    changes = {"objective__critic_hidden": 16} if "objective.critic_hidden" in registry.find(method).keys else {}
    result = train(task, tmp_path, method=method, **changes)
    built = tasks.build(task, NAMES[task])
    labels = table_labels.frames(task)["train"][1].to_numpy()
    truth = table_labels.frames(task)["test"][1].to_numpy()
    constant = built.score(built.default_metric, truth, built.constant(labels, len(truth)))
    margin = 0.05 if registry.find(method).one_modality else 0.4
    assert result.metrics[f"test/{built.default_metric}"] > constant + margin
    assert {f"test/{name}" for name in built.metrics} <= set(result.metrics)
    assert {f"val/{name}" for name in built.metrics} <= set(result.history.columns)


@pytest.mark.parametrize("task", TASKS)
def test_the_checkpoint_predicts_what_was_tested(task, tmp_path):
    result, data = train(task, tmp_path), table_labels.frames(task)["test"]
    model, built = m3col.load(result.checkpoint), tasks.build(task, NAMES[task])
    assert model.classes == NAMES[task] and repr(model).endswith(f"-> {len(NAMES[task])} {built.outputs_called})")
    predictions = model.votes(data[0])["fused"]
    for name, value in built.scores(data[1].to_numpy(), predictions).items():
        assert result.metrics[f"test/{name}"] == pytest.approx(value)
    predicted, table = model.predict(data[0]), model.predict_table(data[0])
    assert predicted.shape == data[1].shape and len(table) == len(predicted)
    if task == "regression":
        assert np.array_equal(predicted, predictions) and np.array_equal(table[[*NAMES[task]]], predictions)
        with pytest.raises(m3col.InputError, match="predicts numbers, which have no probabilities; call predict"):
            model.predict_proba(data[0])
    else:
        assert np.array_equal(model.predict_proba(data[0]), predictions)
        assert table["labels"][0] == "|".join(np.array(NAMES[task])[predicted[0] == 1])


def test_targets_are_standardised_on_each_training_fold(tmp_path):
    result = train("regression", tmp_path, validation__kind="kfold", validation__folds=3, train__epochs=2)
    first, second, third = m3col.load(result.checkpoint).members
    labels = table_labels.frames("regression")["train"][1].to_numpy()
    assert not np.array_equal(first.task.mean, second.task.mean)
    # Each sample is left out of one of the three folds.
    total = sum(member.task.mean for member in (first, second, third))
    assert total / 3 == pytest.approx(labels.mean(axis=0))
    assert result.metrics["train/nmse_fused"] < 3  # the targets themselves are about 170 and 10,000


def test_the_loss_of_training_and_validation_has_the_same_scale(tmp_path):
    history = train("regression", tmp_path, train__epochs=1, train__learning_rate=1e-9).history
    assert history["val/nmse_fused"][0] == pytest.approx(history["train/nmse_fused"][0], rel=0.5)


def test_thresholds_are_chosen_on_validation_predictions_and_stored(tmp_path):
    result = train("multi_label", tmp_path, threshold="validation", train__epochs=3)
    model = m3col.load(result.checkpoint)
    (tables, _), dataset = table_labels.frames("multi_label")["test"], from_arrays(
        *table_labels.frames("multi_label")["train"], task="multi_label"
    )  # fmt: skip
    from m3col.data.splits import draw

    (fold,) = draw(dataset, kind="holdout", task=model.task)
    held = dataset.train.take(fold.validation)
    chosen = multilabel.best_thresholds(held.labels, model.predict_proba(held.inputs))
    assert model.task.thresholds == pytest.approx(chosen, abs=1e-6) and not np.allclose(chosen, 0.5)
    assert json.loads((result.checkpoint / "checkpoint.json").read_text())["choices"] == {
        "thresholds": model.task.thresholds.tolist()
    }
    expected = model.predict_proba(tables) > model.task.thresholds
    assert np.array_equal(model.predict(tables), expected.astype(int))
    fixed = train("multi_label", tmp_path, threshold=0.2, train__epochs=3)
    loaded = m3col.load(fixed.checkpoint)
    assert np.array_equal(loaded.predict(tables), (loaded.predict_proba(tables) > 0.2).astype(int))


def test_an_ensemble_of_several_checkpoints_has_one_task_and_the_mean_threshold(tmp_path):
    first, second = (
        train("multi_label", tmp_path, threshold="validation", train__epochs=3, train__seed=seed) for seed in (0, 1)
    )
    both = m3col.load([first.checkpoint, second.checkpoint])
    each = [result.predictor.task.thresholds for result in (first, second)]
    assert not np.array_equal(*each) and both.task.thresholds == pytest.approx((each[0] + each[1]) / 2)
    other = train("regression", tmp_path, train__epochs=1)
    described = json.loads((other.checkpoint / "checkpoint.json").read_text(encoding="utf-8"))
    described["classes"] = list(NAMES["multi_label"])
    (other.checkpoint / "checkpoint.json").write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(m3col.InputError, match="task 'regression' differs from 'multi_label', that of"):
        m3col.load([first.checkpoint, other.checkpoint])


def test_label_weights_count_present_labels_more(tmp_path):
    data = table_labels.frames("multi_label")["test"][0]
    plain, weighted = (
        train("multi_label", tmp_path, objective__class_weight=weight, train__epochs=10).predict_proba(data).mean()
        for weight in ("none", "balanced")
    )
    assert weighted > plain + 0.05


@pytest.mark.parametrize("task", TASKS)
def test_a_resumed_training_equals_an_unbroken_one(task, tmp_path):
    from m3col.data.splits import draw
    from m3col.training import checkpoint
    from m3col.training.history import TrainingJob
    from m3col.training.loop import LockstepTrainer
    from tests.support.helpers import tiny_config

    dataset = from_arrays(*table_labels.frames(task)["train"], task=task)
    config = tiny_config(task=task, method="m3col", train__epochs=4)
    built = tasks.of(config, dataset.classes)
    job = TrainingJob(dataset.train, draw(dataset, kind="kfold", folds=2, task=built), dataset.features, built)
    unbroken, broken, resumed = (LockstepTrainer(config, job) for _ in range(3))
    unbroken.advance(4)
    broken.advance(2)
    checkpoint.write_training(tmp_path / "epoch-2", broken)
    checkpoint.restore_training(tmp_path / "epoch-2", resumed)
    resumed.advance(4)
    assert resumed.history[-1].metrics == unbroken.history[-1].metrics
    assert np.array_equal(resumed.out_of_fold()[2], unbroken.out_of_fold()[2])


def test_labels_are_aligned_by_their_index_and_named_columns_by_their_name():
    tables, labels = table_labels.frames("regression")["train"]
    shuffled = labels.iloc[::-1][["time", "height"]]
    renamed = {name: table.set_axis([f"p{k}" for k in range(len(table))]) for name, table in tables.items()}
    shuffled = shuffled.set_axis([f"p{k}" for k in shuffled.index])
    dataset = from_arrays(renamed, labels.set_axis(renamed["a"].index), test=(renamed, shuffled), task="regression")
    assert np.array_equal(dataset.train.labels, dataset.test.labels) and dataset.classes == ("height", "time")
    assert isinstance(dataset.train.labels, np.ndarray) and dataset.train.labels.dtype == np.float64


def test_one_target_may_be_a_series_or_an_array():
    tables, labels = table_labels.frames("regression")["train"]
    named = from_arrays(tables, labels["height"], task="regression")
    assert named.classes == ("height",) and named.train.labels.shape == (len(labels), 1)
    plain = from_arrays(tables, labels["height"].tolist(), task="regression")
    assert plain.classes == ("target_0",) and np.array_equal(plain.train.labels, named.train.labels)
    given = from_arrays(tables, labels.to_numpy(), task="regression", classes=["x", "y"])
    assert given.classes == ("x", "y")


@pytest.mark.parametrize("task", TASKS)
def test_folds_have_their_share_of_every_stratum(task):
    from m3col.data.splits import draw

    dataset = from_arrays(*table_labels.frames(task)["train"], task=task)
    built = tasks.build(task, dataset.classes)
    strata = built.strata(dataset.train.labels)
    folds = draw(dataset, kind="kfold", folds=4, seed=3, task=built)
    assert sorted(np.concatenate([fold.validation for fold in folds]).tolist()) == list(range(table_labels.TRAIN))
    for stratum in set(strata.tolist()):
        counts = [int((strata[fold.validation] == stratum).sum()) for fold in folds]
        assert max(counts) - min(counts) <= 1
    (held,) = draw(dataset, kind="holdout", fraction=0.2, seed=3, task=built)
    assert len(held.validation) == 18 and not set(held.train) & set(held.validation)
    again = draw(dataset, kind="kfold", folds=4, seed=3, task=built)
    assert all(np.array_equal(a.validation, b.validation) for a, b in zip(folds, again, strict=True))


def test_groups_stay_together():
    from m3col.data.splits import draw

    tables, labels = table_labels.frames("regression")["train"]
    groups = [f"g{row // 3}" for row in range(len(labels))]
    dataset = from_arrays(tables, labels, groups=groups, task="regression")
    built = tasks.build("regression", dataset.classes)
    for fold in draw(dataset, kind="kfold", folds=3, task=built):
        assert not set(dataset.train.groups[fold.train]) & set(dataset.train.groups[fold.validation])
        assert len(fold.validation) == 30
    with pytest.raises(m3col.InputError, match="31 folds, but there are only 30 training groups; at most 30 folds"):
        draw(dataset, kind="kfold", folds=31, task=built)


# Warnings and analyses


@pytest.mark.parametrize("task", TASKS)
def test_a_column_that_equals_a_label_is_a_warning(task):
    from m3col.data.checks import data_warnings

    tables, labels = table_labels.frames(task)["train"]
    leaking = {"a": tables["a"].assign(leak=labels.iloc[:, 1]), "b": tables["b"]}
    (line,) = data_warnings.of_training(from_arrays(leaking, labels, task=task))
    assert line.startswith("arrays, modality 'a': column 5 (leak) equals a label in every row")
    assert data_warnings.of_training(from_arrays(tables, labels, task=task)) == []


@pytest.mark.parametrize("task", TASKS)
def test_analyses_of_classes_are_refused(task, tmp_path):
    from m3col.analysis.runner import analyse

    model = train(task, tmp_path, train__epochs=1).predictor
    parts = table_labels.frames(task)
    dataset = from_arrays(*parts["train"], test=parts["test"], task=task)
    with pytest.raises(m3col.InputError, match=f"need one class per sample, but this is a model of task '{task}'"):
        analyse(model, dataset, tmp_path / "out")


# Bad input


def faults_of(task: str, labels, **changes) -> list[str]:
    tables = table_labels.frames("regression")["train"][0]
    with pytest.raises(m3col.InputError) as error:
        m3col.train({}, data=(tables, labels), overrides={"task": task, **changes}, tracking_uri="none", runs="unused")
    return list(error.value.faults)


def test_labels_outside_of_0_and_1_and_missing_ones_are_named_by_row_and_label():
    labels = table_labels.frames("multi_label")["train"][1].astype(float)
    labels.iloc[2, 0], labels.iloc[5, 1] = 2.0, np.nan
    assert faults_of("multi_label", labels) == [
        "train labels: row 6, label 'comedy' is missing; add it, or leave the sample out",
        "train labels: row 3, label 'action' must be 0 or 1, but is 2; nearest 1",
    ]


def test_targets_that_are_missing_infinite_or_too_large_are_named():
    labels = table_labels.frames("regression")["train"][1]
    labels.iloc[0, 0], labels.iloc[1, 1], labels.iloc[2, 1] = np.nan, -np.inf, 1e39
    assert faults_of("regression", labels) == [
        "train labels: row 1, target 'height' is missing; add it, or leave the sample out",
        "train labels: row 2, target 'time' must be finite, but is -inf",
        "train labels: row 3, target 'time' must be at most 3.4e38, but is 1e+39; scale the target",
    ]


def test_columns_that_teach_nothing_are_named():
    labels = table_labels.frames("multi_label")["train"][1]
    labels["action"], labels["drama"] = 0, 1
    rest = ", so that nothing can be learned of it; leave it out"
    assert faults_of("multi_label", labels) == [
        f"train labels: label 'action' is in no training sample{rest}",
        f"train labels: label 'drama' is in every training sample{rest}",
    ]
    (line,) = faults_of("regression", pd.DataFrame({"x": np.full(table_labels.TRAIN, 7.5)}))
    assert line == f"train labels: target 'x' is 7.5 in every training sample{rest}"


def test_shapes_that_do_not_fit_are_named():
    labels = table_labels.frames("multi_label")["train"][1]
    (line,) = faults_of("multi_label", labels[:50])
    assert "must have the same number of rows" in line and "labels 50" in line
    (line,) = faults_of("single_label", labels)
    assert line.endswith("of several labels per sample the task is multi_label, of numbers regression")
    tables = table_labels.frames("multi_label")["train"][0]
    with pytest.raises(m3col.InputError) as error:
        from_arrays(tables, labels, test=(tables, labels.rename(columns={"drama": "dramas"})), task="multi_label")
    assert error.value.faults == (
        "test labels: label 'drama' is missing; did you mean 'dramas'?",
        "test labels: label 'dramas' is none of training; did you mean 'drama'?",
    )
    with pytest.raises(m3col.InputError, match="test labels: has 2 columns, but training has 3 labels"):
        from_arrays(tables, labels, test=(tables, labels.to_numpy()[:, :2]), task="multi_label")
    with pytest.raises(m3col.InputError, match="each label needs a name of its own, but 'a' is empty or repeated"):
        from_arrays(tables, labels.set_axis(["a", "a", "b"], axis=1), task="multi_label")
    with pytest.raises(m3col.InputError, match="train labels: has 3 columns, but 2 names are given"):
        from_arrays(tables, labels.to_numpy(), classes=["x", "y"], task="multi_label")


def test_a_data_set_of_another_task_is_refused():
    dataset = from_arrays(*table_labels.frames("regression")["train"], task="regression")
    with pytest.raises(m3col.InputError, match=r"task 'multi_label' needs several labels .* are numbers \(floats"):
        m3col.train({}, data=dataset, overrides={"task": "multi_label"}, tracking_uri="none")


def test_settings_of_another_task_are_refused_all_at_once():
    labels = table_labels.frames("regression")["train"][1]
    lines = faults_of("regression", labels, **{
        "metric": "val/macro_f1", "objective.class_weight": "balanced", "threshold": 0.3,
        "data.preprocess": [{"anova": 2}],
    })  # fmt: skip
    text = "\n".join(lines)
    assert "threshold is of task multi_label, but the task is 'regression'; leave it out" in text
    assert "metric 'val/macro_f1' is of task 'single_label', 'multi_label', but the task is 'regression'" in text
    assert "objective.class_weight is for classes, but task 'regression' has none" in text
    assert "step anova ranks features by one class per sample" in text


def test_thresholds_need_validation_predictions():
    labels = table_labels.frames("multi_label")["train"][1]
    (line,) = faults_of("multi_label", labels, **{"threshold": "validation", "validation.kind": "none"})
    assert "needs validation predictions, but validation.kind is 'none'; nearest: 0.5" in line


def test_a_task_that_the_method_lacks_is_refused(monkeypatch):
    from dataclasses import replace

    monkeypatch.setitem(registry.TABLE, "concat", replace(registry.TABLE["concat"], tasks=("single_label",)))
    labels = table_labels.frames("regression")["train"][1]
    (line,) = faults_of("regression", labels, method="concat")
    assert line.endswith("task 'regression' is not one of method 'concat'; it has single_label")
