"""The encoder of a numeric table where the config describes its layers or its tokens.

Letters: n rows, F features, K outputs of the last linear layer, D embedding width.
Paper: the feature tokeniser of Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data", arXiv 2106.11959,
  section 3.3, as CoMM (arXiv 2409.07402) uses it: for MIMIC after two layers, `widths: [10, 10], tokens: features`.
Differs: initial weights of the linear layers are those of `m3col.models.mlp.linear`.
"""

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from m3col.augmentation import sample_mixing
from m3col.config.modality_sections import NumericModelConfig
from m3col.models.mlp import check_widths, linear
from m3col.models.token_sequence import TokenSequence

_SLOPE = 0.1  # of LeakyReLU below 0


class FeatureTokens(nn.Module):
    """A token for each feature: x_k w_k + b_k, with trained w_k and b_k that start from N(0, 1)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.randn(features, width)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Rows [n, K] to tokens [n, K, width]."""
        tokens: Tensor = x[:, :, None] * self.weight + self.bias
        return tokens


class TableEncoder(nn.Module):
    """Linear layers with an activation between them: [n, F] to embeddings [n, D], not normalised, or to tokens.

    Args:
        in_features: F.
        config: the config section `model.numeric:`.
        embedding_dim: D.
    """

    def __init__(self, in_features: int, config: NumericModelConfig, embedding_dim: int) -> None:
        super().__init__()
        check_widths(in_features=in_features, embedding_dim=embedding_dim)
        self._config, self._width = config, embedding_dim
        widths = [in_features, *config.layer_widths(embedding_dim)]
        self.layers = nn.ModuleList(linear(a, b) for a, b in itertools.pairwise(widths))
        self._outputs = widths[-1]
        self.projection = nn.Identity() if widths[-1] == embedding_dim else linear(widths[-1], embedding_dim)
        self.feature_tokens: FeatureTokens | None = None

    @property
    def sequence_width(self) -> int:
        """The width of the tokens of `sequence`."""
        return self._width if self._config.tokens == "features" else self._outputs

    def forward(self, x: Tensor) -> Tensor:
        embedding: Tensor = self.projection(self._features(x))
        return embedding

    def _features(self, x: Tensor) -> Tensor:
        """The outputs [n, K] of the last linear layer."""
        for number, layer in enumerate(self.layers, start=1):
            x = layer(x)
            if number < len(self.layers) or self._config.last_activation:
                x = functional.leaky_relu(x, _SLOPE) if self._config.activation == "leaky_relu" else torch.relu(x)
        return x

    def sequence(self, x: Tensor) -> TokenSequence:
        """The outputs of the last layer as one token [n, 1, K], or a token for each of them [n, K, D]."""
        features = self._features(x)
        return TokenSequence(features[:, None, :] if self.feature_tokens is None else self.feature_tokens(features))

    def without_pooling(self) -> None:
        """Removes the projection, and adds the tokens of features, for methods that use `sequence` alone."""
        self.projection = nn.Identity()
        if self._config.tokens == "features":
            self.feature_tokens = FeatureTokens(self._outputs, self._width)

    def mix(self, x: Tensor, permutation: Tensor, lam: Tensor) -> Tensor:
        """Eq. 2 for rows [n, F]: lam x + (1 - lam) x[permutation]."""
        return sample_mixing.mix(x, permutation, lam)

    def stored(self) -> dict[str, Any]:
        """Empty: the config and the number of features describe the encoder."""
        return {}
