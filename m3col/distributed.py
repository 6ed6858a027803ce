"""Data-parallel training with several ranks: the rows of each rank, and the collectives between the ranks.

Letters: W ranks, S shards of the batch (`train.shards`, a multiple of W), N samples in the global batch, n rows of
one rank, K columns.
Every rank draws the same batch and the same mixing (all draws are keyed) and takes whole shards of it, so no sample is
mixed with a sample of another rank. What needs the global batch is gathered with its gradient: the backward pass of the
gather sums the gradients of all ranks for each row, and DDP divides by W. A loss that every rank computes on the whole
batch therefore has the gradient of a single process, without any factor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import _functional_collectives as collectives
from torch.nn import functional

from m3col import devices

T = TypeVar("T")


@dataclass(frozen=True)
class RankContext:
    """This process among the ranks of a training, and its collectives.

    With more than one rank the default process group of torch.distributed must exist, and all ranks must call the
    methods below in the same order.

    Args:
        rank: number of this process, from 0 to `size - 1`.
        size: number of ranks.
        device: where this rank computes; None (default): as `train.device` says.
    """

    rank: int = 0
    size: int = 1
    device: torch.device | None = None

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is rank 0, the only rank that writes files and reports."""
        return self.rank == 0

    def counts(self, n: int, shards: int) -> list[int]:
        """The number of rows of each rank, in a batch of `n` rows: whole shards; a rank may have none."""
        sizes = [len(members) for members in np.array_split(np.arange(n), shards)]
        each = shards // self.size
        return [sum(sizes[rank * each : (rank + 1) * each]) for rank in range(self.size)]

    def local_rows(self, n: int, shards: int) -> slice:
        """The rows of this rank, in a batch of `n` rows."""
        counts = self.counts(n, shards)
        start = sum(counts[: self.rank])
        return slice(start, start + counts[self.rank])

    def gather(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """Concatenates the rows of all ranks, in rank order, with gradient.

        Args:
            x: the rows of this rank [n, K].
            counts: n of every rank. The collective needs equal shapes, so rows are padded to the largest n and cut
                off again.

        Returns:
            The rows of all ranks [N, K].
        """
        if self.size == 1:
            return x
        if x.dtype in (torch.bfloat16, torch.float16):
            x = x.float()  # the backward pass sums the gradients of all ranks in the type of x
        longest = max(counts)
        padded = functional.pad(x, (0, 0, 0, longest - len(x)))
        # A group by name, not by rank list: a list would be a new group in every call.
        gathered = collectives.all_gather_single(padded.contiguous(), 0, cast(dist.ProcessGroup, dist.group.WORLD))
        if isinstance(gathered, collectives.AsyncCollectiveTensor):
            gathered = gathered.wait()
        if min(counts) == longest:
            return gathered
        kept = [rank * longest + row for rank, count in enumerate(counts) for row in range(count)]
        return gathered[devices.moved(torch.tensor(kept), gathered.device)]

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """The mean over ranks of each value, in float64; all ranks must pass the same names in the same order."""
        if self.size == 1:
            return dict(values)
        sums = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return dict(zip(values, (sums / self.size).tolist(), strict=True))

    def broadcast(self, value: T) -> T:
        """The value of rank 0, on every rank. It is pickled between the processes of one training."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]


SINGLE_RANK = RankContext()
