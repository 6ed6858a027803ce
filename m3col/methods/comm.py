"""CoMM (arXiv 2409.07402): the fused embeddings of two augmentations are similar, and those of each modality alone.
And its fine-tuning with labels, where the fused embeddings of samples of one class are similar.

Letters: N samples in the global batch, n of them on this rank, M modalities, D embedding width, P projector width;
view a and view b, two augmentations of the same samples; S_0 = all modalities, S_k = modality k alone.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from m3col.config.schema import RunConfig
from m3col.inputs.base import Input
from m3col.losses import comm_loss, supcon_loss
from m3col.methods.batch import Batch, Step
from m3col.methods.self_supervised import SelfSupervisedMethod, retrieval_accuracy
from m3col.methods.settings import CoMMSettings, CoMMSupConSettings, FusedSettings
from m3col.methods.with_transformer import WithTransformer
from m3col.models.projector import Projector
from m3col.tasks.base import Task


class _Fused(WithTransformer, SelfSupervisedMethod):
    """A method that compares two augmentations, and whose embedding f(x; S_0) is evaluated, without projector."""

    views = ("a", "b")

    settings: FusedSettings

    @property
    def columns(self) -> int:
        return self.config.model.embedding_dim

    @classmethod
    def loss_names(cls, config: RunConfig, modalities: Sequence[str]) -> tuple[str, ...]:
        return ("loss", "retrieval")

    def features(self, inputs: Mapping[str, Input]) -> Tensor:
        return self.fuse(inputs, [self.modalities])[0]


class CoMM(_Fused):
    """The mean of L_0..L_M, see `m3col.losses.comm_loss`."""

    Settings: ClassVar = CoMMSettings
    summary = "fused embeddings of two augmentations are similar, and those of each modality alone"

    settings: CoMMSettings

    def add_parts(self, task: Task | None) -> None:
        super().add_parts(task)
        settings = self.settings
        self.projector = Projector(self.columns, hidden=settings.projector_hidden, out_features=settings.projector_dim)

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        subsets = [self.modalities, *([name] for name in self.modalities)]
        fused = {view: self.fuse(inputs, subsets) for view, inputs in batch.views.items()}
        parts = {(view, k): rows for view, by_subset in fused.items() for k, rows in enumerate(by_subset)}
        # The projector's BatchNorm needs all rows, so it runs on the gathered rows of every subset.
        projected = {key: self.projector(rows) for key, rows in batch.gather(parts).items()}
        first, second = ([projected[view, k] for k in range(len(subsets))] for view in self.views)
        count = len(self.modalities)
        weights = {"all": None, "full": [1.0, *[0.0] * count], "masked": [0.0, *[1.0] * count]}[self.settings.terms]
        settings = self.settings
        loss = comm_loss(first, second, temperature=settings.temperature, weights=weights, form=settings.form)
        return {"loss": loss, "retrieval": retrieval_accuracy(first[0], second[0])}

    def compared(self, inputs: Mapping[str, Input]) -> dict[str, Tensor]:
        """The projections of f(x; S_0), as "fused", and of f(x; S_k), which the loss compares."""
        return {name: self.projector(rows) for name, rows in super().compared(inputs).items()}


class CoMMSupCon(_Fused):
    """SupCon of the fused embeddings of two augmentations: samples of one label agree. It has no projector.

    This is "CoMM, supervised" of the paper for MOSI, UR-FUNNY, MUsTARD and MIMIC, which starts from weights of CoMM.
    """

    Settings: ClassVar = CoMMSupConSettings
    summary = "samples of one class have similar fused embeddings; fine-tuning of comm with labels"
    uses_labels = True
    tasks = ("single_label",)

    settings: CoMMSupConSettings

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        parts = {view: self.fuse(inputs, [self.modalities])[0] for view, inputs in batch.views.items()}
        first, second = batch.gather(parts).values()
        labels = batch.targets.repeat(2)
        rows = torch.cat([first, second])
        loss = supcon_loss(rows, labels, temperature=self.settings.temperature, normalize=True)
        return {"loss": loss, "retrieval": retrieval_accuracy(first, second)}
