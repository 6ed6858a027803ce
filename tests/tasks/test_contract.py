"""One contract for every task in the table: a new task is tested the moment it is named."""

import numpy as np
import pandas as pd
import pytest
import torch

from m3col import tasks
from m3col.data import label_tables
from m3col.errors import InputError
from m3col.metrics import spec
from m3col.tasks.base import Mixed, Task
from tests.support.helpers import tiny_config, tiny_data
from tests.tasks import toy_regression

CLASSES = 3
DATA = tiny_data(classes=CLASSES)
N = len(DATA.train)
FEATURES = next(iter(DATA.train.inputs.values()))
OUTPUTS = np.random.default_rng(0).normal(size=(N, CLASSES))
# By task, else one class per sample.
LABELS = {
    "toy_regression": FEATURES[:, :CLASSES] + OUTPUTS / 4,
    "regression": FEATURES[:, :CLASSES] + OUTPUTS / 4,
    "multi_label": (FEATURES[:, :CLASSES] + OUTPUTS / 4 > 0).astype(np.int64),
}


@pytest.fixture(params=[*tasks.names(), toy_regression.NAME])
def task(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Task:
    toy_regression.register(monkeypatch)
    return tasks.build(request.param, CLASSES)


@pytest.fixture
def labels(task: Task) -> np.ndarray:
    return LABELS.get(task.name, DATA.train.labels)


def losses_of_rows(task: Task, labels: np.ndarray, cuts: list[slice], **arguments) -> list[torch.Tensor]:
    outputs, targets = torch.as_tensor(OUTPUTS), task.targets(labels)
    return [task.loss(outputs[rows], targets, rows=rows, **arguments) for rows in cuts]


def test_its_name_is_that_of_its_entry(task):
    assert task.name in tasks.names() and tasks.build(task.name, CLASSES).name == task.name
    assert task.width == CLASSES == len(task.classes)


def test_every_metric_is_in_the_table_of_metrics(task):
    assert set(task.metrics) <= set(spec.TABLE)
    assert task.default_metric in task.metrics
    for name in task.output_metric_names(["a", "fused"], "fused"):
        spec.of(name)
    assert not spec.of(task.loss_name).higher_is_better


def test_the_losses_of_the_ranks_add_up_to_that_of_one(task, labels):
    cuts = [slice(0, 13), slice(13, 13), slice(13, N)]
    (whole,) = losses_of_rows(task, labels, [slice(0, N)])
    assert sum(losses_of_rows(task, labels, cuts)).item() == pytest.approx(whole.item(), rel=1e-12)
    (twice,) = losses_of_rows(task, labels, [slice(0, N)], scale=2.0)
    assert twice.item() == pytest.approx(2 * whole.item(), rel=1e-12)


def test_the_loss_is_the_one_that_an_epoch_reports(task, labels):
    (loss,) = losses_of_rows(task, labels, [slice(0, N)])
    reported = task.output_metrics({"fused": OUTPUTS}, labels, "fused")
    assert reported[f"{task.loss_name}_fused"] == pytest.approx(loss.item(), rel=1e-6)


def test_mixing_nothing_is_the_plain_loss_and_mixing_is_linear_in_lambda(task, labels):
    partner = torch.arange(N).flip(0)

    def mixed(lam: float) -> float:
        weights = torch.full((N,), lam, dtype=torch.float64)
        (value,) = losses_of_rows(task, labels, [slice(0, N)], mixed=Mixed(partner, weights))
        return value.item()

    (plain,) = losses_of_rows(task, labels, [slice(0, N)])
    assert mixed(1.0) == pytest.approx(plain.item(), rel=1e-12)
    assert mixed(0.3) == pytest.approx(0.3 * mixed(1.0) + 0.7 * mixed(0.0), rel=1e-12)
    assert mixed(0.0) != pytest.approx(plain.item())


def test_link_and_its_inverse(task):
    predictions = task.link(OUTPUTS)
    assert predictions.dtype == np.float64 and predictions.shape == OUTPUTS.shape
    assert task.link(task.inverse_link(predictions)) == pytest.approx(predictions, rel=1e-12)


def test_decisions_have_the_form_of_labels(task, labels):
    decided = task.decide(task.link(OUTPUTS))
    assert decided.shape == labels.shape and decided.dtype == labels.dtype
    assert len(task.answers(task.link(OUTPUTS))) == N


def test_answers_stand_in_columns_with_one_row_per_sample(task):
    columns = task.answer_columns({"a": task.link(-OUTPUTS), "fused": task.link(OUTPUTS)}, "fused")
    assert len(pd.DataFrame(columns)) == N


def test_metrics_are_all_reported_in_their_order(task, labels):
    predictions = task.link(OUTPUTS)
    scores = task.scores(labels, predictions)
    assert tuple(scores) == task.metrics
    assert tuple(task.cross_validated([labels], [predictions])) == task.metrics
    assert task.cross_validated([labels], [predictions]) == pytest.approx(scores)
    for name in task.metrics:
        assert task.score(name, labels, predictions) == pytest.approx(scores[name])
        once = task.bootstrap_scores(name, labels, predictions, np.ones((1, N), dtype=np.int64))
        assert once == pytest.approx([scores[name]])


def test_outputs_report_what_is_declared(task, labels):
    outputs = {"a": -OUTPUTS, "fused": OUTPUTS}
    reported = task.output_metrics(outputs, labels, "fused")
    assert sorted(reported) == sorted(task.output_metric_names([*outputs], "fused"))
    heads = [reported[f"{task.loss_name}_{name}"] for name in outputs]
    assert reported["loss"] == pytest.approx(sum(heads))
    score, predictions = task.output_score, task.link(outputs["a"])
    assert reported[f"{score}_a"] == pytest.approx(task.score(score, labels, predictions))
    tested = task.test_metrics({name: task.link(value) for name, value in outputs.items()}, labels, "fused")
    assert set(task.metrics) <= set(tested)
    assert tested[f"{score}_a"] == pytest.approx(reported[f"{score}_a"])


def test_whatever_is_watched_has_a_metric_on_the_test_split(task):
    for name in (*task.metrics, *task.output_metric_names(["a", "fused"], "fused")):
        assert task.test_metric(name) in task.metrics
        same = spec.of(task.test_metric(name)).higher_is_better == spec.of(name).higher_is_better
        assert same, name


def test_strata_are_numbered(task, labels):
    strata = task.strata(labels)
    assert strata.shape == (N,) and set(strata.tolist()) <= set(range(task.num_strata))
    assert all(task.stratum(number) for number in range(task.num_strata))


def test_bootstraps_draw_within_strata(task, labels):
    strata = task.bootstrap_strata(labels)
    assert strata.shape == (N,) and strata.dtype.kind == "i" and strata.min() >= 0


def test_what_is_fitted_comes_back_from_a_checkpoint_and_serves_outputs_and_targets(task, labels):
    fitted = task.fitted(labels[: N // 2])
    restored = task.restored(fitted.state())
    assert restored.state().keys() == fitted.state().keys()
    for name, value in fitted.state().items():
        assert np.array_equal(restored.state()[name], value)
    assert np.array_equal(restored.unscaled(OUTPUTS), fitted.unscaled(OUTPUTS))
    loss = fitted.loss(torch.as_tensor(OUTPUTS), fitted.targets(labels), rows=slice(0, N))
    reported = fitted.output_metrics({"fused": fitted.unscaled(OUTPUTS)}, labels, "fused")
    assert reported[f"{task.loss_name}_fused"] == pytest.approx(loss.item(), rel=1e-6)


def test_what_is_chosen_comes_back_from_a_checkpoint(task, labels):
    setting = "validation" if task.has_threshold else None
    choosing = tasks.build(task.name, CLASSES, threshold=setting)
    assert choosing.chooses == task.has_threshold and not task.chooses
    predictions = task.link(OUTPUTS)
    chosen = choosing.chosen([labels[:20], labels[20:]], [predictions[:20], predictions[20:]])
    assert bool(chosen.choices()) == task.has_threshold
    again = choosing.with_choices(chosen.choices())
    assert np.array_equal(again.decide(predictions), chosen.decide(predictions))
    if task.has_threshold:
        assert not np.array_equal(chosen.decide(predictions), task.decide(predictions))


def test_weights_of_classes_are_refused_with_a_reason_where_they_do_not_fit(task):
    assert task.class_weight_fault("none") == ""
    assert "objective.class_weight" in task.class_weight_fault([1.0] * (CLASSES + 1))


def test_the_labels_have_the_form_that_the_task_names(task, labels):
    assert label_tables.form_of(labels) == task.label_form


def test_baselines_are_predictions(task, labels):
    constant = task.constant(labels, 4)
    assert constant.shape == (4, CLASSES) and (constant == constant[0]).all()
    x = FEATURES
    linear = task.linear(x, labels, x[:7])
    assert linear.shape == (7, CLASSES)
    metric = task.default_metric
    learned = task.score(metric, labels, task.linear(x, labels, x))
    guessed = task.score(metric, labels, task.constant(labels, N))
    assert (learned > guessed) == spec.of(metric).higher_is_better and learned != guessed


def test_stored_columns_give_back_labels_and_outputs(task, labels):
    table = pd.DataFrame(task.to_columns(labels, OUTPUTS))
    assert tuple(table.columns) == task.columns
    assert np.array_equal(task.outputs_of(table), OUTPUTS) and np.array_equal(task.labels_of(table), labels)
    withheld = pd.DataFrame(task.to_columns(None, OUTPUTS))
    assert task.labels_of(withheld) is None and np.array_equal(task.outputs_of(withheld), OUTPUTS)


def test_the_config_names_it(task):
    assert tiny_config(task=task.name).task == task.name


def test_an_unknown_task_is_refused_with_the_nearest_one():
    for call in (lambda: tiny_config(task="single_lable"), lambda: tasks.build("single_lable", 2)):
        with pytest.raises(InputError, match=r"'single_lable' is unknown; did you mean 'single_label'"):
            call()
    with pytest.raises(InputError, match="task"):
        tiny_config(task=3)
