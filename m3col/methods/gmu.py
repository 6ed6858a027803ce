"""Gated multimodal unit: a sum of modalities, each column of each weighted by a gate that sees all of them.

Letters: n samples of this rank, M modalities, D embedding width, H width of the unit; s the sigmoid, * the elementwise
product.
Paper: Arevalo et al., "Gated Multimodal Units for Information Fusion", arXiv 1702.01992, section 3.1.

    h_m = tanh(A_m p_m),    z_m = s(U_m [p_1; ...; p_M]),    h = sum over m of z_m * h_m,    fused logits = head(h)

and `tied`, for two modalities:  h = z * h_1 + (1 - z) * h_2.

Differs: the unit sees the embeddings of this project's encoders in place of inputs, and its heads follow; the authors'
code has BatchNorm and maxout around it, the unit here has none. `unimodal_supervision: true` adds a head per modality.
A modality that a sample lacks has an embedding of zeros, so that its h_m is 0.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from m3col.config.schema import RunConfig
from m3col.errors import InputError
from m3col.methods.batch import Batch, Step
from m3col.methods.settings import GMUSettings
from m3col.methods.supervised import SupervisedMethod, sum_losses
from m3col.models.named_modules import NamedModules
from m3col.tasks.base import Task


def _tied_faults(settings: GMUSettings, modalities: int) -> list[str]:
    if not settings.tied or modalities == 2:
        return []
    return [f"objective.tied must be false for {modalities} modalities, but is true: it is for two"]


class GMU(SupervisedMethod):
    """A gated sum of modalities, and a head on it."""

    Settings: ClassVar = GMUSettings
    summary = "a sum of modalities, weighted by gates that see all of them"

    settings: GMUSettings

    def add_parts(self, task: Task | None) -> None:
        super().add_parts(task)
        if faults := _tied_faults(self.settings, len(self.modalities)):  # a search may have chosen it
            raise InputError(faults)
        width, inputs = self.config.model.embedding_dim, len(self.modalities) * self.config.model.embedding_dim
        self.projections = NamedModules({name: self._matrix(width) for name in self.modalities})
        # Of two tied gates the first one is stored.
        gated = self.modalities[:1] if self.settings.tied else self.modalities
        self.gates = NamedModules({name: self._matrix(inputs) for name in gated})

    def _matrix(self, columns: int) -> nn.Module:
        layer = nn.Linear(columns, self.fusion_width, bias=False)
        nn.init.xavier_normal_(layer.weight)
        return layer

    @property
    def fusion_width(self) -> int:
        """H."""
        return self.settings.width

    @classmethod
    def data_faults(cls, config: RunConfig, kinds: Mapping[str, str], task: Task) -> list[str]:
        settings = config.objective
        assert isinstance(settings, GMUSettings)
        return _tied_faults(settings, len(kinds))

    def joined(self, embeddings: Mapping[str, Tensor]) -> Tensor:
        """h [n, H]."""
        everything = super().joined(embeddings)
        gates = {name: torch.sigmoid(gate(everything)) for name, gate in self.gates.items()}
        if self.settings.tied:
            first, second = self.modalities
            gates[second] = 1 - gates[first]
        parts = [gates[name] * torch.tanh(self.projections[name](embeddings[name])) for name in self.modalities]
        return torch.stack(parts).sum(dim=0)

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        return sum_losses(self.head_losses(self.logits(batch.inputs), batch))
