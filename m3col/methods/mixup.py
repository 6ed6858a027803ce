"""Mixup (arXiv 1710.09412) on every modality: the baseline of the paper's Table 4.

One permutation for all modalities, lambda per sample, target lambda y + (1 - lambda) y[pi] on every head, all epochs.
"""

from torch import Tensor
from torch.nn import functional

from m3col.methods.base import Method
from m3col.methods.batch import Batch, Step
from m3col.methods.supervised import nonzero_sum, sum_losses


class Mixup(Method):
    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        mixing = self.draw(batch, step, shared_permutation=True)
        embeddings = self.mixed_views(batch, self.encode(batch.inputs, self.mixed_at_embedding()), mixing)
        partner = batch.labels[mixing.permutations[self.modalities[0]]]
        logits = self.classify(embeddings)
        return sum_losses({f"ce_{name}": self._mixed_ce(v, batch, partner, mixing.lam) for name, v in logits.items()})

    def _mixed_ce(self, logits: Tensor, batch: Batch, partner: Tensor, lam: Tensor) -> Tensor:
        """From this worker's logits [n, C]; partner, lam: [N]. Sum times W / N, see `cross_entropies`."""
        weight, rows = self.class_weight, batch.rows
        own = functional.cross_entropy(logits, batch.labels[rows], weight=weight, reduction="none")
        other = functional.cross_entropy(logits, partner[rows], weight=weight, reduction="none")
        loss = lam[rows] * own + (1 - lam[rows]) * other
        whole: Tensor | int = len(batch.labels)
        if weight is not None:
            # As torch does for hard labels: divide by the weights that were handed out, not by N.
            whole = nonzero_sum((lam * weight[batch.labels] + (1 - lam) * weight[partner]).sum())
        return loss.sum() * (batch.workers.size / whole)
