"""The loop: what a score is, that resuming equals never having stopped, that a refit equals the fold it copies."""

import numpy as np
import pytest
import torch

from m3col import tasks
from m3col.data.splits import Fold, draw
from m3col.evaluation.epoch_metrics import window
from m3col.methods.supervised import FUSED
from m3col.metrics.spec import higher_is_better
from m3col.training import checkpoint
from m3col.training.history import TrainingJob
from m3col.training.loop import LockstepTrainer
from m3col.training.schedule import Schedule
from tests.support.helpers import tiny_config, tiny_data

DATA = tiny_data()


def task(**changes) -> TrainingJob:
    drawn = draw(DATA, kind="kfold", folds=3, seed=0)
    return TrainingJob(
        **({"pool": DATA.train, "folds": drawn, "features": DATA.features, "task": tasks.build(classes=2)} | changes)
    )


def weights(training: LockstepTrainer) -> list[torch.Tensor]:
    return [p.detach().clone() for trainer in training.trainers for p in trainer.method.parameters()]


@pytest.mark.parametrize("overrides", [
    {"model__dropout": 0.5},
    {"train__batch_size": 7, "method": "mixup"},
    {"train__schedule": {"kind": "plateau", "patience": 0, "gamma": 0.5}},
])  # fmt: skip
@pytest.mark.parametrize("cut", [1, 4])
def test_resuming_equals_never_having_stopped_bit_for_bit(tmp_path, overrides, cut):
    config = tiny_config(train__epochs=8, **overrides)
    whole = LockstepTrainer(config, task())
    whole.advance(8)
    first = LockstepTrainer(config, task())
    first.advance(cut)
    checkpoint.write_training(tmp_path / "epoch-1", first)
    torch.manual_seed(999)  # nothing may depend on the generator's state
    second = LockstepTrainer(config, task())
    checkpoint.restore_training(tmp_path / "epoch-1", second)
    assert second.epoch == cut
    second.advance(8)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))
    assert [r.metrics for r in whole.history] == [r.metrics for r in second.history]
    assert [r.value for r in whole.history] == [r.value for r in second.history]


def test_folds_do_not_disturb_each_other():
    config = tiny_config(model__dropout=0.5)
    together = LockstepTrainer(config, task())
    together.advance(6)
    folds = draw(DATA, kind="kfold", folds=3, seed=0)
    alone = LockstepTrainer(config, task(folds=[folds[1]], fold_offset=1))
    alone.advance(6)
    pairs = zip(together.trainers[1].method.parameters(), alone.trainers[0].method.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_refit_on_a_folds_samples_with_its_seed_gives_its_weights():
    config = tiny_config(model__dropout=0.5)
    searched = LockstepTrainer(config, task())
    searched.advance(6)
    fold = draw(DATA, kind="kfold", folds=3, seed=0)[1]
    part = DATA.train.take(fold.train)
    whole = Fold(np.arange(len(part)), np.arange(0))
    refit = LockstepTrainer(config, task(pool=part, folds=[whole], fold_offset=1))
    refit.advance(6)
    pairs = zip(searched.trainers[1].method.parameters(), refit.trainers[0].method.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert refit.history[-1].value is None


def test_value_is_the_mean_over_the_last_tenth_of_the_configured_epochs():
    config = tiny_config(train__epochs=25, metric="val/accuracy")
    training = LockstepTrainer(config, task())
    training.advance(25)
    raw = [record.metrics["val/accuracy"] for record in training.history]
    assert window(25) == 3
    for epoch in (1, 2, 3, 17, 25):
        expected = np.mean(raw[max(0, epoch - 3) : epoch])
        assert training.history[epoch - 1].value == pytest.approx(expected, rel=1e-12)


def test_accuracy_is_pooled_and_auroc_is_the_mean_over_folds():
    from sklearn.metrics import accuracy_score, roc_auc_score

    training = LockstepTrainer(tiny_config(), task())
    training.advance(6)
    rows, folds, logits = training.out_of_fold()
    labels = DATA.train.labels[rows]
    metrics = training.history[-1].metrics
    assert metrics["val/accuracy"] == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    scores = [roc_auc_score(labels[folds == f], (logits[:, 1] - logits[:, 0])[folds == f]) for f in range(3)]
    assert metrics["val/auroc"] == pytest.approx(np.mean(scores))
    assert sorted(rows.tolist()) == list(range(len(DATA.train)))


def test_direction_of_metrics():
    up = ["val/accuracy", "val/auroc", "val/accuracy_view_0", "val/macro_f1"]
    down = ["val/loss", "val/ce_fused", "val/log_loss", "val/brier", "train/loss"]
    assert all(map(higher_is_better, up)) and not any(map(higher_is_better, down))


def test_a_loss_that_is_not_finite_stops_the_training_with_its_place():
    training = LockstepTrainer(tiny_config(), task())
    with torch.no_grad():
        next(training.trainers[0].method.parameters()).fill_(float("nan"))
    from m3col.errors import TrainingFailed

    with pytest.raises(TrainingFailed, match="epoch 1"):
        training.advance(1)


def test_training_mode_is_restored_after_evaluation():
    training = LockstepTrainer(tiny_config(model__dropout=0.5), task())
    trainer = training.trainers[0]
    trainer.method.train()
    trainer.logits(trainer.prepare(DATA.train.inputs))
    assert trainer.method.training


def test_plateau_drops_are_replayed_by_a_refit():
    schedule = {"kind": "plateau", "patience": 0, "gamma": 0.5}
    searched = LockstepTrainer(tiny_config(train__epochs=12, train__schedule=schedule), task())
    searched.advance(12)
    rates = [record.metrics["train/learning_rate"] for record in searched.history]
    assert len(set(rates)) > 1
    replay = Schedule(searched.config.train, replay=rates)
    assert [replay.rate(epoch) for epoch in range(1, 13)] == rates


def test_step_schedule_drops_after_each_step_size():
    config = tiny_config(train__epochs=9, train__schedule={"kind": "step", "step_size": 3, "gamma": 0.1})
    rates = [Schedule(config.train).rate(epoch) for epoch in range(1, 10)]
    assert rates == pytest.approx([0.01] * 3 + [0.001] * 3 + [0.0001] * 3)


def test_keep_best_returns_to_the_best_epoch_also_after_a_resume(tmp_path):
    config = tiny_config(train__epochs=10, train__learning_rate=0.3, metric="val/accuracy")
    folds = draw(DATA, kind="holdout", fraction=0.3, seed=0)
    training = LockstepTrainer(config, task(folds=folds, keep_best=True))
    training.advance(10)
    scores = [record.metrics["val/accuracy"] for record in training.history]
    assert training.best.epoch == int(np.argmax(scores)) + 1 < 10
    short = LockstepTrainer(config, task(folds=folds))
    short.advance(training.best.epoch)
    assert all(torch.equal(a, b) for a, b in zip(weights(training), weights(short), strict=True))
    cut = LockstepTrainer(config, task(folds=folds, keep_best=True))
    cut.advance(training.best.epoch + 1)
    checkpoint.write_training(tmp_path / "epoch-1", cut)
    resumed = LockstepTrainer(config, task(folds=folds, keep_best=True))
    checkpoint.restore_training(tmp_path / "epoch-1", resumed)
    resumed.advance(10)
    assert all(torch.equal(a, b) for a, b in zip(weights(training), weights(resumed), strict=True))


def test_probes_are_taken_without_labels_and_survive_a_resume(tmp_path):
    config = tiny_config(train__epochs=6)
    whole = Fold(np.arange(len(DATA.train)), np.arange(0))
    full = task(folds=[whole], test_inputs=DATA.test.inputs, predict_test_every=2)
    training = LockstepTrainer(config, full)
    training.advance(3)
    checkpoint.write_training(tmp_path / "epoch-1", training)
    resumed = LockstepTrainer(config, full)
    checkpoint.restore_training(tmp_path / "epoch-1", resumed)
    resumed.advance(6)
    assert sorted(resumed.test_logits) == [2, 4, 6]
    last = resumed.trainers[0].logits(resumed.trainers[0].prepare(DATA.test.inputs))[FUSED]
    assert np.array_equal(resumed.test_logits[6], last)
