"""The classification head of one modality or of the concatenated embeddings.

Letters: D' input width (D for one modality, M D for the concatenation), H hidden width, C classes.
Paper: Kumar et al., arXiv 2409.17777, Eq. 14-15 and section 3 ("two layer MLPs with ReLU activations").
Differs: the authors' omics classifiers define dropout and never apply it; here it is applied as Table 6 says,
  and their behaviour is `dropout = 0`.
"""

import torch
from torch import Tensor, nn

from m3col.faults import BadInput
from m3col.models.mlp import check_widths, linear


class MLPHead(nn.Module):
    """Linear(D', H), ReLU, Dropout, Linear(H, C): embeddings [N, D'] to logits [N, C]."""

    def __init__(self, in_features: int, *, hidden: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        check_widths(in_features=in_features, hidden=hidden, num_classes=num_classes)
        if not 0 <= dropout < 1:
            raise BadInput([f"dropout must lie in [0, 1), but got {dropout}"])
        self.first = linear(in_features, hidden)
        self.dropout = nn.Dropout(dropout)
        self.second = linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.second(self.dropout(torch.relu(self.first(x))))
        return logits
