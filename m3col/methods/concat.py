"""Concatenated embeddings with supervised heads: Eq. 16 with beta = 0."""

from torch import Tensor

from m3col.methods.batch import Batch, Step
from m3col.methods.supervised import SupervisedMethod, sum_losses


class Concat(SupervisedMethod):
    """The sum of the cross-entropies of all heads, without a contrastive term."""

    summary = "concatenated embeddings and supervised heads, no contrast (beta = 0)"

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        return sum_losses(self.head_losses(self.logits(batch.inputs), batch))
