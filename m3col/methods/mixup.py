"""Mixup (arXiv 1710.09412) on every modality: the baseline of the paper's Table 4.

One permutation for all modalities, lambda per sample, target lambda y + (1 - lambda) y[pi] on every head, all epochs.
"""

from torch import Tensor
from torch.nn import functional

from m3col.methods.base import Batch, Method, Step, total


class Mixup(Method):
    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        mixing = self.draw(batch, step, shared_permutation=True)
        if self.config.mix.level == "embedding":
            embeddings = self.mixed_views(batch, self.encode(batch.inputs), mixing)
        else:
            embeddings = self.mixed_views(batch, {}, mixing)
        partner = batch.labels[mixing.permutations[self.modalities[0]]]
        logits = self.classify(embeddings)
        return total({f"ce_{name}": self._mixed_ce(v, batch.labels, partner, mixing.lam) for name, v in logits.items()})

    def _mixed_ce(self, logits: Tensor, labels: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
        lam = lam.to(logits.dtype)
        own = functional.cross_entropy(logits, labels, weight=self.class_weight, reduction="none")
        other = functional.cross_entropy(logits, partner, weight=self.class_weight, reduction="none")
        loss = lam * own + (1 - lam) * other
        if self.class_weight is None:
            return loss.mean()
        # As torch does for hard labels: divide by the weights that were handed out, not by N.
        return loss.sum() / (lam * self.class_weight[labels] + (1 - lam) * self.class_weight[partner]).sum()
