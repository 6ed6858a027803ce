"""Training with augmented samples of every kind: keyed by position, the same on several ranks, never in evaluation."""

import numpy as np
import pytest
import torch

from m3col.checks.resolve import resolve
from m3col.data.splits import draw, pool
from m3col.distributed import RankContext
from m3col.errors import InputError
from m3col.inputs.specs import Sequences, Tokens
from m3col.tasks import registry as tasks
from m3col.training import checkpoint
from m3col.training.fold_trainer import FoldTrainer
from m3col.training.history import TrainingJob
from m3col.training.loop import LockstepTrainer
from tests.support import pairs, sequence_data
from tests.support.helpers import tiny_config, tiny_data

MEDIA = {
    "data__image__augment": ["resized_crop", "jitter", {"grey": {"p": 0.5}}, "blur", "flip"],
    "data__text__augment": [{"mask": {"p": 0.4}}],
}
ARRAYS = ["noise", "drop", "consecutive_drop", "permute", "crop", "input_mixup"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return pairs.folder(tmp_path_factory.mktemp("pairs") / "data")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("M3COL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def fold_trainer(config, dataset):
    task = tasks.build(classes=dataset.classes)
    return FoldTrainer(config, dataset.train, features=dataset.features, task=task)


def of_pairs(place):
    run = resolve(pairs.config(place, **MEDIA))
    return fold_trainer(run.config, run.dataset)


def of_tables():
    return fold_trainer(tiny_config(data__numeric__augment=ARRAYS, train__batch_size=16), tiny_data())


def of_sequences():
    config = tiny_config(data__sequence__augment=ARRAYS, data__numeric__augment="noise", train__batch_size=16)
    return fold_trainer(config, sequence_data.sequence_dataset())


def numbers(rows):
    """The content of a batch, without the padding, whose length depends on the rank."""
    if isinstance(rows, Tokens):
        return [ids[mask].tolist() for ids, mask in zip(rows.ids, rows.mask, strict=True)]
    if isinstance(rows, Sequences):
        return [values[mask].tolist() for values, mask in zip(rows.values, rows.mask, strict=True)]
    return rows.tolist()


@pytest.mark.parametrize("make", [of_pairs, of_tables, of_sequences])
def test_two_ranks_train_on_the_rows_of_one(make, place):
    trainer = make(place) if make is of_pairs else make()
    index = torch.arange(11)
    clean = {name: numbers(source.rows(index)) for name, source in trainer._inputs.items()}
    whole = {name: numbers(rows) for name, rows in trainer._batch(index, [index], 1, 0).inputs.items()}
    later = {name: numbers(rows) for name, rows in trainer._batch(index, [index], 1, 1).inputs.items()}
    parts = []
    for rank in range(2):
        trainer.ranks = RankContext(rank, 2)
        parts.append(trainer._batch(index, [index], 1, 0).inputs)
    for name in whole:
        assert [*numbers(parts[0][name]), *numbers(parts[1][name])] == whole[name]
        assert whole[name] != clean[name] and whole[name] != later[name]
        assert {name: numbers(source.rows(index)) for name, source in trainer._inputs.items()} == clean


def test_a_sample_is_augmented_alike_whatever_stands_beside_it(place):
    """Its numbers are those of its position in the batch."""
    trainer = of_pairs(place)
    first = trainer._batch(torch.tensor([3, 5, 7, 9]), [torch.tensor([3, 5, 7, 9])], 1, 0).inputs
    other = trainer._batch(torch.tensor([0, 5, 1, 9]), [torch.tensor([0, 5, 1, 9])], 1, 0).inputs
    for name in first:
        a, b = numbers(first[name]), numbers(other[name])
        assert a[1] == b[1] and a[3] == b[3] and a[0] != b[0]


def trained(place, epochs):
    run = resolve(pairs.config(place, **MEDIA))
    job = TrainingJob(
        pool(run.dataset, "given"), draw(run.dataset, kind="given"), run.dataset.features,
        tasks.build(classes=run.dataset.classes),
    )  # fmt: skip
    training = LockstepTrainer(run.config, job)
    training.advance(epochs)
    return training


def test_a_resumed_training_draws_what_an_unbroken_one_draws(place, tmp_path):
    whole, half, again = trained(place, 2), trained(place, 1), trained(place, 0)
    checkpoint.write_training(tmp_path / "epoch-000001", half)
    checkpoint.restore_training(tmp_path / "epoch-000001", again)
    again.advance(2)
    assert [record.metrics for record in again.history] == [record.metrics for record in whole.history]
    assert np.isfinite(whole.history[-1].metrics["train/loss"])


def test_a_modality_that_the_data_lacks_or_of_another_kind_is_refused(place):
    changes = {"data__image__augment": {"imag": "flip", "text": "flip"}, "data__text__augment": {"text": "mask"}}
    with pytest.raises(InputError) as error:
        resolve(pairs.config(place, **changes))
    assert error.value.faults == (
        "config: data.image.augment: modality 'imag' is unknown; did you mean 'image'?",
        "config: data.image.augment: modality 'text' is text, not image; choose from image",
    )
