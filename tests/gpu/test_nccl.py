"""Two ranks on two GPUs compute what one does: loss and gradient through NCCL."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from m3col import tasks
from m3col.distributed import RankContext
from m3col.training.fold_trainer import FoldTrainer
from tests.support.helpers import tiny_config, tiny_data
from tests.support.ranks import start_ranks

needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="NCCL needs two GPUs, one for each rank")


def epoch_of(place: RankContext) -> dict[str, np.ndarray]:
    """Loss of an epoch in which no weight moves, and the gradient of its last batch."""
    data = tiny_data(samples=34)
    run = tiny_config(
        train__shards=2, train__batch_size=14, train__precision="float64", model__dropout=0.0, train__device="cuda"
    )  # fmt: skip
    trainer = FoldTrainer(run, data.train, features=data.features, task=tasks.build(classes=2), ranks=place)
    means = trainer.train_epoch(1, learning_rate=0.0)
    found = {f"loss.{name}": np.array(value) for name, value in means.items()}
    for name, parameter in trainer.method.named_parameters():
        assert parameter.grad is not None, name
        found[f"grad.{name}"] = parameter.grad.cpu().numpy().copy()
    return found


def rank_of_two(rank: int, folder: str) -> None:
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    np.savez(f"{folder}/{rank}.npz", **epoch_of(RankContext(rank, 2, device)))  # type: ignore[arg-type]
    dist.destroy_process_group()


@needs_two
def test_losses_and_gradients_of_two_ranks_equal_those_of_one(tmp_path: Path):
    start_ranks(2, rank_of_two, str(tmp_path))
    alone = epoch_of(RankContext(device=torch.device("cuda", 0)))
    for rank in (0, 1):
        found = np.load(tmp_path / f"{rank}.npz")
        assert set(found) == set(alone)
        for key, expected in alone.items():
            assert np.abs(found[key] - expected).max() <= 1e-9 * np.abs(expected).max(), key
