"""A fusion transformer with a linear head, trained with labels: from scratch, or as the fine-tuning of CoMM.

Paper: Dufumier et al., arXiv 2409.07402, section 4: the supervised rows of CoMM on MM-IMDb and V&T.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from m3col.inputs.base import Input
from m3col.methods.batch import Batch, Step
from m3col.methods.settings import TransformerSettings
from m3col.methods.supervised import FUSED, SupervisedMethod, sum_losses
from m3col.methods.with_transformer import WithTransformer
from m3col.models.mlp import linear
from m3col.tasks.base import Task


class Transformer(WithTransformer, SupervisedMethod):
    """The task's loss of a linear head on the embedding of all modalities, f(x; S_0)."""

    Settings: ClassVar = TransformerSettings
    summary = "a fusion transformer with a linear head; fine-tuning of comm"
    fuses = False
    fuses_itself = True
    unimodal_heads = False

    settings: TransformerSettings

    def add_parts(self, task: Task | None) -> None:
        super().add_parts(task)
        self.head = linear(self.config.model.embedding_dim, self.task.width)

    def logits(self, inputs: Mapping[str, Input]) -> dict[str, Tensor]:
        return {FUSED: self.head(self.fuse(inputs, [self.modalities])[0])}

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        return sum_losses(self.head_losses(self.logits(batch.inputs), batch))
