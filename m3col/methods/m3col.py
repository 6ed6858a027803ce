"""M3CoL (arXiv 2409.17777): supervised heads plus a contrastive term that changes during training.

L_Total = beta * (M3Co, later MultiSClip) + CE-Uni + CE-Multi   (Eq. 16)
"""

import math
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from m3col.config.schema import RunConfig
from m3col.losses import m3co, multi_softclip
from m3col.methods import mixed_views
from m3col.methods.batch import Batch, Step
from m3col.methods.settings import M3CoLSettings
from m3col.methods.supervised import SupervisedMethod, sum_losses


def last_mixup_epoch(epochs: int, switch_point: float) -> int:
    """The last epoch that is trained with M3Co. `epochs`: the number in the config, also where a run ends earlier."""
    return math.floor(epochs * switch_point + 0.5)


class M3CoL(SupervisedMethod):
    """Cross-entropies plus beta times M3Co, later MultiSClip (Eq. 16)."""

    Settings: ClassVar = M3CoLSettings
    summary = "mixup contrast, then soft-clip contrast, with supervised heads (Eq. 16)"
    mixes = True
    comparable_from = "switch_point"
    inherits: ClassVar = {"softclip_temperature": "temperature"}

    settings: M3CoLSettings

    @classmethod
    def loss_names(cls, config: RunConfig, modalities: Sequence[str]) -> tuple[str, ...]:
        names = super().loss_names(config, modalities)
        settings = config.objective
        assert isinstance(settings, M3CoLSettings)
        if settings.beta == 0:
            return names
        last = last_mixup_epoch(config.train.epochs, settings.switch_point)
        return (*names, *(["m3co"] if last > 0 else []), *(["softclip"] if last < config.train.epochs else []))

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        embeddings = self.encode(batch.inputs)
        parts = self.head_losses(self.classify(embeddings), batch)
        objective = self.settings
        if objective.beta == 0:
            return sum_losses(parts)
        if step.epoch <= last_mixup_epoch(self.config.train.epochs, objective.switch_point):
            name, contrast = "m3co", self._m3co(batch, embeddings, step)
        else:
            temperature = objective.softclip_temperature or objective.temperature
            clean = batch.gather(embeddings)
            name, contrast = "softclip", multi_softclip.multi_softclip_loss([*clean.values()], temperature=temperature)
        return {**sum_losses(parts, contrast=objective.beta * contrast), name: contrast}

    def _m3co(self, batch: Batch, embeddings: dict[str, Tensor], step: Step) -> Tensor:
        mixing = mixed_views.draw(self, batch, step, alpha=self.settings.alpha)
        mixed = mixed_views.mixed_embeddings(self, batch, embeddings, mixing)
        views = {("clean", m): embeddings[m] for m in self.modalities} | {
            ("mixed", m): mixed[m] for m in self.modalities
        }
        whole = batch.gather(views)
        return m3co.m3co_loss(
            [whole["clean", name] for name in self.modalities],
            [whole["mixed", name] for name in self.modalities],
            [mixing.permutations[name] for name in self.modalities],
            mixing.lam,
            temperature=self.settings.temperature,
            check_values=False,  # they were drawn above
        )
