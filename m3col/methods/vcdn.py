"""View correlation discovery network: a network on all products of the modalities' class probabilities.

Letters: n samples of this rank, M modalities, C classes; q_m [C] the prediction of modality m.
Paper: Wang et al., "MOGONET integrates multi-omics data using graph convolutional networks allowing patient
classification and biomarker identification", Nat. Commun. 12 (2021) 3445, section "VCDN for multi-omics data
integration". This is its fusion on encoders without a graph.

    q_m = s(head_m(p_m)),    v = q_1 x q_2 x ... x q_M, all C^M products,    fused logits = W_2 LReLU(W_1 v)

with s the sigmoid, as in the authors' code, or softmax; LReLU has slope 0.25. As there, the loss of the fused logits
trains W_1 and W_2 alone, unless `end_to_end`.

Differs: encoders and heads in place of graph networks. Losses are not weighted by the frequency of the class. All
weights are trained together from the first epoch. C^M may be at most 1,000.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from m3col.config.schema import RunConfig
from m3col.methods.batch import Batch, Step
from m3col.methods.settings import VCDNSettings
from m3col.methods.supervised import FUSED, SupervisedMethod, sum_losses
from m3col.models.mlp import linear
from m3col.tasks.base import Task

MOST_PRODUCTS = 1000

_SLOPE = 0.25


class VCDN(SupervisedMethod):
    """A network on the products of the modalities' predictions."""

    Settings: ClassVar = VCDNSettings
    summary = "a network on all products of the class probabilities of the modalities"
    fuses = False
    fuses_itself = True
    unimodal_heads = True
    tasks = ("single_label",)

    settings: VCDNSettings

    def add_parts(self, task: Task | None) -> None:
        super().add_parts(task)
        products = self.task.width ** len(self.modalities)
        hidden = products if self.settings.hidden is None else self.settings.hidden
        self.products = nn.Sequential(linear(products, hidden), nn.LeakyReLU(_SLOPE), linear(hidden, self.task.width))

    @classmethod
    def data_faults(cls, config: RunConfig, kinds: Mapping[str, str], task: Task) -> list[str]:
        count, classes = len(kinds), task.width
        if classes**count <= MOST_PRODUCTS:
            return []
        most = max(number for number in range(1, count) if classes**number <= MOST_PRODUCTS or number == 1)
        near = f"; nearest valid: {most} modalities" if most > 1 else ""
        return [
            f"method {config.method!r} has classes ^ modalities inputs, which must be <= {MOST_PRODUCTS}, but "
            f"{classes} ^ {count} is {classes**count}{near}"
        ]

    def classify(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits = super().classify(embeddings)
        return {**logits, FUSED: self.products(self.correlations(logits))}

    def correlations(self, logits: Mapping[str, Tensor]) -> Tensor:
        """v [n, C^M], in which the class of the last modality changes fastest."""
        vector: Tensor | None = None
        for name in self.modalities:
            outputs = logits[name] if self.settings.end_to_end else logits[name].detach()
            q = torch.sigmoid(outputs) if self.settings.activation == "sigmoid" else outputs.softmax(dim=1)
            vector = q if vector is None else (vector[:, :, None] * q[:, None, :]).flatten(1)
        assert vector is not None
        return vector

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        return sum_losses(self.head_losses(self.logits(batch.inputs), batch))
