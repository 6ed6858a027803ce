"""One modality alone: its encoder and one head."""

from torch import Tensor

from m3col.methods.base import Batch, Method, Step, total


class Single(Method):
    def has_unimodal_heads(self) -> bool:
        # With one modality the fused head is the unimodal one.
        return False

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        return total(self.cross_entropies(self.logits(batch.inputs), batch))
