"""One modality alone: its encoder and one head."""

from typing import ClassVar

from torch import Tensor

from m3col.config.schema import ObjectiveConfig
from m3col.methods.batch import Batch, Step
from m3col.methods.supervised import SupervisedMethod, sum_losses


class Single(SupervisedMethod):
    """The cross-entropy of one modality's head. The head has the name "fused", as in the other methods."""

    Settings: ClassVar = ObjectiveConfig
    summary = "one modality alone"
    one_modality = True

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        return sum_losses(self.head_losses(self.logits(batch.inputs), batch))
