"""A sample may lack a modality: its embedding is zero and has no gradient, and its placeholder changes no number."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from m3col.data.splits import Fold
from m3col.inputs.specs import Partial
from m3col.methods import registry
from m3col.methods.batch import Batch, Step
from m3col.tasks import registry as tasks
from m3col.training.fold_trainer import FoldTrainer
from m3col.training.history import TrainingJob
from m3col.training.loop import LockstepTrainer
from tests.support.helpers import tiny_config, tiny_data

DATA = tiny_data()
TASK = tasks.build(classes=2)


def lacking(rows: list[int], placeholder: float = 0.0):
    """The training split, in which these samples lack view_0."""
    present = np.ones(len(DATA.train), bool)
    present[rows] = False
    values = np.where(present[:, None], DATA.train.inputs["view_0"], placeholder)
    return replace(
        DATA.train,
        inputs={**DATA.train.inputs, "view_0": values},
        present={**DATA.train.present, "view_0": present},
    )


@pytest.mark.parametrize("name", ["m3col", "mixup", "concat"])
def test_an_absent_embedding_is_zero_without_gradient_and_mixtures_with_it_too(name):
    torch.manual_seed(0)
    method = registry.load(name)(tiny_config(method=name), features={"a": 4, "b": 3}, task=TASK).double()
    rows = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    present = torch.tensor([True, False, True, True, False, True])
    embeddings = method.encode({"a": Partial(rows, present), "b": torch.randn(6, 3, dtype=torch.float64)})
    assert torch.equal(embeddings["a"].abs().sum(1) > 0, present) and (embeddings["b"].abs().sum(1) > 0).all()
    (gradient,) = torch.autograd.grad(embeddings["a"].sum(), rows)
    assert torch.equal(gradient.abs().sum(1) > 0, present)
    partner = torch.tensor([1, 2, 3, 0, 5, 4])
    mixed = method.embed("a", Partial(rows, present), (partner, torch.full((6,), 0.7, dtype=torch.float64)))
    assert torch.equal(mixed.abs().sum(1) > 0, present & present[partner])


@pytest.mark.parametrize("name", ["m3col", "mixup", "concat"])
def test_the_losses_of_such_a_batch_are_finite_and_the_batch_says_who_is_there(name):
    torch.manual_seed(0)
    method = registry.load(name)(tiny_config(method=name), features={"a": 4, "b": 3}, task=TASK).double()
    present = torch.tensor([True, False, True, True, False, True])
    inputs = {"a": Partial(torch.randn(6, 4).double(), present), "b": torch.randn(6, 3).double()}
    batch = Batch.of(inputs, torch.arange(6) % 2)
    assert batch.present.keys() == {"a"} and torch.equal(batch.present["a"], present)
    losses = method.losses(batch, Step(0, 0, 1, 0))
    losses["loss"].backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.parameters())


def test_no_placeholder_changes_a_number():
    """Neither what is fitted to the training fold, nor a weight, nor a validation score."""
    config = tiny_config(train__epochs=3, train__batch_size=10)
    fold = Fold(np.arange(0, 30), np.arange(30, 40))
    found = []
    for placeholder in (0.0, 1e3):
        job = TrainingJob(lacking([0, 5, 31], placeholder), [fold], DATA.features, TASK)
        run = LockstepTrainer(config, job)
        records = run.advance(3)
        found.append([record.metrics for record in records])
    assert found[0] == found[1]
    whole = LockstepTrainer(config, TrainingJob(DATA.train, [fold], DATA.features, TASK))
    assert [record.metrics for record in whole.advance(3)] != found[0]


def test_where_all_are_there_nothing_is_wrapped():
    trainer = FoldTrainer(tiny_config(), DATA.train, features=DATA.features, task=TASK)
    with_mask = trainer.prepare(DATA.train.inputs, DATA.train.present)
    assert [type(source) for source in with_mask.values()] == [
        type(source) for source in trainer.prepare(DATA.train.inputs).values()
    ]
