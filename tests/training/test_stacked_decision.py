"""`objective.decision`: what predicts, and which samples the weights of the heads are fitted on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from m3col import predictor, tasks
from m3col.checks.resolve import resolve
from m3col.config import loading
from m3col.data.arrays import from_arrays
from m3col.data.dataset import Split
from m3col.data.splits import Fold, held_out, held_out_faults
from m3col.errors import InputError
from m3col.evaluation import stacking
from m3col.inputs.specs import Partial, present_of
from m3col.methods import registry
from m3col.methods.settings import DecisionSettings
from m3col.methods.supervised import FUSED
from m3col.training import checkpoint
from m3col.training.history import TrainingJob
from m3col.training.loop import LockstepTrainer
from tests.support.helpers import TINY, allowed, tiny_config, tiny_data
from tune import checks

DATA = tiny_data(samples=48)

FOLDS = [Fold(np.arange(12, 48), np.arange(12)), Fold(np.arange(36), np.arange(36, 48))]

DECIDING = [name for name in registry.names() if issubclass(registry.TABLE[name].settings, DecisionSettings)]


def config(**overrides):
    return tiny_config(**{"method": "m3col", "objective__decision": "stacked", "train__epochs": 3, **overrides})


def trained(pool: Split = DATA.train, *, folds=FOLDS, epochs: int = 3, run=None, **job) -> LockstepTrainer:
    run = config() if run is None else run
    samples = TrainingJob(pool=pool, folds=folds, features=DATA.features, task=tasks.build(classes=2), **job)
    training = LockstepTrainer(run, samples)
    training.advance(epochs)
    return training


def stacker_of(training: LockstepTrainer, fold: int = 0) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in training.trainers[fold].method.stacker.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_neither_validation_nor_test_samples_change_the_weights():
    plain = stacker_of(trained(test_inputs=DATA.test.inputs, predict_test_every=1))
    labels = DATA.train.labels.copy()
    labels[:12] = 1 - labels[:12]  # those that fold 0 validates
    inputs = {name: x.copy() for name, x in DATA.train.inputs.items()}
    for x in inputs.values():
        x[:12] += 100.0
    others = {name: -x for name, x in DATA.test.inputs.items()}
    changed = trained(
        replace(DATA.train, labels=labels, inputs=inputs), test_inputs=others, predict_test_every=1,
    )  # fmt: skip
    assert same(plain, stacker_of(changed)) and not same(plain, stacker_of(changed, 1))


def test_held_out_samples_change_the_weights_of_heads_and_nothing_of_the_network():
    plain = trained()
    trainer = plain.trainers[0]
    rows = np.flatnonzero(np.isin(DATA.train.ids, trainer.held_out.ids))
    assert len(rows) == 8 and (rows >= 12).all() and len(trainer) == 28
    inputs = {name: x.copy() for name, x in DATA.train.inputs.items()}
    for x in inputs.values():
        x[rows] *= -3.0
    other = trained(replace(DATA.train, inputs=inputs))
    networks = [dict(t.trainers[0].method.named_parameters()) for t in (plain, other)]
    assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())
    assert not same(stacker_of(plain), stacker_of(other))


def test_the_weights_are_those_of_the_held_out_outputs_of_the_present_network():
    trainer = trained().trainers[0]
    method, rows = trainer.method.eval(), trainer.held_out
    inputs = {name: source.rows(slice(None)) for name, source in trainer.prepare(rows.inputs).items()}
    with torch.no_grad():
        heads = torch.stack([value.double().log_softmax(1) for value in method.logits(inputs).values()])
    fitted = stacking.classes(heads.numpy(), rows.labels)
    np.testing.assert_allclose(method.stacker.weight.numpy(), fitted.weight, atol=1e-5)
    np.testing.assert_allclose(method.stacker.bias.numpy(), fitted.bias, atol=1e-5)
    expected = (torch.as_tensor(fitted.weight)[:, None] * heads).sum(0) + torch.as_tensor(fitted.bias)
    torch.testing.assert_close(method.predicted(inputs)[FUSED].double(), expected, rtol=1e-4, atol=1e-5)


def test_a_resumed_training_equals_an_unbroken_one(tmp_path):
    whole, first = trained(epochs=3), trained(epochs=1)
    checkpoint.write_training(tmp_path / "epoch-1", first)
    second = LockstepTrainer(config(), first.job)
    checkpoint.restore_training(tmp_path / "epoch-1", second)
    assert same(stacker_of(first), stacker_of(second))
    second.advance(3)
    assert [r.metrics for r in whole.history] == [r.metrics for r in second.history]
    assert same(stacker_of(whole), stacker_of(second))


def test_a_refit_fits_the_weights_after_its_last_epoch_and_its_checkpoint_has_them(tmp_path):
    everything = [Fold(np.arange(48), np.arange(0))]
    early, late = trained(folds=everything, epochs=2), trained(folds=everything)
    assert torch.equal(stacker_of(early)["weight"], torch.full((3, 2), 1 / 3))
    assert not torch.equal(stacker_of(late)["weight"], stacker_of(early)["weight"])
    described = {"config": config().to_dict(), "classes": DATA.classes, "features": DATA.features}
    checkpoint.write_model(tmp_path / "model", late.trainers, **described)
    trainer = late.trainers[0]
    expected = trainer.task.link(trainer.logits(trainer.prepare(DATA.test.inputs))[FUSED])
    assert np.array_equal(predictor.load(tmp_path / "model").predict_proba(DATA.test.inputs), expected)


@pytest.mark.parametrize("name", DECIDING)
def test_every_method_with_heads_can_be_stacked(name):
    overrides = {"objective__unimodal_supervision": True} if name == "gmu" else {}
    run = config(method=name, **allowed(name), **overrides)
    training = trained(run=run, epochs=1, folds=FOLDS[:1])
    method = training.trainers[0].method
    assert method.stacker.weight.shape == (3, 2) and np.isfinite(training.history[-1].metrics["val/ce_fused"])
    assert not torch.equal(method.stacker.weight, torch.full((3, 2), 1 / 3))


@pytest.mark.parametrize(("task", "labels"), [
    ("multi_label", (np.random.default_rng(0).random((40, 3)) > 0.5).astype(int)),
    ("regression", np.random.default_rng(0).normal(size=(40, 2)) * 7 + 3),
])  # fmt: skip
def test_other_tasks_are_stacked(task, labels):
    data = from_arrays(DATA.train.take(np.arange(40)).inputs, labels, task=task)
    built = tasks.build(task, data.classes)
    job = TrainingJob(
        pool=data.train, folds=[Fold(np.arange(30), np.arange(30, 40))], features=data.features, task=built
    )
    training = LockstepTrainer(config(task=task, train__epochs=1), job)
    training.advance(1)
    trainer = training.trainers[0]
    fitted = trainer.task.stacked(trainer.head_outputs(trainer.held_out_inputs), trainer.held_out.labels, weight=None)
    np.testing.assert_allclose(trainer.method.stacker.weight.numpy(), fitted.weight, atol=1e-6)
    inputs = trainer.prepare(data.train.inputs)
    heads = trainer.head_outputs(inputs)
    expected = (fitted.weight[:, None] * heads).sum(0) + fitted.bias
    np.testing.assert_allclose(trainer.logits(inputs)[FUSED], trainer.task.unscaled(expected), atol=1e-4)


def test_a_modality_that_a_sample_lacks_has_the_mean_of_the_other_heads():
    trainer = trained().trainers[0]
    method = trainer.method.eval()
    inputs = {name: source.rows(slice(0, 3)) for name, source in trainer.prepare(DATA.test.inputs).items()}
    gaps = {**inputs, "view_0": Partial(inputs["view_0"], torch.tensor([False, True, True]))}
    with torch.no_grad():
        said = method.said(method.logits(gaps), present_of(gaps))
    torch.testing.assert_close(said[0, 0], (said[1, 0] + said[2, 0]) / 2)
    with torch.no_grad():
        torch.testing.assert_close(said[:, 1:], method.said(method.logits(inputs), {})[:, 1:])


def test_held_out_samples_are_stratified_and_keep_groups():
    labels = np.repeat([0, 1, 2], [40, 20, 5])
    groups = np.array([f"g{i // 2}" for i in range(65)])
    samples = Split(np.arange(65).astype(str), labels, {}, {})
    part = held_out(samples, 0.2, seed=0, task=tasks.build(classes=3))
    assert np.bincount(labels[part.validation]).tolist() == [8, 4, 1]
    assert sorted([*part.train, *part.validation]) == list(range(65))
    grouped = held_out(replace(samples, groups=groups), 0.2, seed=0, task=tasks.build(classes=3))
    assert not {*groups[grouped.train]} & {*groups[grouped.validation]}
    assert set(labels[grouped.validation]) == set(labels[grouped.train]) == {0, 1, 2}
    numbers = held_out(
        replace(samples, labels=np.arange(65.0)[:, None], groups=groups), 0.2, seed=0, task=tasks.build("regression", 1)
    )
    assert not {*groups[numbers.train]} & {*groups[numbers.validation]} and 12 <= len(numbers.validation) <= 14


@pytest.mark.parametrize(("classes", "groups", "share"), [(10, 25, 0.5), (5, 12, 0.2), (5, 12, 0.5)])
def test_groups_of_several_classes_leave_every_class_on_both_sides_where_they_can(classes, groups, share):
    task, tried = tasks.build(classes=classes), 0
    for seed in range(60):
        labels = np.random.default_rng(seed).integers(classes, size=3 * groups)
        named = np.repeat([f"g{i}" for i in range(groups)], 3)
        samples = Split(np.arange(len(labels)).astype(str), labels, {}, {}, groups=named)
        if held_out_faults(samples, task, where=""):
            continue
        part = held_out(samples, share, seed=seed, task=task)
        assert not {*named[part.train]} & {*named[part.validation]}
        assert {*labels[part.train]} == {*range(classes)}
        tried += {*labels[part.validation]} == {*range(classes)}
    assert tried > 30


def test_a_space_that_contains_stacked_is_checked_like_the_setting(tmp_path):
    data = tiny_data(samples=20)
    arrays = ({name: x for name, x in data.train.inputs.items()}, np.array([0] * 18 + [1] * 2))
    raw = {
        "base": "digits",
        "overrides": {"validation.kind": "kfold", "validation.folds": 2},
        "space": {"objective.decision": ["fused", "stacked"]},
    }
    with pytest.raises(InputError, match=r"space\.objective\.decision: needs 2 samples .* class 1 \(1\) there is 1"):
        checks.validate(raw, data=arrays, overrides={}, options=checks.Options(runs=tmp_path))


def test_a_class_with_one_sample_is_a_fault():
    data = tiny_data(samples=20)
    few = replace(data.train, labels=np.array([0] * 19 + [1]))
    (line,) = held_out_faults(few, tasks.build(classes=2), where="objective.stack_share")
    assert line.startswith("objective.stack_share: needs 2 samples of each class") and "there is 1" in line
    arrays = ({name: x for name, x in data.train.inputs.items()}, np.array([0] * 18 + [1] * 2))
    raw = {**TINY, "method": "m3col", "objective": {"decision": "stacked"}, "validation": {"kind": "kfold", "folds": 2}}
    with pytest.raises(InputError, match=r"objective\.stack_share: needs 2 samples .* class 1 \(1\) there is 1"):
        resolve(loading.load(raw), data=arrays)


@pytest.mark.parametrize(("overrides", "message"), [
    ({"objective__stack_share": 0.0}, r"objective\.stack_share must be >= 0\.05.*nearest valid value is 0\.05"),
    ({"objective__stack_share": 1.0}, r"objective\.stack_share must be <= 0\.5.*nearest valid value is 0\.5"),
    ({"objective__unimodal_supervision": False}, r"'stacked' needs a head per modality.*nearest valid: 'fused'"),
    ({"method": "gmu"}, r"'stacked' needs a head per modality, but objective\.unimodal_supervision is false"),
    ({"method": "cf"}, r"objective\.decision is not a key of method 'cf'"),
    ({"method": "late", "objective__decision": "mean_of_heads"}, r"must be one of fused, stacked"),
])  # fmt: skip
def test_bad_input(overrides, message):
    with pytest.raises(InputError, match=message):
        config(**overrides)


def test_older_configs_are_stored_as_before():
    assert {"decision", "stack_share"}.isdisjoint(tiny_config(method="m3col").to_dict()["objective"])
    stored = config(objective__stack_share=0.3).to_dict()
    assert loading.load(stored).objective == config(objective__stack_share=0.3).objective
