"""A batch as a method receives it, and what a training step tells about itself."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from m3col.distributed import SINGLE_RANK, RankContext
from m3col.inputs.specs import Tokens

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Batch:
    """`inputs`: this worker's rows, per modality [n, D_m], pictures [n, 3, S, S], or n texts; `labels`: [N] of the
    global batch; `shards`: groups of it within which samples are mixed; `workers`: who shares it; `weighing`: the mean
    class weight of its labels over that of all labels of the step, of which other batches may be a part."""

    inputs: Mapping[str, Tensor | Tokens]
    labels: Tensor
    shards: int = 1
    workers: RankContext = SINGLE_RANK
    weighing: float = 1.0

    @cached_property
    def counts(self) -> list[int]:
        """Rows of each worker."""
        return self.workers.counts(len(self.labels), self.shards)

    @cached_property
    def rows(self) -> slice:
        """This worker's rows in the global batch."""
        return self.workers.rows(len(self.labels), self.shards)

    def gather(self, parts: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
        """[N, D] per name from this worker's [n, D], with gradient, in one exchange."""
        if self.workers.size == 1:
            return dict(parts)
        widths = [value.shape[1] for value in parts.values()]
        whole = self.workers.gather(torch.cat(list(parts.values()), dim=1), self.counts)
        return dict(zip(parts, whole.split(widths, dim=1), strict=True))


@dataclass(frozen=True)
class Step:
    """Where the training stands; keys every random draw (with the shard and the purpose)."""

    seed: int
    fold: int
    epoch: int  # 1-based
    step: int  # 0-based within the epoch
