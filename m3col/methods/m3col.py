"""M3CoL (arXiv 2409.17777): supervised heads plus a contrastive term that changes during training.

L_Total = beta * (M3Co, later MultiSClip) + CE-Uni + CE-Multi   (Eq. 16)
"""

import math

from torch import Tensor

from m3col.losses import m3co, multi_softclip
from m3col.methods.base import Method
from m3col.methods.batch import Batch, Step
from m3col.methods.supervised import sum_losses


def last_mixup_epoch(epochs: int, switch_point: float) -> int:
    """Number of epochs trained with M3Co; `epochs` is the configured number, never a shortened one."""
    return math.floor(epochs * switch_point + 0.5)


class M3CoL(Method):
    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        embeddings = self.encode(batch.inputs)
        parts = self.cross_entropies(self.classify(embeddings), batch)
        objective = self.config.objective
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
        mixing = self.draw(batch, step)
        mixed = self.mixed_views(batch, embeddings, mixing)
        views = {("clean", m): embeddings[m] for m in self.modalities} | {
            ("mixed", m): mixed[m] for m in self.modalities
        }
        whole = batch.gather(views)
        return m3co.m3co_loss(
            [whole["clean", name] for name in self.modalities],
            [whole["mixed", name] for name in self.modalities],
            [mixing.permutations[name] for name in self.modalities],
            mixing.lam,
            temperature=self.config.objective.temperature,
        )
