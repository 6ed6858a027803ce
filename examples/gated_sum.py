"""A method of your own, in one file: a learnt weight per modality, and one head on the weighted sum.

Put a file like this where Python finds it, then name the class in a config, a search or Python:

    m3col train digits method=gated_sum:GatedSum objective.smoothing=0.2
    m3col.train("digits", overrides={"method": "gated_sum:GatedSum"})
"""

from typing import ClassVar

import torch
from torch import nn

from m3col.config.schema import Share
from m3col.methods.settings import SupervisedSettings
from m3col.methods.supervised import FUSED, SupervisedMethod, sum_losses


class GatedSum(SupervisedMethod):
    class Settings(SupervisedSettings):
        """`smoothing`: pulls the weights of the modalities towards equal ones; it can be searched."""

        smoothing: Share = 0.1

    summary = "a weighted sum of the embeddings, with a learnt weight per modality"
    fuses: ClassVar[bool] = False  # the concatenation of the base class is replaced below

    def add_parts(self, task):
        super().add_parts(task)
        self.gates = nn.Parameter(torch.zeros(len(self.modalities)))
        self.top = nn.Linear(self.config.model.embedding_dim, task.width)

    @classmethod
    def output_names(cls, config, modalities):
        return (*super().output_names(config, modalities), FUSED)

    def classify(self, embeddings):
        weights = self.gates.softmax(0) * (1 - self.settings.smoothing) + self.settings.smoothing / len(embeddings)
        summed = sum(weight * embeddings[name] for weight, name in zip(weights, self.modalities, strict=True))
        return {**super().classify(embeddings), FUSED: self.top(summed)}

    def losses(self, batch, step):
        return sum_losses(self.head_losses(self.logits(batch.inputs), batch))
