"""CentralNet: a network between those of the modalities, which sees weighted sums of their layers.

Letters: n samples of this rank, M modalities, D embedding width; h_m the hidden layer of the encoder of modality m,
p_m its embedding; a trained weights, b the weight of a modality's own loss.
Paper: Vielzeuf et al., "CentralNet: a Multilayer Approach for Multimodal Fusion", arXiv 1808.07275, section 3.

    c_1 = ReLU(W_1 sum over m of a_1m h_m),    c_2 = ReLU(W_2 (a_2c c_1 + sum over m of a_2m p_m))
    fused logits = head(c_2),    L = L_fused + b sum over m of L_m

The weights a start equal: 1 / M, and 1 / (M + 1) where there is a c.

Differs: encoders and heads are those of this project. Where a modality is no table, whose encoder has such a hidden
layer, or `model.numeric` describes other layers, there is no c_1, and the head sees the weighted sum of the embeddings.
b is 1 in the paper. A modality that a sample lacks is left out of the sums.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from m3col.methods.batch import Batch, Step
from m3col.methods.settings import CentralNetSettings
from m3col.methods.supervised import FUSED, SupervisedMethod
from m3col.models.mlp import MLPEncoder, linear
from m3col.tasks.base import Task


class CentralNet(SupervisedMethod):
    """Weighted sums of the layers of all encoders.

    Where all modalities are tables, what `encode` returns has 2 D columns: h_m, then p_m.
    """

    Settings: ClassVar = CentralNetSettings
    summary = "a central network that sees weighted sums of the layers of all encoders"
    fuses = False
    fuses_itself = True
    unimodal_heads = True
    leaves_out = True

    settings: CentralNetSettings

    def add_parts(self, task: Task | None) -> None:
        super().add_parts(task)
        width, count = self.config.model.embedding_dim, len(self.modalities)
        self.has_hidden = all(isinstance(encoder, MLPEncoder) for encoder in self.encoders.values())
        if self.has_hidden:
            self.hidden_weights = nn.Parameter(torch.full((count,), 1 / count))
            self.first, self.second = linear(width, width), linear(width, width)
            self.central_weight = nn.Parameter(torch.full((1,), 1 / (count + 1)))
        self.embedding_weights = nn.Parameter(torch.full((count,), 1 / (count + self.has_hidden)))
        self.central = self._head(width)

    def encoded(self, name: str, rows: Any, mixed: tuple[Tensor, Tensor] | None = None) -> Tensor:
        if not self.has_hidden:
            return super().encoded(name, rows, mixed)
        encoder: Any = self.encoders[name]
        hidden = encoder.hidden(rows if mixed is None else encoder.mix(rows, *mixed))
        return torch.cat([hidden, encoder.second(hidden)], dim=1)

    def classify(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        width = self.config.model.embedding_dim
        last = {name: rows[:, -width:] for name, rows in embeddings.items()}
        central = self._summed(last, self.embedding_weights)
        if self.has_hidden:
            hidden = {name: rows[:, :width] for name, rows in embeddings.items()}
            below = torch.relu(self.first(self._summed(hidden, self.hidden_weights)))
            central = torch.relu(self.second(self.central_weight * below + central))
        return {**super().classify(last), FUSED: self.central(central)}

    def _summed(self, layers: Mapping[str, Tensor], weights: Tensor) -> Tensor:
        return torch.stack([weights[at] * layers[name] for at, name in enumerate(self.modalities)]).sum(dim=0)

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        parts = self.head_losses(self.logits(batch.inputs), batch)
        fused = f"{self.task.loss_name}_{FUSED}"
        alone = torch.stack([value for name, value in parts.items() if name != fused]).sum()
        return {"loss": parts[fused] + self.settings.unimodal_weight * alone, **parts}
