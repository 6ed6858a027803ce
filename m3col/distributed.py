"""Data-parallel workers of one training: which rows each one has, and what they exchange.

Letters: W workers, S shards of the batch (`train.shards`, a multiple of W), N samples in the global batch, n rows of
one worker, K columns.
Every worker draws the same batch and the same mixing (all draws are keyed) and takes whole shards of it, so that no
sample is mixed with one that another worker has. What has to be seen over the global batch is gathered with its
gradient: the backward pass of the gather adds up what all workers want of a row, and DDP divides by W, so a loss that
every worker computes on the whole batch has the gradient of one process, without any factor.
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

T = TypeVar("T")


@dataclass(frozen=True)
class RankContext:
    """The place of this process among the workers. `device`: where it computes; None: as the config says.

    With more than one worker the default process group of torch.distributed must be there, and all workers must call
    the methods below in the same order.
    """

    rank: int = 0
    size: int = 1
    device: torch.device | None = None

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes files and speaks for all."""
        return self.rank == 0

    def counts(self, n: int, shards: int) -> list[int]:
        """Rows of each worker in a batch of `n`, in the order of the ranks: whole shards; some may have none."""
        sizes = [len(members) for members in np.array_split(np.arange(n), shards)]
        each = shards // self.size
        return [sum(sizes[rank * each : (rank + 1) * each]) for rank in range(self.size)]

    def rows(self, n: int, shards: int) -> slice:
        """The rows of this worker in a batch of `n`."""
        counts = self.counts(n, shards)
        start = sum(counts[: self.rank])
        return slice(start, start + counts[self.rank])

    def gather(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """Rows of all workers [N, K] from this one's [n, K], in the order of the ranks, with gradient.

        counts: n of every worker; the collective needs equal shapes, so rows are padded to the largest and cut off.
        """
        if self.size == 1:
            return x
        longest = max(counts)
        padded = functional.pad(x, (0, 0, 0, longest - len(x)))
        # A group by name, not by rank list: a list would be a new group in every call.
        found = collectives.all_gather_single(padded.contiguous(), 0, cast(dist.ProcessGroup, dist.group.WORLD))
        if isinstance(found, collectives.AsyncCollectiveTensor):
            found = found.wait()
        if min(counts) == longest:
            return found
        kept = [rank * longest + row for rank, count in enumerate(counts) for row in range(count)]
        return found[torch.tensor(kept, device=found.device)]

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """The mean over workers of each value, in float64; all workers must have the same names in the same order."""
        if self.size == 1:
            return dict(values)
        sums = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return dict(zip(values, (sums / self.size).tolist(), strict=True))

    def from_first(self, value: T) -> T:
        """The value that the first worker has; it must be plain (it is pickled between the workers of one training)."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]


SINGLE_RANK = RankContext()
