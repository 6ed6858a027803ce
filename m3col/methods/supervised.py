"""Methods that learn from labels: a head per modality, a head of all modalities together, cross-entropies.

Letters: N samples in the global batch, n of them on this worker, W workers, D embedding width, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from m3col.config.schema import ObjectiveConfig, RunConfig
from m3col.data.checks import naming
from m3col.inputs.specs import ImageInput, TextInput
from m3col.methods.base import Method
from m3col.methods.batch import Batch
from m3col.methods.settings import SupervisedSettings
from m3col.models import build
from m3col.models.named_modules import NamedModules

FUSED = naming.FUSED


def nonzero_sum(weights: Tensor) -> Tensor:
    """A sum or mean of class weights to divide by; 1 where it is 0, because then there is nothing to be divided."""
    return torch.where(weights > 0, weights, torch.ones_like(weights))


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
    uses_labels: ClassVar[bool] = True
    fuses: ClassVar[bool] = True
    primary_output: ClassVar[str | None] = FUSED

    def __init__(
        self,
        config: RunConfig,
        *,
        features: Mapping[str, int | ImageInput | TextInput],
        num_classes: int = 0,
        class_weight: Tensor | None = None,
        stored: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(config, features=features, class_weight=class_weight, stored=stored)
        width = config.model.embedding_dim
        with_heads = self.modalities if self.has_unimodal_heads(config) else ()
        self.heads = NamedModules({name: self._head(width, num_classes) for name in with_heads})
        if self.fuses:
            self.fusion = self._head(width * len(features), num_classes)

    def _head(self, width: int, num_classes: int) -> nn.Module:
        model = self.config.model
        return build.build_head(
            width, model.classifier_dim, num_classes, model.dropout, layers=model.classifier_layers
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
        return ("loss", *(f"ce_{name}" for name in cls.output_names(config, modalities)))

    def classify(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logits [N, C] of each modality's head and of the fused one."""
        logits = {name: head(embeddings[name]) for name, head in self.heads.items()}
        if self.fuses:
            logits[FUSED] = self.fusion(torch.cat([embeddings[name] for name in self.modalities], dim=1))
        return logits

    def cross_entropies(self, logits: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Eq. 14 and 15, one part per head, named `ce_<head>`: the sum over this worker's rows times W / N.

        With class weights N is the sum of the weights of the step's labels, as in torch, times the batch's share of its
        samples.
        """
        weight, labels = self.class_weight, batch.targets
        own = labels[batch.rows]
        whole = len(labels) if weight is None else nonzero_sum(weight[labels].sum())
        return {
            f"ce_{name}": functional.cross_entropy(value, own, weight=weight, reduction="sum")
            * (batch.weighing * batch.workers.size / whole)
            for name, value in logits.items()
        }
