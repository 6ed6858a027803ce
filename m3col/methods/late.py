"""Late fusion: a classifier per modality, and the mean of their predictions.

Letters: n samples of this rank, M modalities, C outputs; q_m = link(h_m(p_m)) the prediction of modality m.
Source: the sum rule of Kittler et al., "On Combining Classifiers", IEEE TPAMI 20 (1998) 226, with equal priors.

    q = (1 / M) sum over m of q_m,    L = sum over m of  loss(h_m(p_m), y)  +  w loss(q, y)

With w = 0 (default) each modality is trained as if alone, and its loss is as in `concat`. Probabilities are averaged,
for numbers the predicted values.

Differs: w is an addition. A modality that a sample lacks is left out of the mean; a sample that lacks all has the mean
of what the heads give for embeddings of zeros.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from m3col.inputs.base import Input
from m3col.inputs.specs import present_of
from m3col.methods.batch import Batch, Step
from m3col.methods.settings import LateSettings
from m3col.methods.supervised import FUSED, SupervisedMethod, sum_losses


class Late(SupervisedMethod):
    """The mean of the predictions of each modality."""

    Settings: ClassVar = LateSettings
    summary = "the mean of the predictions of a classifier per modality"
    fuses = False
    fuses_itself = True
    unimodal_heads = True
    leaves_out = True

    settings: LateSettings

    def logits(self, inputs: Mapping[str, Input]) -> dict[str, Tensor]:
        return self._averaged(super().classify(self.encode(inputs)), present_of(inputs))

    def classify(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs [n, C] of each head and their mean, for samples that have all modalities."""
        return self._averaged(super().classify(embeddings), {})

    def _averaged(self, logits: dict[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {**logits, FUSED: self.mean_output(logits, self.modalities, present)}

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        parts = self.head_losses(self.logits(batch.inputs), batch)
        fused = f"{self.task.loss_name}_{FUSED}"
        alone = {name: value for name, value in parts.items() if name != fused}
        return {**sum_losses(alone, fused=self.settings.fused_weight * parts[fused]), fused: parts[fused]}
