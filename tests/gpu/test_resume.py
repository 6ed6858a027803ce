"""With `train.deterministic` a training that is resumed in a new process has the weights of an unbroken one, bit for
bit on one kind of GPU."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from m3col.training import checkpoint
from m3col.training.loop import LockstepTrainer
from tests.gpu.work import pair_config, training_of
from tests.support import pairs
from tests.support.helpers import tiny_config, tiny_data
from tests.support.ranks import start_ranks

OMICS, PAIR = "omics", "images and texts in bfloat16"


def new_training(kind: str, deterministic: bool, folder: str, device: torch.device) -> LockstepTrainer:
    on_card = device.type == "cuda"
    common: dict[str, Any] = {
        "train__deterministic": deterministic, "train__epochs": 20 if on_card else 4, "model__dropout": 0.3,
        "validation__kind": "none",
    }  # fmt: skip
    if kind == OMICS:
        sizes = {"model__embedding_dim": 256, "model__classifier_dim": 256} if on_card else {}
        return training_of(tiny_config(**common, **sizes), device, data=tiny_data(samples=60, modalities=3))
    run = pair_config(Path(folder, "data"), device, train__precision="bfloat16", train__accumulate=2, **common)
    return training_of(run, device)


def weights(training: LockstepTrainer) -> dict[str, torch.Tensor]:
    return {name: value.cpu() for name, value in training.trainers[0].state().items()}


def resume(rank: int, kind: str, deterministic: bool, folder: str, device: str) -> None:
    """In a process of its own: goes on from the checkpoint and stores the weights."""
    os.environ["M3COL_CACHE"] = f"{folder}/cache"
    training = new_training(kind, deterministic, folder, torch.device(device))
    checkpoint.restore_training(Path(folder, "half"), training)
    training.advance(training.config.train.epochs)
    save_file(weights(training), f"{folder}/resumed.safetensors")


@pytest.mark.parametrize(
    ("kind", "deterministic"), [(OMICS, True), (OMICS, False), (PAIR, True)],
    ids=["omics", "omics, any algorithm", "pair"],
)  # fmt: skip
def test_a_resumed_training_has_the_bits_of_an_unbroken_one(kind, deterministic, device, report, tmp_path: Path):
    if kind == PAIR:
        pairs.folder(tmp_path / "data")
    unbroken = new_training(kind, deterministic, str(tmp_path), device)
    unbroken.advance(unbroken.config.train.epochs // 2)
    checkpoint.write_training(tmp_path / "half", unbroken)
    unbroken.advance(unbroken.config.train.epochs)
    start_ranks(1, resume, kind, deterministic, str(tmp_path), str(device))
    expected, values = weights(unbroken), load_file(tmp_path / "resumed.safetensors")
    assert set(values) == set(expected)
    differing = [name for name, value in expected.items() if not torch.equal(values[name], value)]
    report(f"resumed against unbroken, {kind}, deterministic {deterministic}: tensors that differ", len(differing))
    if deterministic:
        assert differing == []
