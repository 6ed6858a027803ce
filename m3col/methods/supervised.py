"""Methods that learn from labels: a head per modality, a head of all modalities together, the task's loss of each.

Letters: N samples in the global batch, n of them on this worker, W ranks, D embedding width, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from m3col.config.schema import ObjectiveConfig, RunConfig
from m3col.data.checks import naming
from m3col.inputs.specs import MediaSpec
from m3col.methods.base import Method
from m3col.methods.batch import Batch
from m3col.methods.settings import SupervisedSettings
from m3col.models import build
from m3col.models.named_modules import NamedModules
from m3col.tasks import registry as tasks
from m3col.tasks.base import Mixed, Task

FUSED = naming.FUSED


def sum_losses(parts: dict[str, Tensor], **weighted: Tensor) -> dict[str, Tensor]:
    """`parts` with their sum, plus the `weighted` terms, as "loss"."""
    return {"loss": torch.stack([*parts.values(), *weighted.values()]).sum(), **parts}


class SupervisedMethod(Method):
    """A method with a classification head per modality and, unless `fuses` is False, one of their concatenation.

    Attributes:
        fuses: whether there is a head of the concatenated embeddings. A method without one sets `primary_output` to
            another of its outputs.
    """

    Settings: ClassVar[type[ObjectiveConfig]] = SupervisedSettings
    fuses: ClassVar[bool] = True
    primary_output: ClassVar[str | None] = FUSED

    def __init__(
        self,
        config: RunConfig,
        *,
        features: Mapping[str, int | MediaSpec],
        task: Task | None = None,
        class_weight: Tensor | None = None,
        stored: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(config, features=features, task=task, class_weight=class_weight, stored=stored)
        assert task is not None, "a method with heads was given no task"
        self.task, width = task, config.model.embedding_dim
        with_heads = self.modalities if self.has_unimodal_heads(config) else ()
        self.heads = NamedModules({name: self._head(width) for name in with_heads})
        if self.fuses:
            self.fusion = self._head(width * len(features))

    def _head(self, width: int) -> nn.Module:
        model = self.config.model
        return build.build_head(
            width, model.classifier_dim, self.task.width, model.dropout, layers=model.classifier_layers
        )  # fmt: skip

    @classmethod
    def has_unimodal_heads(cls, config: RunConfig) -> bool:
        """Whether each modality has a head of its own."""
        return isinstance(config.objective, SupervisedSettings) and config.objective.unimodal_supervision

    @classmethod
    def output_names(cls, config: RunConfig, modalities: Sequence[str]) -> tuple[str, ...]:
        heads = tuple(modalities) if cls.has_unimodal_heads(config) else ()
        return (*heads, FUSED) if cls.fuses else heads

    @classmethod
    def loss_names(cls, config: RunConfig, modalities: Sequence[str]) -> tuple[str, ...]:
        prefix = tasks.load(config.task).loss_name
        return ("loss", *(f"{prefix}_{name}" for name in cls.output_names(config, modalities)))

    def classify(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logits [N, C] of each modality's head and of the fused one."""
        logits = {name: head(embeddings[name]) for name, head in self.heads.items()}
        if self.fuses:
            logits[FUSED] = self.fusion(torch.cat([embeddings[name] for name in self.modalities], dim=1))
        return logits

    def head_losses(self, logits: Mapping[str, Tensor], batch: Batch, mixed: Mixed | None = None) -> dict[str, Tensor]:
        """The task's loss of each head, such as the cross-entropies `ce_<head>` of Eq. 14 and 15.

        Args:
            logits: [n, C] by head, of this worker's rows.
            batch: the batch that they are of.
            mixed: how targets are mixed; None: not at all.

        Returns:
            Scalars by name, whose mean over the ranks is the mean over the samples of the global batch. With class
            weights it is the weighted mean, as in torch, times the batch's share of the weight of its step.
        """
        # The share is 1 for mixed targets, whose weights are known batch by batch only.
        share = batch.weighing if mixed is None else 1.0
        return {
            f"{self.task.loss_name}_{name}": self.task.loss(
                value,
                batch.targets,
                rows=batch.rows,
                scale=share * batch.ranks.size,
                weight=self.class_weight,
                mixed=mixed,
            )
            for name, value in logits.items()
        }
