"""Concatenated embeddings with supervised heads: Eq. 16 with beta = 0."""

from torch import Tensor

from m3col.methods.base import Batch, Method, Step, total


class Concat(Method):
    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        return total(self.cross_entropies(self.logits(batch.inputs), batch))
