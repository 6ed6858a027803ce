"""Mixup (arXiv 1710.09412) on every modality: the baseline of the paper's Table 4.

One permutation for all modalities, lambda per sample, target lambda y + (1 - lambda) y[pi] on every head, all epochs.
"""

from typing import ClassVar

from torch import Tensor

from m3col.methods import mixed_views
from m3col.methods.batch import Batch, Step
from m3col.methods.settings import MixupSettings
from m3col.methods.supervised import SupervisedMethod, sum_losses
from m3col.tasks.base import Mixed


class Mixup(SupervisedMethod):
    """The sum of the cross-entropies of all heads, on mixed samples with mixed targets."""

    Settings: ClassVar = MixupSettings
    summary = "inputs and targets mixed with one permutation for all modalities, no contrast"
    mixes = True

    settings: MixupSettings

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        mixing = mixed_views.draw(self, batch, step, alpha=self.settings.alpha, shared_permutation=True)
        clean = self.encode(batch.inputs, mixed_views.mixed_at_embedding(self))
        embeddings = mixed_views.mixed_embeddings(self, batch, clean, mixing)
        mixed = Mixed(mixing.permutations[self.modalities[0]], mixing.lam)
        return sum_losses(self.head_losses(self.classify(embeddings), batch, mixed))
