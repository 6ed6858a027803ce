"""Sums of cross-entropy terms over shards of a batch."""

import torch
from torch import Tensor


def nonzero_sum(weights: Tensor) -> Tensor:
    """A sum or mean of class weights to divide by; 1 where it is 0, because then there is nothing to be divided."""
    return torch.where(weights > 0, weights, torch.ones_like(weights))


def sum_losses(parts: dict[str, Tensor], **weighted: Tensor) -> dict[str, Tensor]:
    """`parts` with their sum, plus the `weighted` terms, as "loss"."""
    return {"loss": torch.stack([*parts.values(), *weighted.values()]).sum(), **parts}
