"""UniS-MMC: concatenation with heads, and a contrast that the predictions of single modalities supervise.

Letters: N samples in the global batch, n of them on this rank, M modalities; see `m3col.losses.unis_mmc`.
Paper: Zou et al., arXiv 2305.09299, section 3.3.

    L = CE_fused + sum over m of CE_m + w sum over pairs of modalities of L_mmc

Differs: the paper's formula, not the authors' code, see `m3col.losses.unis_mmc`. The paper has two modalities. Heads
are those of this project. A sample that lacks a modality is in no pair with it. Class weights do not change L_mmc.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from m3col.config.schema import RunConfig
from m3col.losses.unis_mmc import supervised_cosine, unis_mmc_loss
from m3col.methods.batch import Batch, Step
from m3col.methods.settings import UniSMMCSettings
from m3col.methods.supervised import SupervisedMethod, sum_losses
from m3col.tasks.base import full_precision


class UniSMMC(SupervisedMethod):
    """Heads on concatenated and single embeddings, and a contrast inside each sample."""

    Settings: ClassVar = UniSMMCSettings
    summary = "heads, and agreement of modalities where one of them alone is right"
    tasks = ("single_label",)
    unimodal_heads = True

    settings: UniSMMCSettings

    @classmethod
    def loss_names(cls, config: RunConfig, modalities: Sequence[str]) -> tuple[str, ...]:
        return (*super().loss_names(config, modalities), "mmc")

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        embeddings = self.encode(batch.inputs)
        logits = self.classify(embeddings)
        contrast = self._contrast(embeddings, logits, batch)
        parts = self.head_losses(logits, batch)
        return {**sum_losses(parts, contrast=self.settings.contrast_weight * contrast), "mmc": contrast}

    def _contrast(self, embeddings: Mapping[str, Tensor], logits: Mapping[str, Tensor], batch: Batch) -> Tensor:
        labels, every = batch.targets[batch.rows], torch.ones_like(batch.targets[batch.rows], dtype=torch.bool)
        right = {name: logits[name].argmax(dim=1) == labels for name in self.modalities}
        columns = []
        for a, b in itertools.combinations(self.modalities, 2):
            cosine = supervised_cosine(full_precision(embeddings[a]), full_precision(embeddings[b]), right[a], right[b])
            has = batch.present.get(a, every) & batch.present.get(b, every)
            columns += [cosine, (right[a] | right[b]).to(cosine.dtype), has.to(cosine.dtype)]
        whole = batch.gather({"pairs": torch.stack(columns, dim=1)})["pairs"]
        terms = [
            unis_mmc_loss(cosine, together > 0, counted > 0, temperature=self.settings.temperature)
            for cosine, together, counted in (group.unbind(dim=1) for group in whole.split(3, dim=1))
        ]
        return torch.stack(terms).sum()
