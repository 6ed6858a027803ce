"""The arguments of a method in a training step: the batch, and the position of the step in the training."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from m3col.distributed import SINGLE_RANK, RankContext
from m3col.inputs.base import Input
from m3col.inputs.specs import present_of

Key = TypeVar("Key", bound=Hashable)


CLEAN = "clean"  # the default view; the keys of its random draws are those of version 0.1


@dataclass(frozen=True)
class Batch:
    """The global batch of one training step, with the inputs of this rank's rows alone.

    Attributes:
        views: this rank's rows by view and modality: numeric tables [n, D_m], images [n, 3, S, S], or n texts. A
            method names the views that it needs (`Method.views`); each is augmented with draws of its own.
        size: N, the number of samples in the global batch.
        labels: [N] of the global batch; None where the training split has none.
        shards: groups of the batch within which samples are mixed.
        ranks: this process among the ranks that share the batch.
        weighing: the mean class weight of its labels over that of all labels of the optimizer step, which may
            accumulate several batches.
    """

    views: Mapping[str, Mapping[str, Input]]
    size: int
    labels: Tensor | None = None
    shards: int = 1
    ranks: RankContext = SINGLE_RANK
    weighing: float = 1.0

    @classmethod
    def of(cls, inputs: Mapping[str, Input], labels: Tensor, shards: int = 1) -> "Batch":
        """A labelled batch with one view, for a single rank."""
        return cls({CLEAN: inputs}, len(labels), labels, shards)

    @property
    def inputs(self) -> Mapping[str, Input]:
        """The first view."""
        return next(iter(self.views.values()))

    @property
    def present(self) -> dict[str, Tensor]:
        """By modality whether each of this rank's samples [n] has it; modalities without gaps are left out."""
        return present_of(self.inputs)

    @property
    def targets(self) -> Tensor:
        """The labels [N] of a batch that must have them."""
        assert self.labels is not None, "a supervised method was given a batch without labels"
        return self.labels

    @cached_property
    def counts(self) -> list[int]:
        """The number of rows of each rank."""
        return self.ranks.counts(self.size, self.shards)

    @cached_property
    def rows(self) -> slice:
        """This rank's rows in the global batch."""
        return self.ranks.local_rows(self.size, self.shards)

    def gather(self, parts: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
        """Gathers the rows of all ranks, with gradient, in one collective.

        Args:
            parts: tensors [n, D] of this rank's rows by name; all ranks must pass the same names in the same order.

        Returns:
            Tensors [N, D] of the global batch by name.
        """
        if self.ranks.size == 1:
            return dict(parts)
        widths = [value.shape[1] for value in parts.values()]
        whole = self.ranks.gather(torch.cat(list(parts.values()), dim=1), self.counts)
        return dict(zip(parts, whole.split(widths, dim=1), strict=True))


@dataclass(frozen=True)
class Step:
    """The position of a step in a training. With the shard and the purpose it keys every random draw."""

    seed: int
    fold: int
    epoch: int  # 1-based
    step: int  # 0-based within the epoch
