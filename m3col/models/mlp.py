"""The encoder of a numeric modality.

Letters: D embedding width, F features of the modality.
Paper: Kumar et al., arXiv 2409.17777, Eq. 1 and section 3 ("two layer MLPs as feature encoders").
Differs: the paper gives neither activation nor initial weights; ReLU, Xavier-normal weights and zero biases
  are those of the authors' code.
"""

from typing import Any

import torch
from torch import Tensor, nn

from m3col.augmentation import sample_mixing
from m3col.errors import InputError
from m3col.models.token_sequence import TokenSequence


def check_widths(**widths: int) -> None:
    """Raises InputError with one line for every width below 1."""
    faults = [f"{name} must be >= 1, but got {value}" for name, value in widths.items() if value < 1]
    if faults:
        raise InputError(faults)


def linear(in_features: int, out_features: int) -> nn.Linear:
    """A linear layer with Xavier-normal weights, drawn from torch's global generator, and zero biases.

    The caller seeds the generator once per model, so weights depend on the seed and the order of the layers.
    """
    layer = nn.Linear(in_features, out_features)
    nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class MLPEncoder(nn.Module):
    """Linear(F, D), ReLU, Linear(D, D): [N, F] to embeddings [N, D], not normalised."""

    def __init__(self, in_features: int, embedding_dim: int) -> None:
        super().__init__()
        check_widths(in_features=in_features, embedding_dim=embedding_dim)
        self.sequence_width = embedding_dim
        self.first = linear(in_features, embedding_dim)
        self.second = linear(embedding_dim, embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        embedding: Tensor = self.second(self.hidden(x))
        return embedding

    def hidden(self, x: Tensor) -> Tensor:
        """The hidden layer of each row: [N, F] to [N, D]."""
        return torch.relu(self.first(x))

    def sequence(self, x: Tensor) -> TokenSequence:
        """The embedding of each row as its only token: [N, 1, D]."""
        return TokenSequence(self(x)[:, None, :])

    def without_pooling(self) -> None:
        """Does nothing: the only token of a row is its embedding."""

    def mix(self, x: Tensor, permutation: Tensor, lam: Tensor) -> Tensor:
        """Eq. 2 for rows [N, F]: lam x + (1 - lam) x[permutation]."""
        return sample_mixing.mix(x, permutation, lam)

    def stored(self) -> dict[str, Any]:
        """Empty: the widths describe the encoder."""
        return {}
