"""Methods that learn from labels: a head per modality, a fused head over all modalities, and the task's loss of each.

Letters: N samples in the global batch, n of them on this rank, W ranks, D embedding width, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from m3col.config.schema import ObjectiveConfig, RunConfig
from m3col.data.checks import naming
from m3col.inputs.base import Input
from m3col.inputs.specs import present_of
from m3col.methods.base import Method
from m3col.methods.batch import Batch
from m3col.methods.settings import DecisionSettings, SupervisedSettings
from m3col.models import build
from m3col.models.named_modules import NamedModules
from m3col.models.stacker import Stacker
from m3col.tasks import registry as tasks
from m3col.tasks.base import Mixed, Task, full_precision
from m3col.tasks.single_label import nonzero

FUSED = naming.FUSED


def sum_losses(parts: dict[str, Tensor], **weighted: Tensor) -> dict[str, Tensor]:
    """`parts` and their sum as "loss". The `weighted` terms are added to the sum, but are not among the result."""
    return {"loss": torch.stack([*parts.values(), *weighted.values()]).sum(), **parts}


class SupervisedMethod(Method):
    """A method with a classification head per modality and a fused head over the concatenated embeddings.

    Attributes:
        fuses: whether there is a fused head. A method without one sets `fuses_itself`, or another of its outputs as
            `primary_output`.
        fuses_itself: whether the method makes the output "fused" by other means than the fused head.
        unimodal_heads: whether each modality has a head; None: as the setting `unimodal_supervision` says, and none in
            methods without that setting.
    """

    Settings: ClassVar[type[ObjectiveConfig]] = SupervisedSettings
    fuses: ClassVar[bool] = True
    fuses_itself: ClassVar[bool] = False
    unimodal_heads: ClassVar[bool | None] = None
    primary_output: ClassVar[str | None] = FUSED

    def add_parts(self, task: Task | None) -> None:
        super().add_parts(task)
        assert task is not None, "a method with heads was given no task"
        self.task, width = task, self.config.model.embedding_dim
        with_heads = self.modalities if self.has_unimodal_heads(self.config) else ()
        self.heads = NamedModules({name: self._head(width) for name in with_heads})
        if self.fuses:
            self.fusion = self._head(self.fusion_width)
        names = self.output_names(self.config, self.modalities)
        self.stacker = Stacker(len(names), task.width) if self.decision == "stacked" else None

    @property
    def decision(self) -> str:
        """What predicts, see `DecisionSettings`."""
        return self.settings.decision if isinstance(self.settings, DecisionSettings) else FUSED

    @property
    def fusion_width(self) -> int:
        """Columns of the input of the fused head, see `joined`."""
        return self.config.model.embedding_dim * len(self.modalities)

    def joined(self, embeddings: Mapping[str, Tensor]) -> Tensor:
        """The input [n, `fusion_width`] of the fused head from the embeddings [n, D] of all modalities."""
        return torch.cat([embeddings[name] for name in self.modalities], dim=1)

    def _head(self, width: int) -> nn.Module:
        model = self.config.model
        return build.build_head(
            width, model.classifier_dim, self.task.width, model.dropout, layers=model.classifier_layers
        )  # fmt: skip

    @classmethod
    def has_unimodal_heads(cls, config: RunConfig) -> bool:
        """Whether each modality has a head of its own."""
        if cls.unimodal_heads is not None:
            return cls.unimodal_heads
        return isinstance(config.objective, SupervisedSettings) and config.objective.unimodal_supervision

    @classmethod
    def output_names(cls, config: RunConfig, modalities: Sequence[str]) -> tuple[str, ...]:
        heads = tuple(modalities) if cls.has_unimodal_heads(config) else ()
        return (*heads, FUSED) if cls.fuses or cls.fuses_itself else heads

    @classmethod
    def loss_names(cls, config: RunConfig, modalities: Sequence[str]) -> tuple[str, ...]:
        prefix = tasks.load(config.task).loss_name
        return ("loss", *(f"{prefix}_{name}" for name in cls.output_names(config, modalities)))

    def classify(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logits [n, C] by head from the embeddings [n, D] of all modalities."""
        logits = {name: head(embeddings[name]) for name, head in self.heads.items()}
        if self.fuses:
            logits[FUSED] = self.fusion(self.joined(embeddings))
        return logits

    def predicted(self, inputs: Mapping[str, Input]) -> dict[str, Tensor]:
        """Outputs [n, C] of each head, and as "fused" those of the setting `decision`."""
        return self._decided(self.logits(inputs), present_of(inputs))

    def predicted_from(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same from the embeddings [n, D] of all modalities, for samples that have all of them."""
        return self._decided(self.classify(embeddings), {})

    def _decided(self, logits: dict[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.stacker is not None:
            return {**logits, FUSED: self.stacker(self.said(logits, present))}
        if self.decision == "mean_of_heads":
            return {**logits, FUSED: self.mean_output(logits, [*logits], present)}
        return logits

    def said(self, logits: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        """What each head says, on one scale: [K, n, C], such as log-probabilities.

        In the place of a modality that a sample lacks is the mean of its other heads.

        Args:
            logits: [n, C] by head, K heads.
            present: [n] by modality whether a sample has it; modalities without gaps may be left out.
        """
        said = self.task.comparable(torch.stack([full_precision(value) for value in logits.values()]))
        shares = self._shares(said, [*logits], present)
        return torch.where(shares > 0, said, (shares * said).sum(dim=0))

    def mean_output(self, logits: Mapping[str, Tensor], names: Sequence[str], present: Mapping[str, Tensor]) -> Tensor:
        """Outputs [n, C] whose prediction is the mean of the predictions of several heads.

        Args:
            logits: [n, C] by head.
            names: the heads; those of modalities that a sample lacks are left out of its mean. A sample that lacks all
                of them has the mean of what they give for embeddings of zeros.
            present: [n] by modality whether a sample has it; modalities without gaps may be left out.
        """
        outputs = torch.stack([full_precision(logits[name]) for name in names])
        return self.task.averaged(outputs, self._shares(outputs, names, present))

    def _shares(self, outputs: Tensor, names: Sequence[str], present: Mapping[str, Tensor]) -> Tensor:
        """Equal shares [K, n, 1] of the heads that a sample has, see `mean_output`."""
        weights = torch.ones_like(outputs[:, :, :1])
        for at, name in enumerate(names):
            if name in present:
                weights[at, :, 0] = present[name].to(weights.dtype)
        weights = torch.where(weights.sum(dim=0) == 0, 1.0, weights)
        return weights / weights.sum(dim=0)

    def head_losses(self, logits: Mapping[str, Tensor], batch: Batch, mixed: Mixed | None = None) -> dict[str, Tensor]:
        """The task's loss of each head, such as the cross-entropies `ce_<head>` of Eq. 14 and 15.

        Args:
            logits: [n, C] by head, of this rank's rows.
            batch: the batch that the rows belong to.
            mixed: how targets are mixed; None: they are not.

        Returns:
            Scalars by name. The mean of a scalar over the ranks is the mean loss over the global batch. With class
            weights it is the weighted mean, as in torch, times `batch.weighing`.
        """
        # Mixed targets: their weights are known for single batches only, so batches of a step have equal shares.
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

    def sample_mean(self, values: Tensor, batch: Batch) -> Tensor:
        """The mean over the samples of the global batch, each with the weight of its class.

        It is for tasks with one class per sample, and weights them as their cross-entropy does.

        Args:
            values: [n] of this rank's rows.
            batch: the batch that the rows belong to.

        Returns:
            A scalar whose mean over the ranks is the weighted mean over the global batch, times `batch.weighing`.
        """
        total: Tensor | int = batch.size
        if self.class_weight is not None:
            weight = self.class_weight[batch.targets]
            values, total = values * weight[batch.rows], nonzero(weight.sum())
        return values.sum() * (batch.weighing * batch.ranks.size / total)
