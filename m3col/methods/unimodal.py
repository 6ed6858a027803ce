"""One modality alone: its encoder and one head."""

from torch import Tensor

from m3col.methods.base import Method
from m3col.methods.batch import Batch, Step
from m3col.methods.supervised import sum_losses


class Single(Method):
    def has_unimodal_heads(self) -> bool:
        # With one modality the fused head is the unimodal one.
        return False

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        return sum_losses(self.cross_entropies(self.logits(batch.inputs), batch))
