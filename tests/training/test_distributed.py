"""Several DDP workers compute what one process computes: losses, gradients with their scale, runs, predictions."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from m3col import tasks
from m3col.config.loading import with_overrides
from m3col.config.rules import shard_faults
from m3col.config.schema import RunConfig
from m3col.data.arrays import from_arrays
from m3col.data.dataset import Dataset
from m3col.data.splits import Fold
from m3col.distributed import SINGLE_RANK, RankContext
from m3col.errors import InputError
from m3col.methods import registry
from m3col.methods.supervised import FUSED
from m3col.training.fold_trainer import FoldTrainer
from m3col.training.history import TrainingJob
from m3col.training.loop import LockstepTrainer
from tests.support.helpers import tiny_config
from tests.support.ranks import start_ranks

SHARDS = 6  # what 1, 2 and 3 workers can divide
# 17 samples: two batches of 7, and one of 3, which leaves shards and the last worker empty.
METHODS = ("m3col", "mixup", "concat")
CASES = [
    (method, modalities, phase, weights, level)
    for method, modalities, phase, weights, level in itertools.product(
        METHODS, (2, 3), ("first", "last"), ("none", "balanced"), ("input", "embedding")
    )
    if (method == "m3col" or phase == "first") and (method != "concat" or level == "input")
]
# Projectors with BatchNorm, a trained scale, labels in the contrast, a fusion of tokens.
CASES += [
    (method, modalities, "first", "none", "input")
    for method, modalities in (
        ("comm", 3), ("fusion_transformer", 2), ("cross", 2), ("cross_self", 2), ("slip", 2), ("cmc", 3), ("supcon", 2),
        ("comm_supcon", 2),
        ("factorcl", 2), ("factorcl_sup", 2),
    )
]  # fmt: skip
CASES += [
    (method, modalities, "first", weights, "input")
    for method, modalities, weights in (
        ("tmc", 3, "balanced"), ("tmc", 2, "none"), ("late", 3, "balanced"), ("dynamics", 3, "balanced"),
        ("gmu", 3, "balanced"), ("unis_mmc", 3, "balanced"), ("unis_mmc", 2, "none"), ("vcdn", 3, "balanced"),
        ("centralnet", 3, "balanced"), ("cf", 2, "none"),
    )
]  # fmt: skip


# Several labels per sample, and numbers.
TABLE_CASES = [
    (task, (method, 2, "first", "balanced" if task == "multi_label" else "none", "input"))
    for task in ("multi_label", "regression")
    for method in ("m3col", "mixup")
]


def dataset(modalities: int, count: int = 17, task: str = "single_label") -> Dataset:
    draw = np.random.default_rng(3)
    inputs = {f"m{number}": draw.normal(size=(count, 4 + number)) for number in range(modalities)}
    if task == "single_label":
        return from_arrays(inputs, np.array([0, 1, 2, 1] * count)[:count])
    numbers = draw.normal(size=(count, 3))
    return from_arrays(inputs, numbers if task == "regression" else (numbers > 0.3).astype(int), task=task)


def config(method: str, *, precision: str = "float64", level: str = "input", **more: object) -> RunConfig:
    has_mix = registry.find(method).mixes
    return tiny_config(
        method=method, train__shards=SHARDS, train__batch_size=7, train__precision=precision, model__dropout=0.0,
        **({"mix__level": level} if has_mix else {}), **more,
    )  # fmt: skip


def one_epoch(
    case: tuple[str, int, str, str, str], ranks: RankContext, *, count: int = 17, task: str = "single_label"
) -> dict[str, np.ndarray]:
    """Losses of an epoch of `count` samples in which no weight moves, and the gradient of its last batch."""
    method, modalities, phase, weights, level = case
    data = dataset(modalities, count, task)
    run = config(method, level=level, train__epochs=10, objective__class_weight=weights, task=task)
    trainer = FoldTrainer(run, data.train, features=data.features, task=tasks.build(task, 3), ranks=ranks)
    means = trainer.train_epoch(1 if phase == "first" else 10, learning_rate=0.0)
    found = {f"loss.{name}": np.array(value) for name, value in means.items()}
    for name, parameter in trainer.method.named_parameters():
        assert parameter.grad is not None, name
        found[f"grad.{name}"] = parameter.grad.cpu().numpy().copy()
    return found


def whole_run(precision: str, ranks: RankContext) -> dict[str, np.ndarray]:
    """Five epochs through both phases with two folds in lockstep: every record, and the held-out logits."""
    data = dataset(2, count=23)
    folds = [Fold(np.arange(9, 23), np.arange(9)), Fold(np.arange(14), np.arange(14, 23))]
    run = config("m3col", precision=precision, train__epochs=5, objective__switch_point=0.5)
    task = TrainingJob(pool=data.train, folds=folds, features=data.features, task=tasks.build(classes=3))
    training = LockstepTrainer(run, task, ranks)
    records = training.advance(5)
    found = {f"{r.epoch}.{name}": np.array(value) for r in records for name, value in r.metrics.items()}
    found["rows"], _, found["logits"] = training.out_of_fold()
    return found


def stacked(ranks: RankContext) -> dict[str, np.ndarray]:
    """Weights of the heads after an epoch."""
    data = dataset(2, count=23)
    run = config("m3col", objective__decision="stacked")
    trainer = FoldTrainer(run, data.train, features=data.features, task=tasks.build(classes=3), ranks=ranks)
    trainer.train_epoch(1, learning_rate=0.01)
    trainer.fit_evaluation()
    return {name: value.cpu().numpy().copy() for name, value in trainer.method.stacker.state_dict().items()}


def few(count: int, ranks: RankContext) -> np.ndarray:
    """Logits of so few samples that workers may have none of them."""
    data = dataset(2)
    trainer = FoldTrainer(config("m3col"), data.train, features=data.features, task=tasks.build(classes=3), ranks=ranks)
    return trainer.logits(trainer.prepare(data.train.take(np.arange(count)).inputs))[FUSED]


def everything(ranks: RankContext) -> dict[str, np.ndarray]:
    torch.set_num_threads(1)
    found = {f"{case}|{key}": value for case in CASES for key, value in one_epoch(case, ranks).items()}
    # Of 14 samples the last batch is a whole one: all workers have rows, and not equally many.
    found |= {
        f"whole {case}|{key}": value for case in CASES for key, value in one_epoch(case, ranks, count=14).items()
    }  # fmt: skip
    found |= {
        f"{task} {case}|{key}": value
        for task, case in TABLE_CASES for key, value in one_epoch(case, ranks, task=task).items()
    }  # fmt: skip
    found |= {f"few {count}": few(count, ranks) for count in (1, 2, 5)}
    found |= {f"stacked {name}": value for name, value in stacked(ranks).items()}
    for precision in ("float64", "float32"):
        found |= {f"run {precision}|{key}": value for key, value in whole_run(precision, ranks).items()}
    return found


def _worker(rank: int, size: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{size}", rank=rank, world_size=size)
    np.savez(f"{folder}/{size}-{rank}.npz", **everything(RankContext(rank, size)))  # type: ignore[arg-type]
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def alone() -> dict[str, np.ndarray]:
    return everything(SINGLE_RANK)


@pytest.fixture(scope="module", params=[1, 2, 3])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, np.ndarray]]:
    """What each of 1, 2 or 3 real processes found."""
    folder: Path = tmp_path_factory.mktemp("workers")
    start_ranks(request.param, _worker, request.param, str(folder))
    return [dict(np.load(folder / f"{request.param}-{rank}.npz")) for rank in range(request.param)]


def test_losses_and_gradients_equal_those_of_one_process(alone, ranks):
    for rank in ranks:
        assert rank.keys() == alone.keys()
        for key, expected in alone.items():
            if not key.startswith("run "):
                scale = np.abs(expected).max()
                # A bias in front of a BatchNorm has a gradient of 0, which is rounding noise of any size.
                assert np.abs(rank[key] - expected).max() <= 1e-9 * scale + 1e-12, key


def test_the_scale_of_the_gradient_is_that_of_one_process(alone, ranks):
    for rank in ranks:
        for case in (f"{batch}{case}" for batch in ("", "whole ") for case in CASES):
            keys = [key for key in alone if key.startswith(f"{case}|grad.")]
            norms = [np.sqrt(sum(float((found[key] ** 2).sum()) for key in keys)) for found in (rank, alone)]
            assert norms[0] / norms[1] == pytest.approx(1, abs=1e-9), case


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_a_run_of_five_epochs_has_equal_losses(alone, ranks, precision, tolerance):
    prefix = f"run {precision}|"
    losses = [key for key in alone if key.startswith(prefix) and ("loss" in key or "/ce_" in key or "m3co" in key)]
    assert len(losses) > 5 * 6
    for rank in ranks:
        for key in losses:
            assert rank[key] == pytest.approx(alone[key], rel=tolerance), key


def test_in_float64_predictions_and_metrics_are_identical(alone, ranks):
    prefix = "run float64|"
    for rank in ranks:
        assert np.array_equal(rank[f"{prefix}rows"], alone[f"{prefix}rows"])
        ours, theirs = rank[f"{prefix}logits"], alone[f"{prefix}logits"]
        assert np.array_equal(ours.argmax(1), theirs.argmax(1))
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
        for key in (f"{prefix}{epoch}.val/accuracy" for epoch in range(1, 6)):
            assert rank[key] == alone[key]


def test_every_held_out_sample_counts_once(alone, ranks):
    for rank in ranks:
        assert sorted(rank["run float64|rows"]) == [*range(9), *range(14, 23)]
        assert len(rank["run float64|logits"]) == 18
        for count in (1, 2, 5):
            np.testing.assert_allclose(rank[f"few {count}"], alone[f"few {count}"], rtol=1e-9, atol=1e-12)
            assert len(rank[f"few {count}"]) == count


def test_weights_of_heads_are_fitted_to_the_outputs_of_all_workers(alone, ranks):
    assert not np.allclose(alone["stacked weight"], 1 / 3)
    for rank in ranks:
        for key in ("stacked weight", "stacked bias"):
            np.testing.assert_allclose(rank[key], alone[key], rtol=1e-9, atol=1e-12)


def test_all_workers_come_to_the_same_records(ranks):
    for rank in ranks[1:]:
        for key, value in rank.items():
            assert np.array_equal(value, ranks[0][key]), key


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7, 13])
@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_workers_divide_a_batch_into_whole_shards(n, size):
    shards = np.array_split(np.arange(n), SHARDS)
    held = [np.arange(n)[RankContext(rank, size).local_rows(n, SHARDS)] for rank in range(size)]
    assert np.array_equal(np.concatenate(held), np.arange(n))
    assert [len(rows) for rows in held] == RankContext(0, size).counts(n, SHARDS)
    for rank, rows in enumerate(held):
        each = SHARDS // size
        assert np.array_equal(rows, np.concatenate(shards[rank * each : (rank + 1) * each]))


def test_shards_that_the_workers_cannot_divide_are_refused():
    assert shard_faults(None, 3) == [] and shard_faults(6, 3) == []
    assert "nearest: 2 workers, or train.shards=6" in shard_faults(4, 3)[0]
    assert "workers must be >= 1" in shard_faults(4, 0)[0]
    data = dataset(2)
    with pytest.raises(InputError, match=r"train\.shards must be a multiple of the number of workers \(4\), but is 6"):
        FoldTrainer(
            config("m3col"), data.train, features=data.features, task=tasks.build(classes=3), ranks=RankContext(0, 4)
        )


def test_without_shards_the_batch_has_one_for_each_worker():
    data = dataset(2)
    run = tiny_config(train__shards=None, train__precision="float64")
    trainers = [
        FoldTrainer(
            with_overrides(run, {"train.shards": shards}),
            data.train,
            features=data.features,
            task=tasks.build(classes=3),
        )
        for shards in (None, 1)
    ]
    losses = [trainer.train_epoch(1, learning_rate=0.01)["loss"] for trainer in trainers]
    assert losses[0] == losses[1]
    assert FUSED in trainers[0].logits(trainers[0].prepare(data.train.inputs))
