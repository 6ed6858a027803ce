"""Mixup (arXiv 1710.09412) on every modality: the baseline of the paper's Table 4.

One permutation for all modalities, lambda per sample, target lambda y + (1 - lambda) y[pi] on every head, all epochs.
"""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from m3col.methods import mixed_views
from m3col.methods.batch import Batch, Step
from m3col.methods.settings import MixupSettings
from m3col.methods.supervised import SupervisedMethod, nonzero_sum, sum_losses


class Mixup(SupervisedMethod):
    """Cross-entropies of mixed samples with mixed targets."""

    Settings: ClassVar = MixupSettings
    summary = "inputs and targets mixed with one permutation for all modalities, no contrast"
    mixes = True

    settings: MixupSettings

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        mixing = mixed_views.draw(self, batch, step, alpha=self.settings.alpha, shared_permutation=True)
        clean = self.encode(batch.inputs, mixed_views.mixed_at_embedding(self))
        embeddings = mixed_views.mixed_embeddings(self, batch, clean, mixing)
        partner = batch.targets[mixing.permutations[self.modalities[0]]]
        logits = self.classify(embeddings)
        return sum_losses({f"ce_{name}": self._mixed_ce(v, batch, partner, mixing.lam) for name, v in logits.items()})

    def _mixed_ce(self, logits: Tensor, batch: Batch, partner: Tensor, lam: Tensor) -> Tensor:
        """From this worker's logits [n, C]; partner, lam: [N]. Sum times W / N, see `cross_entropies`."""
        weight, rows = self.class_weight, batch.rows
        own = functional.cross_entropy(logits, batch.targets[rows], weight=weight, reduction="none")
        other = functional.cross_entropy(logits, partner[rows], weight=weight, reduction="none")
        loss = lam[rows] * own + (1 - lam[rows]) * other
        whole: Tensor | int = len(batch.targets)
        if weight is not None:
            # As torch does for hard labels: divide by the weights that were handed out, not by N.
            whole = nonzero_sum((lam * weight[batch.targets] + (1 - lam) * weight[partner]).sum())
        return loss.sum() * (batch.workers.size / whole)
