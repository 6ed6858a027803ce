"""The classification head of one modality or of the concatenated embeddings.

Letters: D' input width (D for one modality, M D for the concatenation), H hidden width, C classes.
Paper: Kumar et al., arXiv 2409.17777, Eq. 14-15 and section 3 ("two layer MLPs with ReLU activations" for omics, three
  layers for image and text).
Differs: the authors' omics classifiers define dropout and never apply it; here it is applied as Table 6 says,
  and their behaviour is `dropout = 0`.
"""

import torch
from torch import Tensor, nn

from m3col.errors import InputError
from m3col.models.mlp import check_widths, linear


class MLPHead(nn.Module):
    """Linear(D', H), ReLU, Dropout, Linear(H, C): embeddings [N, D'] to logits [N, C].

    With `layers = 3`: Linear(D', H), ReLU, Linear(H, H), ReLU, Dropout, Linear(H, C).

    Args:
        in_features: D'.
        hidden: H.
        num_classes: C.
        dropout: dropout rate, in [0, 1).
        layers: number of linear layers, 2 or 3.

    Raises:
        InputError: another number of layers, a width below 1, or a dropout outside [0, 1).
    """

    def __init__(self, in_features: int, *, hidden: int, num_classes: int, dropout: float, layers: int = 2) -> None:
        super().__init__()
        check_widths(in_features=in_features, hidden=hidden, num_classes=num_classes)
        if not 0 <= dropout < 1:
            raise InputError([f"dropout must lie in [0, 1), but got {dropout}"])
        if layers not in (2, 3):
            raise InputError(
                [f"layers must be 2 or 3, but got {layers}; the nearest valid value is {2 + (layers > 2)}"]
            )
        self.first = linear(in_features, hidden)
        self.dropout = nn.Dropout(dropout)
        self.second = linear(hidden, hidden if layers == 3 else num_classes)
        self.third = linear(hidden, num_classes) if layers == 3 else None

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        last = self.second
        if self.third is not None:
            x, last = torch.relu(self.second(x)), self.third
        logits: Tensor = last(self.dropout(x))
        return logits
