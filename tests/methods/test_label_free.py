"""The base of all methods needs neither labels nor heads, and may ask for several views of a batch."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from m3col import randomness
from m3col.data.splits import Fold
from m3col.methods import registry
from m3col.methods.base import Method
from m3col.tasks import registry as tasks
from m3col.training.fold_trainer import FoldTrainer
from m3col.training.history import TrainingJob
from m3col.training.loop import LockstepTrainer
from tests.support.helpers import tiny_config, tiny_data

DATA = tiny_data()
UNLABELLED = replace(DATA.train, labels=None)


class Agreement(Method):
    """Embeddings of the modalities move together, over all pairs of views: no labels, no heads."""

    views = ("a", "b")

    def losses(self, batch, step):
        assert batch.labels is None and tuple(batch.views) == self.views and batch.size == len(UNLABELLED)
        embeddings = [self.encode(view) for view in batch.views.values()]
        first, *rest = [value for view in embeddings for value in view.values()]
        return {"loss": sum((first - other).square().mean() for other in rest)}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(
        registry.TABLE, "agreement", registry._of_class("agreement", "tests.methods.test_label_free:Agreement",
        display_name="agreement"),
    )  # fmt: skip
    yield
    registry._NAMED.pop("agreement", None)


def config():
    return tiny_config(method="agreement", train__epochs=4, validation__kind="none")


def test_it_trains_without_labels_and_its_loss_falls():
    every = np.arange(len(UNLABELLED))
    job = TrainingJob(UNLABELLED, [Fold(every, every[:0])], DATA.features, tasks.build(classes=2))
    run = LockstepTrainer(config(), job)
    records = run.advance(4)
    losses = [record.metrics["train/loss"] for record in records]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    assert run.trainers[0].outputs == () and run.trainers[0].method.class_weight is None
    assert not [name for name, _ in run.trainers[0].method.named_parameters() if not name.startswith("encoders")]


def test_each_view_has_draws_of_its_own_and_the_clean_one_those_of_before():
    trainer = FoldTrainer(config(), UNLABELLED, features=DATA.features, task=tasks.build(classes=2))
    trainer.transforms["view_0"] = SimpleNamespace(augment="flip")
    draws = {view: trainer._draws("view_0", 6, 1, 0, slice(1, 4), view=view) for view in ("clean", "a", "b")}
    draws = {view: keyed.uniform(3) for view, keyed in draws.items()}
    assert all(numbers.shape == (3, 3) for numbers in draws.values())
    assert not np.array_equal(draws["a"], draws["b"]) and not np.array_equal(draws["a"], draws["clean"])
    key = randomness.generator(seed=0, fold=0, epoch=1, step=0, purpose="augment/view_0")
    assert np.array_equal(draws["clean"], key.random((6, 3))[1:4])


def test_a_supervised_method_without_labels_says_so():
    trainer = FoldTrainer(tiny_config(method="concat"), UNLABELLED, features=DATA.features, task=tasks.build(classes=2))
    with pytest.raises(AssertionError, match="without labels"):
        trainer.train_epoch(1, learning_rate=0.1)


def test_the_loss_has_a_gradient_for_every_weight():
    torch.manual_seed(0)
    method = Agreement(config(), features={"x": 3, "y": 4}, task=tasks.build(classes=2))
    views = {view: {"x": torch.randn(len(UNLABELLED), 3), "y": torch.randn(len(UNLABELLED), 4)} for view in "ab"}
    batch = SimpleNamespace(labels=None, views=views, size=len(UNLABELLED))
    method.losses(batch, None)["loss"].backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in method.parameters())
