"""Training on images and texts: the same with or without cache, ranks, interruptions; accumulated steps; rates."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

import m3col
from m3col import devices, tasks
from m3col.checks.resolve import resolve
from m3col.config.loading import load
from m3col.data.splits import draw, pool
from m3col.distributed import SINGLE_RANK, RankContext
from m3col.errors import InputError
from m3col.methods import mixed_views
from m3col.methods.batch import Step
from m3col.tasks.base import Mixed
from m3col.training import checkpoint
from m3col.training.fold_trainer import FoldTrainer
from m3col.training.history import TrainingJob
from m3col.training.loop import LockstepTrainer
from m3col.training.optimizer import parameter_groups
from tests.support import pairs
from tests.support.helpers import tiny_config, tiny_data
from tests.support.ranks import start_ranks


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return pairs.folder(tmp_path_factory.mktemp("pairs") / "data")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("M3COL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def trained(place, epochs=2, ranks=SINGLE_RANK, **changes):
    found = resolve(pairs.config(place, **changes))
    task = TrainingJob(
        pool=pool(found.dataset, "given"), folds=draw(found.dataset, kind="given"), features=found.dataset.features,
        task=tasks.build(classes=found.dataset.classes),
    )  # fmt: skip
    training = LockstepTrainer(found.config, task, ranks)
    training.advance(epochs)
    return training


def metrics(training):
    return [record.metrics for record in training.history]


def test_it_learns_and_its_checkpoint_needs_neither_data_nor_hub(place, tmp_path):
    result = m3col.train(pairs.config(place, train__epochs=12), runs=tmp_path, tracking_uri="none")
    assert result.metrics["test/accuracy"] > 0.8
    test = resolve(pairs.config(place)).dataset.test
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


def test_moments_come_back_with_the_layout_of_their_weights(place):
    """Convolutions on a GPU are kept channel by channel, files row by row; a fused optimizer refuses the difference."""
    ready = resolve(pairs.config(place))

    def as_on_a_gpu():
        trainer = FoldTrainer(
            ready.config, ready.dataset.train, features=ready.dataset.features, task=ready.task
        )  # fmt: skip
        trainer.method.to(memory_format=torch.channels_last)
        return trainer

    whole, resumed = as_on_a_gpu(), as_on_a_gpu()
    whole.train_epoch(1, learning_rate=1e-3)
    resumed.load_state({name: value.clone() for name, value in whole.state().items()})
    strides = [(p.stride(), *(m[key].stride() for key in ("exp_avg", "exp_avg_sq")))
               for p, m in resumed.optimizer.state.items()]  # fmt: skip
    assert any(len(weight) == 4 and weight[1] == 1 for weight, *_ in strides), "channel by channel"
    assert all(weight == first == second for weight, first, second in strides)
    assert resumed.train_epoch(2, learning_rate=1e-3) == whole.train_epoch(2, learning_rate=1e-3)


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
        trainer = FoldTrainer(run, data.train, features=data.features, task=tasks.build(classes=2))
        losses = [trainer.train_epoch(epoch, learning_rate=0.01)["loss"] for epoch in (1, 2, 3)]
        models.append((losses, torch.nn.utils.parameters_to_vector(trainer.method.parameters())))
    assert models[0][0][1] == pytest.approx(models[1][0][1], rel=1e-9)
    torch.testing.assert_close(models[0][1], models[1][1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", ["m3col", "concat"])
def test_an_accumulated_step_weighs_classes_as_one_large_step(method):
    """The second batch has other classes than the first; no contrast, which stays within a batch."""
    data = tiny_data(samples=26)
    common = {"method": method, "train__precision": "float64", "objective__class_weight": [1.0, 8.0]}
    common |= {"objective__beta": 0.0} if method == "m3col" else {}
    models = []
    for sizes in ({"train__batch_size": 5, "train__accumulate": 3}, {"train__batch_size": 15}):
        trainer = FoldTrainer(
            tiny_config(**sizes, **common), data.train, features=data.features, task=tasks.build(classes=2)
        )
        losses = [trainer.train_epoch(epoch, learning_rate=0.01)["loss"] for epoch in (1, 2)]
        models.append((losses, torch.nn.utils.parameters_to_vector(trainer.method.parameters())))
    assert models[0][0] == pytest.approx(models[1][0], rel=1e-9)
    torch.testing.assert_close(models[0][1], models[1][1], rtol=1e-9, atol=1e-12)


def test_the_contrast_stays_within_a_batch_when_steps_are_accumulated():
    data = tiny_data(samples=24)
    runs = [tiny_config(train__batch_size=4, train__accumulate=3), tiny_config(train__batch_size=12)]
    losses = [
        FoldTrainer(run, data.train, features=data.features, task=tasks.build(classes=2)).train_epoch(
            1, learning_rate=0.0
        )
        for run in runs
    ]
    assert losses[0]["ce_fused"] == pytest.approx(losses[1]["ce_fused"], rel=1e-5)
    assert losses[0]["m3co"] < 0.8 * losses[1]["m3co"]  # fewer negatives


def test_parts_have_rates_and_decay_of_their_own(place):
    run = pairs.config(
        place, train__learning_rate=1e-3, train__encoder_learning_rate=1e-4, train__weight_decay=0.1,
        train__encoder_weight_decay=0.01, train__decay="weights",
    )  # fmt: skip
    found = resolve(run)
    trainer = FoldTrainer(run, found.dataset.train, features=found.dataset.features, task=tasks.build(classes=3))
    names = {id(parameter): name for name, parameter in trainer.method.named_parameters()}
    spared = {f"{name}.bias" for name, module in trainer.method.named_modules() if hasattr(module, "bias")}
    norms = {name for name, module in trainer.method.named_modules() if isinstance(module, torch.nn.LayerNorm)}
    spared |= {f"{name}.weight" for name in norms}
    assert norms
    seen = set()
    for group in parameter_groups(run, trainer.method):
        for parameter in group["params"]:
            name = names[id(parameter)]
            seen.add(name)
            is_encoder = name.startswith("encoders.")
            assert group["scale"] == pytest.approx(0.1 if is_encoder else 1.0)
            wanted = 0.0 if name in spared else 0.01 if is_encoder else 0.1
            assert group["weight_decay"] == wanted, name
    assert seen == {name for name, parameter in trainer.method.named_parameters() if parameter.requires_grad}
    trainer.train_epoch(1, learning_rate=5e-4)
    assert {round(group["lr"], 9) for group in trainer.optimizer.param_groups} == {5e-4, 5e-5}


def test_biases_that_are_tables_are_spared_too(place):
    """The biases of relative positions of a Swin transformer."""
    swin = {"patch_size": 4, "window_size": 4, "embed_dim": 16, "depths": [1], "num_heads": [2]}
    run = pairs.config(
        place, model__image__name="swin_tiny_patch4_window7_224", model__image__options=swin, train__decay="weights"
    )  # fmt: skip
    found = resolve(run)
    trainer = FoldTrainer(run, found.dataset.train, features=found.dataset.features, task=tasks.build(classes=3))
    (table,) = [p for name, p in trainer.method.named_parameters() if name.endswith("relative_position_bias_table")]
    (group,) = [g for g in parameter_groups(run, trainer.method) if any(p is table for p in g["params"])]
    assert table.ndim == 2 and group["weight_decay"] == 0


def test_a_last_image_alone_joins_the_batch_before_where_a_batch_is_normalised(place):
    """24 samples in batches of 23."""
    resnet = {"model__image__name": "resnet10t", "model__image__options": {}, "data__image__size": 32}
    (record,) = trained(place, epochs=1, train__batch_size=23, **resnet).history
    assert np.isfinite(record.metrics["train/loss"])
    alone = resolve(pairs.config(place, train__batch_size=23)).dataset
    trainer = FoldTrainer(
        pairs.config(place, train__batch_size=23), alone.train, features=alone.features, task=tasks.build(classes=3)
    )  # fmt: skip
    assert [len(batch.labels) for batch, _, _ in trainer._steps(1)] == [23, 1]


@pytest.mark.parametrize("changes", [{"method": "concat"}, {"method": "single", "data__modalities": ["text"]}])
def test_baselines_train_on_images_and_texts(place, changes):
    (record,) = trained(place, epochs=1, **changes).history
    assert np.isfinite(record.metrics["val/loss"])


def test_under_bfloat16_targets_are_mixed_in_float32():
    method, batch = mixup_method()
    mixing = mixed_views.draw(method, batch, Step(0, 0, 1, 0), alpha=1.0, shared_permutation=True)
    mixed = Mixed(mixing.permutations["view_0"], mixing.lam)
    logits = torch.randn(batch.size, 2, generator=torch.Generator().manual_seed(0)).bfloat16()
    (exact,) = method.head_losses({"fused": logits.float()}, batch, mixed).values()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (rounded,) = method.head_losses({"fused": logits}, batch, mixed).values()
    assert float(rounded) == pytest.approx(float(exact), rel=1e-6)


def mixup_method():
    data = tiny_data(samples=24)
    trainer = FoldTrainer(tiny_config(method="mixup"), data.train, features=data.features, task=tasks.build(classes=2))
    ((batch, _, _),) = trainer._steps(1)
    return trainer.method, batch


def test_a_modality_may_have_a_rate_of_its_own(place):
    run = pairs.config(place, train__learning_rate=1e-3, train__encoder_learning_rate={"text": 1e-4})
    found = resolve(run)
    trainer = FoldTrainer(run, found.dataset.train, features=found.dataset.features, task=tasks.build(classes=3))
    names = {id(parameter): name for name, parameter in trainer.method.named_parameters()}
    for group in parameter_groups(run, trainer.method):
        for parameter in group["params"]:
            of_text = names[id(parameter)].startswith("encoders.text.")
            assert group["scale"] == pytest.approx(0.1 if of_text else 1.0)
    alone = {"data__modalities": ["image"], "method": "single"}
    assert resolve(pairs.config(place, train__encoder_learning_rate={"text": 1e-4}, **alone))
    with pytest.raises(
        InputError, match=r"train\.encoder_learning_rate: modality 'txt' is unknown; did you mean 'text'"
    ):
        resolve(pairs.config(place, train__encoder_learning_rate={"txt": 1e-4}))


def test_without_settings_of_their_own_all_parameters_are_one_group():
    run = tiny_config()
    data = tiny_data()
    trainer = FoldTrainer(run, data.train, features=data.features, task=tasks.build(classes=2))
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
    before = devices.compilations()
    for flag in (False, True):
        run = tiny_config(model__compile=flag, train__precision="float64")
        trainer = FoldTrainer(run, data.train, features=data.features, task=tasks.build(classes=2))
        losses = [trainer.train_epoch(epoch, learning_rate=0.01)["loss"] for epoch in (1, 2)]
        found.append((losses, trainer.method.state_dict().keys()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-9)
    assert found[0][1] == found[1][1]
    assert devices.compilations() > before


def test_checkpointed_gradients_give_the_same_training(place):
    plain, made = (trained(place, epochs=1, model__gradient_checkpointing=flag) for flag in (False, True))
    assert metrics(made)[0]["train/loss"] == pytest.approx(metrics(plain)[0]["train/loss"], rel=1e-5)


def test_levels_may_differ_between_modalities(place):
    losses = {
        str(level): metrics(trained(place, epochs=1, mix__level=level))[0]["train/m3co"]
        for level in ("input", "embedding", {"image": "embedding", "text": "input"})
    }
    assert len(set(losses.values())) == 3


def several_workers(rank, size, folder, place):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    found = {name: metrics(trained(place, ranks=RankContext(rank, size), **run)) for name, run in DISTRIBUTED.items()}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


# 24 samples in batches of 7, and one of 3 in four shards: the second of two ranks has a single sample there, the last
# two of four have none.
_COMMON = {"train__shards": 4, "train__batch_size": 7, "train__precision": "float64", "objective__switch_point": 0.5}
DISTRIBUTED = {
    "accumulated and augmented": {"train__accumulate": 2, "data__image__augment": "crop_flip"},
    "grouped by length": {"data__text__group_by_length": True},
    "checkpointed gradients": {"model__gradient_checkpointing": True},
    "plateau": {
        "train__schedule": {"kind": "plateau", "patience": 0, "gamma": 0.5}, "train__epochs": 3, "epochs": 3,
        "metric": "val/accuracy",
    },
    "mixup, class tokens": {"method": "mixup", "objective__switch_point": None, "model__text__pool": "cls"},
    "bfloat16": {"train__precision": "bfloat16"},
    "one encoder for both": {"method": "mmbt", "objective__switch_point": None},
}  # fmt: skip
DISTRIBUTED = {
    name: {key: value for key, value in {**_COMMON, **run}.items() if value is not None}
    for name, run in DISTRIBUTED.items()
}


@pytest.fixture(scope="module")
def one_process(place):
    return {name: metrics(trained(place, **run)) for name, run in DISTRIBUTED.items()}


@pytest.mark.parametrize("size", [2, 4])
def test_several_workers_train_as_one(place, one_process, tmp_path, size):
    start_ranks(size, several_workers, size, str(tmp_path), str(place))
    for rank in range(size):
        found = torch.load(tmp_path / f"{rank}.pt")
        for name, alone in one_process.items():
            tolerance = 0.05 if name == "bfloat16" else 1e-7
            for ours, theirs in zip(found[name], alone, strict=True):
                assert {key for key in ours if "loss" in key} == {key for key in theirs if "loss" in key}
                compared = {key: value for key, value in theirs.items() if "loss" in key or name != "bfloat16"}
                assert {key: ours[key] for key in compared} == pytest.approx(compared, rel=tolerance, nan_ok=True), name


def test_a_table_beside_images_and_texts(place):
    """Three kinds of modality in one model."""
    found = resolve(pairs.config(place))
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
    task = TrainingJob(
        pool=pool(both, "given"), folds=draw(both, kind="given"), features=both.features, task=tasks.build(classes=3)
    )  # fmt: skip
    run = load({**copy.deepcopy(found.config.to_dict()), "metric": None}, overrides={"data.modalities": None})
    training = LockstepTrainer(run, task)
    training.advance(1)
    assert {"val/accuracy_image", "val/accuracy_text", "val/accuracy_lab"} <= training.history[-1].metrics.keys()
