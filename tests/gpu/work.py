"""Small trainings that the tests of this folder share; each runs on a GPU and on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from m3col import tasks
from m3col.checks.resolve import resolve
from m3col.config.schema import RunConfig
from m3col.data.dataset import Dataset
from m3col.data.splits import Fold, pool
from m3col.distributed import RankContext
from m3col.training.fold_trainer import FoldTrainer
from m3col.training.history import TrainingJob
from m3col.training.loop import LockstepTrainer
from tests.support import pairs

# Width 128 and 4 layers, patches of 8 in images of 64: the smallest ViT whose kernels are those of a large one.
VIT = {
    "data.image.size": 64,
    "model.image.options": {"patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4},
    "model.text.options": {
        "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    },
}  # fmt: skip


def pair_config(place: Path, device: torch.device, **changes: Any) -> RunConfig:
    """Images and texts with small encoders; on the CPU with those of the CPU tests, which are smaller still."""
    sizes = {key.replace(".", "__"): value for key, value in VIT.items()} if device.type == "cuda" else {}
    return pairs.config(place, **{**sizes, **changes})


def trainer_of(
    config: RunConfig, device: torch.device, *, data: Dataset | None = None, ranks: RankContext | None = None
) -> FoldTrainer:
    """A trainer of all training samples. `data`: in memory; None: the config names it. `ranks`: None: one rank."""
    resolved = resolve(config, data=data)
    return FoldTrainer(
        resolved.config, resolved.dataset.train, features=resolved.dataset.features, task=resolved.task,
        ranks=ranks or RankContext(device=device),
    )  # fmt: skip


def training_of(config: RunConfig, device: torch.device, *, data: Dataset | None = None) -> LockstepTrainer:
    """A training of one fold on all training samples, without validation."""
    resolved = resolve(config, data=data)
    samples = pool(resolved.dataset, "none")
    job = TrainingJob(
        pool=samples, folds=[Fold(np.arange(len(samples)), np.arange(0))], features=resolved.dataset.features,
        task=tasks.build(classes=resolved.dataset.classes),
    )  # fmt: skip
    return LockstepTrainer(resolved.config, job, RankContext(device=device))


def assert_close(
    values: dict[str, np.ndarray], expected: dict[str, np.ndarray], *, rel: float, floor: float = 0.0
) -> None:
    """Compares arrays by name, relative to the largest entry of each expected one; lists all that differ by more than
    `floor`, which is for gradients that are 0 but for rounding."""
    assert set(values) == set(expected)
    errors = {}
    for name, reference in expected.items():
        difference = float(np.abs(values[name].astype(np.float64) - reference).max())
        if not difference <= rel * float(np.abs(reference).max()) + floor:  # also where it is NaN
            errors[name] = difference / float(np.abs(reference).max())
    assert errors == {}, f"relative differences above {rel}"
