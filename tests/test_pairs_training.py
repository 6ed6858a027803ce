"""Training on pictures and texts: the same with or without cache, workers, interruptions; accumulated steps; rates."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

import m3col
from m3col import checkpoint
from m3col.config import load
from m3col.data.splits import draw, pool
from m3col.distributed import ALONE, Workers
from m3col.prepare import prepare
from m3col.trainer import Trainer, parameter_groups
from m3col.training import Task, Training
from tests import pairs
from tests.helpers import tiny_config, tiny_data


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return pairs.folder(tmp_path_factory.mktemp("pairs") / "data")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("M3COL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def trained(place, epochs=2, workers=ALONE, **changes):
    found = prepare(pairs.config(place, **changes))
    task = Task(
        pool=pool(found.dataset, "given"), folds=draw(found.dataset, kind="given"), features=found.dataset.features,
        num_classes=found.dataset.num_classes,
    )  # fmt: skip
    training = Training(found.config, task, workers)
    training.advance(epochs)
    return training


def metrics(training):
    return [record.metrics for record in training.history]


def test_it_learns_and_its_checkpoint_needs_neither_data_nor_hub(place, tmp_path):
    result = m3col.train(pairs.config(place, train__epochs=12), runs=tmp_path, tracking_uri="none")
    assert result.metrics["test/accuracy"] > 0.8
    test = prepare(pairs.config(place)).dataset.test
    paths, texts = list(test.inputs["image"].values), list(test.inputs["text"].values)
    loaded = m3col.load(result.checkpoint)
    found = loaded.predict_proba({"image": paths, "text": texts})
    contents = [Path(path).read_bytes() for path in paths]
    assert np.array_equal(loaded.predict_proba({"image": contents, "text": texts}), found)
    assert np.array_equal(result.predict_proba(test.inputs).argmax(1), found.argmax(1))
    assert loaded.kinds == {"image": "image", "text": "text"} and set(loaded.votes(test.inputs)) == {
        "image", "text", "fused",
    }  # fmt: skip


def test_the_cache_changes_nothing(place):
    changes = {"data__image__augment": "crop_flip"}
    assert metrics(trained(place, **changes)) == metrics(trained(place, data__cache=False, **changes))


def test_augmentation_changes_the_training_and_never_the_validation(place):
    plain, moved = (trained(place, epochs=1, data__image__augment=kind) for kind in ("none", "crop_flip"))
    assert metrics(plain)[0]["train/loss"] != metrics(moved)[0]["train/loss"]
    moved.trainers[0].method.load_state_dict(plain.trainers[0].method.state_dict())
    assert moved._validate() == plain._validate()


def test_a_run_that_goes_on_from_a_checkpoint_equals_an_unbroken_one(place, tmp_path):
    changes = {"data__image__augment": "crop", "train__accumulate": 2, "train__encoder_learning_rate": 1e-4}
    whole, half = trained(place, epochs=2, **changes), trained(place, epochs=1, **changes)
    checkpoint.write_training(tmp_path / "epoch-000001", half)
    again = trained(place, epochs=0, **changes)
    checkpoint.restore_training(tmp_path / "epoch-000001", again)
    again.advance(2)
    assert metrics(again) == metrics(whole)


def test_grouping_by_length_is_another_order_with_the_same_samples(place):
    plain, grouped = (trained(place, epochs=1, data__text__group_by_length=flag) for flag in (False, True))
    assert metrics(plain) != metrics(grouped)
    indices = torch.cat(list(grouped.trainers[0]._indices(1)))
    assert sorted(indices.tolist()) == list(range(24))


@pytest.mark.parametrize("method", ["concat", "single", "mixup"])
def test_an_accumulated_step_equals_one_large_step(method):
    """For every term that is a mean over samples; 20 samples in batches of 4, so that the last step is smaller."""
    data = tiny_data(samples=20)
    if method == "single":
        data = data.select(["view_0"])
    common = {"method": method, "train__precision": "float64", "train__shards": 1}
    common |= {"data__modalities": ["view_0"]} if method == "single" else {}
    common |= {"mix__probability": 1e-9} if method == "mixup" else {}  # who is mixed with whom depends on the batch
    runs = [
        tiny_config(train__batch_size=4, train__accumulate=3, **common), tiny_config(train__batch_size=12, **common),
    ]  # fmt: skip
    models = []
    for run in runs:
        trainer = Trainer(run, data.train, features=data.features, num_classes=2)
        losses = [trainer.train_epoch(epoch, learning_rate=0.01)["loss"] for epoch in (1, 2, 3)]
        models.append((losses, torch.nn.utils.parameters_to_vector(trainer.method.parameters())))
    assert models[0][0][1] == pytest.approx(models[1][0][1], rel=1e-9)
    torch.testing.assert_close(models[0][1], models[1][1], rtol=1e-9, atol=1e-12)


def test_the_contrast_stays_within_a_batch_when_steps_are_accumulated():
    data = tiny_data(samples=24)
    runs = [tiny_config(train__batch_size=4, train__accumulate=3), tiny_config(train__batch_size=12)]
    losses = [
        Trainer(run, data.train, features=data.features, num_classes=2).train_epoch(1, learning_rate=0.0)
        for run in runs
    ]
    assert losses[0]["ce_fused"] == pytest.approx(losses[1]["ce_fused"], rel=1e-5)
    assert losses[0]["m3co"] < 0.8 * losses[1]["m3co"]  # fewer negatives


def test_parts_have_rates_and_decay_of_their_own(place):
    run = pairs.config(
        place, train__learning_rate=1e-3, train__encoder_learning_rate=1e-4, train__weight_decay=0.1,
        train__encoder_weight_decay=0.01, train__decay="weights",
    )  # fmt: skip
    found = prepare(run)
    trainer = Trainer(run, found.dataset.train, features=found.dataset.features, num_classes=3)
    names = {id(parameter): name for name, parameter in trainer.method.named_parameters()}
    seen = set()
    for group in parameter_groups(run, trainer.method):
        for parameter in group["params"]:
            name = names[id(parameter)]
            seen.add(name)
            is_encoder = name.startswith("encoders.")
            assert group["scale"] == pytest.approx(0.1 if is_encoder else 1.0)
            wanted = 0.0 if parameter.ndim < 2 else 0.01 if is_encoder else 0.1
            assert group["weight_decay"] == wanted, name
    assert seen == {name for name, parameter in trainer.method.named_parameters() if parameter.requires_grad}
    trainer.train_epoch(1, learning_rate=5e-4)
    assert {round(group["lr"], 9) for group in trainer.optimizer.param_groups} == {5e-4, 5e-5}


def test_without_settings_of_their_own_all_parameters_are_one_group():
    run = tiny_config()
    data = tiny_data()
    trainer = Trainer(run, data.train, features=data.features, num_classes=2)
    (group,) = parameter_groups(run, trainer.method)
    assert group["scale"] == 1.0 and group["weight_decay"] == run.train.weight_decay


def test_bfloat16_trains_near_float32(place):
    full, half = (trained(place, epochs=1, train__precision=precision) for precision in ("float32", "bfloat16"))
    ours, theirs = metrics(half)[0], metrics(full)[0]
    assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=0.03)
    assert ours["train/loss"] != theirs["train/loss"]
    assert all(value.dtype == torch.float32 for value in half.trainers[0].method.state_dict().values())


def test_compiled_encoders_give_the_same_training():
    """On a table: compiling a transformer takes a minute."""
    data, found = tiny_data(), []
    for flag in (False, True):
        run = tiny_config(model__compile=flag, train__precision="float64")
        trainer = Trainer(run, data.train, features=data.features, num_classes=2)
        losses = [trainer.train_epoch(epoch, learning_rate=0.01)["loss"] for epoch in (1, 2)]
        found.append((losses, trainer.method.state_dict().keys()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-9)
    assert found[0][1] == found[1][1]


def test_checkpointed_gradients_give_the_same_training(place):
    plain, made = (trained(place, epochs=1, model__gradient_checkpointing=flag) for flag in (False, True))
    assert metrics(made)[0]["train/loss"] == pytest.approx(metrics(plain)[0]["train/loss"], rel=1e-5)


def test_levels_may_differ_between_modalities(place):
    losses = {
        str(level): metrics(trained(place, epochs=1, mix__level=level))[0]["train/m3co"]
        for level in ("input", "embedding", {"image": "embedding", "text": "input"})
    }
    assert len(set(losses.values())) == 3


def two_workers(rank, size, folder, place):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    found = trained(place, workers=Workers(rank, size), **DISTRIBUTED)
    torch.save(metrics(found), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


# 24 samples in batches of 7, and one of 3 in four shards: the second worker has a single sample there.
DISTRIBUTED = {
    "train__shards": 4, "train__batch_size": 7, "train__accumulate": 2, "train__precision": "float64",
    "data__image__augment": "crop_flip", "objective__switch_point": 0.5,
}  # fmt: skip


def test_two_workers_train_as_one(place, tmp_path):
    torch.multiprocessing.spawn(two_workers, (2, str(tmp_path), str(place)), nprocs=2)
    alone = metrics(trained(place, **DISTRIBUTED))
    for rank in range(2):
        together = torch.load(tmp_path / f"{rank}.pt")
        for ours, theirs in zip(together, alone, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-7)


def test_a_table_beside_pictures_and_texts(place):
    """Three kinds of modality in one model."""
    found = prepare(pairs.config(place))
    data = found.dataset
    draw_ = np.random.default_rng(0)

    def with_numbers(split):
        numbers = draw_.normal(size=(len(split), 4)) + split.labels[:, None]
        present = np.ones(len(split), dtype=bool)
        return replace(split, inputs={**split.inputs, "lab": numbers}, present={**split.present, "lab": present})

    both = replace(
        data, features={**data.features, "lab": ("a", "b", "c", "d")}, train=with_numbers(data.train),
        validation=with_numbers(data.validation), test=with_numbers(data.test),
    )  # fmt: skip
    task = Task(
        pool=pool(both, "given"), folds=draw(both, kind="given"), features=both.features, num_classes=3
    )  # fmt: skip
    run = load({**copy.deepcopy(found.config.to_dict()), "metric": None}, overrides={"data.modalities": None})
    training = Training(run, task)
    training.advance(1)
    assert {"val/accuracy_image", "val/accuracy_text", "val/accuracy_lab"} <= training.history[-1].metrics.keys()
