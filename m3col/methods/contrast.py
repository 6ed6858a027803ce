"""Contrast between modalities, and between two augmentations of one: Cross, Cross+Self, SimCLR, SLIP, CMC, SupCon.

Letters: N samples in the global batch, n of them on this rank, M modalities, D embedding width, P projector width.
Paper: the rows of Dufumier et al., arXiv 2409.07402, section 4, in the form of their code, which gave their figures.
The methods are those of CLIP (arXiv 2103.00020), SimCLR (2002.05709), SLIP (2112.12750), CMC (1906.05849) and SupCon
(2004.11362), the last one as FactorCL (2306.05268) uses it.
Differs: embeddings of all ranks are gathered with a gradient of each; the authors' code of Cross gathers without one.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from m3col.config.schema import RunConfig
from m3col.inputs.base import Input
from m3col.losses import clip_loss, nt_xent, supcon_loss
from m3col.methods.batch import CLEAN, Batch, Step
from m3col.methods.self_supervised import SelfSupervisedMethod, retrieval_accuracy
from m3col.methods.settings import (
    CMCSettings,
    ContrastSettings,
    CrossSelfSettings,
    CrossSettings,
    ProjectionSettings,
    SLIPSettings,
    SupConSettings,
)
from m3col.models.named_modules import NamedModules
from m3col.models.projector import Projector
from m3col.tasks.base import Task

_LARGEST_LOG_SCALE = math.log(100.0)

A, B = "a", "b"  # the views with augmentation

Projected = Mapping[tuple[str, str], Tensor]  # [N, P] by view and modality


class Towers(SelfSupervisedMethod, ABC):
    """An encoder and a projection per modality, without fusion.

    A subclass implements `contrast`.

    Attributes:
        evaluates_projected: whether the embeddings after the projection are evaluated, else those before it.
        retrieved: the two projections whose retrieval accuracy is reported, as (view, position of the modality).
    """

    evaluates_projected: ClassVar[bool] = False
    retrieved: ClassVar[tuple[tuple[str, int], tuple[str, int]]] = ((CLEAN, 0), (CLEAN, 1))

    settings: ProjectionSettings

    @property
    def columns(self) -> int:
        width = self.settings.projector_dim
        return len(self.modalities) * width if self.evaluates_projected else super().columns

    def add_parts(self, task: Task | None) -> None:
        super().add_parts(task)
        width = self.config.model.embedding_dim
        self.projections = NamedModules({name: self._projection(width) for name in self.modalities})

    def _projection(self, width: int) -> nn.Module:
        """The projection of one modality, from embeddings of that width: linear, without bias."""
        return nn.Linear(width, self.settings.projector_dim, bias=False)

    @abstractmethod
    def contrast(self, projected: Projected, batch: Batch) -> Tensor:
        """The scalar loss of the global batch."""

    @classmethod
    def loss_names(cls, config: RunConfig, modalities: Sequence[str]) -> tuple[str, ...]:
        return ("loss", "retrieval")

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        embedded = {
            (view, name): rows for view, inputs in batch.views.items() for name, rows in self.encode(inputs).items()
        }
        # A projection may have a BatchNorm, which needs all rows, so it runs on the gathered rows.
        projected = {key: self.projections[key[1]](rows) for key, rows in batch.gather(embedded).items()}
        a, b = (projected[view, self.modalities[at]] for view, at in self.retrieved)
        return {"loss": self.contrast(projected, batch), "retrieval": retrieval_accuracy(a, b)}

    def joined(self, embeddings: Mapping[str, Tensor]) -> Tensor:
        if self.evaluates_projected:
            embeddings = {name: self.projections[name](rows) for name, rows in embeddings.items()}
        return super().joined(embeddings)

    def compared(self, inputs: Mapping[str, Input]) -> dict[str, Tensor]:
        """The projections, which the loss compares."""
        return {name: self.projections[name](rows) for name, rows in self.encode(inputs).items()}


class _WithMLP(Towers):
    """Towers whose projection is the MLP with BatchNorm."""

    settings: ContrastSettings

    def _projection(self, width: int) -> nn.Module:
        settings = self.settings
        return Projector(width, hidden=settings.projector_hidden, out_features=settings.projector_dim)

    def _within(self, projected: Projected, modality: str) -> Tensor:
        """NT-Xent between the two augmentations of one modality."""
        return nt_xent(projected[A, modality], projected[B, modality], temperature=self.settings.temperature)


class _WithScale(Towers):
    """Towers with CLIP's loss between two modalities and its trained scale 1 / tau, from 1 to 100."""

    evaluates_projected = True
    most_modalities = 2

    def _start_scale(self, temperature: float) -> None:
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / temperature), dtype=torch.float64))

    def contrast(self, projected: Projected, batch: Batch) -> Tensor:
        """CLIP's loss between the two modalities, without augmentation."""
        with torch.no_grad():
            self.log_scale.clamp_(0.0, _LARGEST_LOG_SCALE)
        first, second = self.modalities
        return clip_loss(
            projected[CLEAN, first], projected[CLEAN, second], scale=self.log_scale.exp(), check_values=False
        )


class Cross(_WithScale):
    """CLIP's loss between two modalities. The linear projections are evaluated."""

    Settings: ClassVar = CrossSettings
    summary = "the two modalities of a sample have similar embeddings (CLIP)"

    settings: CrossSettings

    def add_parts(self, task: Task | None) -> None:
        super().add_parts(task)
        self._start_scale(self.settings.temperature)


class CrossSelf(_WithMLP):
    """NT-Xent between two modalities, plus that between two augmentations of each."""

    Settings: ClassVar = CrossSelfSettings
    summary = "similar embeddings of the two modalities of a sample, and of two augmentations of each"
    views = (CLEAN, A, B)
    most_modalities = 2

    settings: CrossSelfSettings

    def contrast(self, projected: Projected, batch: Batch) -> Tensor:
        first, second = self.modalities
        between = nt_xent(projected[CLEAN, first], projected[CLEAN, second], temperature=self.settings.temperature)
        within = self._within(projected, first) + self._within(projected, second)
        return between + self.settings.self_weight / 2 * within


class SimCLR(_WithMLP):
    """NT-Xent between two augmentations of one modality."""

    Settings: ClassVar = ContrastSettings
    summary = "two augmentations of one modality have similar embeddings"
    views = (A, B)
    one_modality = True
    retrieved = ((A, 0), (B, 0))

    def contrast(self, projected: Projected, batch: Batch) -> Tensor:
        return self._within(projected, self.modalities[0])


class SLIP(_WithScale):
    """CLIP's loss between two modalities, plus NT-Xent between two augmentations of the first one.

    The augmentations of the first modality have a projection of their own, an MLP.
    """

    Settings: ClassVar = SLIPSettings
    summary = "similar embeddings of the two modalities of a sample, and of two augmentations of the first"
    views = (CLEAN, A, B)

    settings: SLIPSettings

    def add_parts(self, task: Task | None) -> None:
        super().add_parts(task)
        settings = self.settings
        self.projector = Projector(
            self.config.model.embedding_dim, hidden=settings.projector_hidden, out_features=settings.projector_dim
        )
        self._start_scale(settings.clip_temperature)

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        first = self.modalities[0]
        embedded = {(CLEAN, name): rows for name, rows in self.encode(batch.views[CLEAN]).items()}
        embedded |= {(view, first): self.embed(first, batch.views[view][first]) for view in (A, B)}
        whole = batch.gather(embedded)
        projected = {(CLEAN, name): self.projections[name](whole[CLEAN, name]) for name in self.modalities}
        a, b = (self.projector(whole[view, first]) for view in (A, B))
        within = nt_xent(a, b, temperature=self.settings.temperature)
        loss = self.contrast(projected, batch) + self.settings.self_weight * within
        pair = [projected[CLEAN, name] for name in self.modalities]
        return {"loss": loss, "retrieval": retrieval_accuracy(*pair)}


class CMC(Towers):
    """The mean over all pairs of modalities of NT-Xent between them."""

    Settings: ClassVar = CMCSettings
    summary = "every two modalities of a sample have similar embeddings"

    settings: CMCSettings

    def contrast(self, projected: Projected, batch: Batch) -> Tensor:
        pairs = [
            nt_xent(projected[CLEAN, a], projected[CLEAN, b], temperature=self.settings.temperature)
            for a, b in itertools.combinations(self.modalities, 2)
        ]
        return torch.stack(pairs).mean()


class SupCon(Towers):
    """SupCon with the modalities as the views of a sample: samples of one label agree. Rows are not normalised."""

    Settings: ClassVar = SupConSettings
    summary = "samples of one class have similar embeddings across modalities; needs labels"
    uses_labels = True
    tasks = ("single_label",)

    settings: SupConSettings

    def _projection(self, width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, self.settings.projector_dim))

    def contrast(self, projected: Projected, batch: Batch) -> Tensor:
        rows = torch.cat([projected[CLEAN, name] for name in self.modalities])
        return supcon_loss(
            rows, batch.targets.repeat(len(self.modalities)), temperature=self.settings.temperature, normalize=False
        )
