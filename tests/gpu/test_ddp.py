"""DDP and its collectives in a process group of one rank: NCCL on a GPU, gloo in a rehearsal."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from m3col.config.schema import RunConfig
from m3col.distributed import RankContext
from tests.gpu.work import pair_config, trainer_of
from tests.support import pairs

EPOCHS = 2  # M3Co in the first, MultiSClip in the second


@pytest.fixture
def group(device: torch.device, tmp_path: Path) -> Iterator[str]:
    """The default process group, with this process as its only rank; the name of its backend."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield backend
    dist.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_gather_of_one_rank_returns_its_rows_and_their_gradient(dtype, group, device):
    """RankContext skips the collective for one rank, so it is given two, of which the group has one."""
    assert dist.get_backend() == group
    draw = np.random.default_rng(0)
    rows, factors = (torch.as_tensor(draw.normal(size=(3, 5)), device=device).to(dtype) for _ in range(2))
    rows.requires_grad_()
    gathered = RankContext(0, 2, device).gather(rows, [3])
    assert gathered.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype), "what is exchanged"
    assert torch.equal(gathered.detach(), rows.detach().to(gathered.dtype))
    (gathered * factors.to(gathered.dtype)).sum().backward()
    assert rows.grad is not None and rows.grad.dtype == dtype and torch.equal(rows.grad, factors)


def config(place: Path, device: torch.device, *, compiled: bool, checkpointing: bool) -> RunConfig:
    return pair_config(
        place, device, model__compile=compiled, model__gradient_checkpointing=checkpointing, train__epochs=EPOCHS,
        train__precision="bfloat16", train__accumulate=4, train__batch_size=3, objective__switch_point=0.5,
    )  # fmt: skip


def epochs(run: RunConfig, device: torch.device, *, wrapped: bool) -> list[dict[str, float]]:
    trainer = trainer_of(run, device)
    if wrapped:  # as FoldTrainer does for several ranks
        trainer._model = DistributedDataParallel(
            trainer.method, broadcast_buffers=False, gradient_as_bucket_view=True
        )  # fmt: skip
    return [trainer.train_epoch(epoch, learning_rate=1e-4) for epoch in range(1, EPOCHS + 1)]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
def test_inside_ddp_a_method_trains_as_without(compiled, checkpointing, group, device, report, tmp_path: Path):
    """Accumulated over four batches, of which the first three exchange nothing; through both phases."""
    place = pairs.folder(tmp_path / "data")
    run = config(place, device, compiled=compiled, checkpointing=checkpointing)
    alone, inside = (epochs(run, device, wrapped=flag) for flag in (False, True))
    ratio = max(abs(one["loss"] / other["loss"] - 1) for one, other in zip(inside, alone, strict=True))
    report(f"loss in DDP against without, compiled {compiled}, checkpointing {checkpointing}", f"{ratio:.1e} apart")
    for one, other in zip(inside, alone, strict=True):
        assert one == pytest.approx(other, rel=1e-2 if device.type == "cuda" else 1e-6)
