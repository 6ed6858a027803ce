"""Each loss on rows that DDP processes share: values, gradients and their scale are those of one process."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from m3col.distributed import SINGLE_RANK, RankContext
from m3col.losses import (
    chunks,
    clip_loss,
    club_bound,
    comm_loss,
    m3co_loss,
    multi_softclip_loss,
    nce_bound,
    nt_xent,
    supcon_loss,
)
from m3col.methods.batch import Batch
from tests.support.ranks import start_ranks

SHARDS = 6  # what 1, 2 and 3 processes can divide
SIZES = (7, 3)  # uneven shares; of 3 samples the last process has none


class Model(nn.Module):
    """Six encoders, a learnt scale and a critic; `forward` is the loss of a batch."""

    def __init__(self, loss: Callable[["Model", list[Tensor], Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.loss = loss
        self.encoders = nn.ModuleList(nn.Linear(4, 3) for _ in range(6))
        self.logarithm = nn.Parameter(torch.tensor(1.2))
        self.critic = nn.Parameter(torch.randn(3, 3))
        self.double()

    def forward(self, batch: Batch, rows: Tensor) -> Tensor:
        whole = batch.gather({number: encoder(rows) for number, encoder in enumerate(self.encoders)})
        return self.loss(self, [whole[number] for number in range(6)], batch.targets)

    def scores(self, z: list[Tensor]) -> Tensor:
        return z[0] @ self.critic @ z[1].T


def m3co(_: Model, z: list[Tensor], labels: Tensor) -> Tensor:
    permutations = [torch.arange(len(labels)).roll(shift) for shift in (0, 1, 2)]
    lam = torch.linspace(0, 1, len(labels), dtype=torch.float64)
    return m3co_loss(z[:3], z[3:], permutations, lam, temperature=0.2)


LOSSES: dict[str, Callable[[Model, list[Tensor], Tensor], Tensor]] = {
    "nt_xent": lambda _, z, y: nt_xent(z[0], z[1], temperature=0.2),
    "comm": lambda _, z, y: comm_loss(z[:3], z[3:], temperature=0.2, weights=[1, 0.5, 2]),
    "comm, paper": lambda _, z, y: comm_loss(z[:3], z[3:], temperature=0.2, form="paper"),
    "clip": lambda model, z, y: clip_loss(z[0], z[1], scale=model.logarithm.exp()),
    "supcon": lambda _, z, y: supcon_loss(torch.cat(z[:2]), y.repeat(2), temperature=0.5),
    "supcon, unit rows": lambda _, z, y: supcon_loss(z[0], y, temperature=0.07, normalize=True),
    "nce": lambda model, z, y: nce_bound(model.scores(z)),
    "club": lambda model, z, y: club_bound(model.scores(z)),
    "m3co": m3co,
    "multi_softclip": lambda _, z, y: multi_softclip_loss(z, temperature=0.2),
}


def one_step(name: str, n: int, ranks: RankContext) -> dict[str, np.ndarray]:
    """The loss of one batch, and the gradient of each parameter that has one."""
    draw = torch.Generator().manual_seed(n)
    rows, labels = torch.randn(n, 4, generator=draw, dtype=torch.float64), torch.arange(n) % 3
    batch = Batch({}, n, labels, SHARDS, ranks)
    model = Model(LOSSES[name])
    wrapped = model if ranks.size == 1 else DistributedDataParallel(model, find_unused_parameters=True)
    loss = wrapped(batch, rows[batch.rows])
    loss.backward()
    gradients = {key: p.grad.numpy().copy() for key, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach().numpy(), **gradients}


def everything(ranks: RankContext) -> dict[str, np.ndarray]:
    """Of all losses and batches, with whole matrices and in blocks."""
    torch.set_num_threads(1)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for form in ("whole", "blocks"):
            if form == "blocks":
                patch.setattr(chunks, "WHOLE_UP_TO", 2)
                patch.setattr(chunks, "CHUNK_ROWS", 2)
            for name, n in itertools.product(LOSSES, SIZES):
                found |= {f"{name}|{n}|{form}|{key}": value for key, value in one_step(name, n, ranks).items()}
    return found


def _rank(rank: int, size: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{size}", rank=rank, world_size=size)
    np.savez(f"{folder}/{size}-{rank}.npz", **everything(RankContext(rank, size)))  # type: ignore[arg-type]
    dist.destroy_process_group()


@pytest.mark.parametrize("size", [2, 3])
def test_losses_and_gradients_equal_those_of_one_process(tmp_path: Path, size: int):
    alone = everything(SINGLE_RANK)
    for name in LOSSES:
        used = {key.split("|")[3] for key in alone if key.startswith(f"{name}|")}
        assert ("logarithm" in used) == (name == "clip") and ("critic" in used) == (name in ("nce", "club"))
    start_ranks(size, _rank, size, str(tmp_path))
    for rank in range(size):
        of_rank = np.load(tmp_path / f"{size}-{rank}.npz")
        assert alone.keys() <= set(of_rank)
        for key, expected in alone.items():
            scale = max(np.abs(expected).max(), 1e-6)  # a gradient that is 0 up to rounding
            assert np.abs(of_rank[key] - expected).max() <= 1e-9 * scale, key
