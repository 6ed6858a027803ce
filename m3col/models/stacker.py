"""A weight for each head and class, which is fitted and not trained by the optimizer."""

import torch
from torch import Tensor, nn

from m3col.evaluation.stacking import StackedWeights


class Stacker(nn.Module):
    """Outputs b_c + sum over heads h of w_hc x_hc, see `m3col.evaluation.stacking`. It starts as the mean of the heads.

    The weights are buffers: a checkpoint has them, and the optimizer does not.

    Args:
        heads: K.
        outputs: C.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, heads: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.full((heads, outputs), 1 / heads))
        self.register_buffer("bias", torch.zeros(outputs))

    def store(self, fitted: StackedWeights) -> None:
        """Takes fitted weights."""
        self.weight.copy_(torch.as_tensor(fitted.weight))
        self.bias.copy_(torch.as_tensor(fitted.bias))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [n, C] from what the heads say, x [K, n, C]; without autocast."""
        with torch.autocast(x.device.type, enabled=False):
            stacked: Tensor = (self.weight[:, None] * x.to(self.weight.dtype)).sum(dim=0) + self.bias
            return stacked
