"""A graph network on one numeric table: each sample averages over itself and similar training samples.

Letters: n samples of a batch, T training samples, F features, H hidden width, D embedding width; x_t the features of
training sample t, z_t^l its hidden state after layer l, with z^0 = x.
Paper: Wang et al., "MOGONET integrates multi-omics data using graph convolutional networks allowing patient
classification and biomarker identification", Nat. Commun. 12 (2021) 3445, section "GCN for omics-specific learning".

    a_rt = cos(x_r, x_t)  where it is > 0 and 1 - cos(x_r, x_t) <= eps,  else 0
    z_r^{l+1} = LReLU( (W_l z_r^l + sum over t of a_rt W_l z_t^l) / (1 + sum over t of a_rt) + b_l )

for l = 0, 1, 2; LReLU has slope 0.25, and dropout follows the first two layers. A training sample is not among its own
neighbours. eps is element k T, counted from 0, of the T^2 sorted distances 1 - cos between training samples, in which
each one has distance 0 to itself: they have k - 1 neighbours each in the mean.

Differs: a new sample sees training samples alone, whose hidden states do not depend on it; in the authors' code it also
changes the states of its neighbours, and so the predictions of other new samples. It is not among its own neighbours if
it has the features of a training sample, so that this sample is predicted as in training. Edges have weights above 0.
1e-9 is added to eps, so that no rounding error decides about the edges at that distance.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from m3col.augmentation import sample_mixing
from m3col.models.mlp import check_widths, linear

_SLOPE = 0.25

_ROUNDING = 1e-9  # far more than the rounding error of a distance


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosines [n, T] in float64 between rows [n, F] and rows [T, F]; 0 where a row has zeros alone."""
    return _units(first) @ _units(second).T


def _units(rows: Tensor) -> Tensor:
    rows = rows.double()
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)


def largest_distance(distances: Tensor, neighbours: int) -> float:
    """eps, the largest distance of an edge.

    Args:
        distances: [T, T] between training samples, in float64.
        neighbours: k, the mean number of samples within eps of a sample, itself among them.

    Returns:
        The element k T of the sorted distances, counted from 0, or the last one where there are fewer; plus 1e-9.
    """
    ordered = distances.flatten().sort().values
    return float(ordered[min(neighbours * len(distances), len(ordered) - 1)]) + _ROUNDING


class GraphEncoder(nn.Module):
    """Three graph layers: [n, F] to embeddings [n, D], not normalised. `fit` must have been called before.

    Weights of edges are computed in float64, whatever the dtype of the model.

    Args:
        in_features: F.
        hidden: H.
        embedding_dim: D.
        dropout: dropout rate after the first two layers.
        neighbours: k, see `largest_distance`.

    Attributes:
        rows: [T, F] the training samples. They are part of the state, and so of a checkpoint.
        weights: [T, T] of the edges between training samples.
    """

    rows: Tensor
    weights: Tensor

    def __init__(
        self, in_features: int, *, hidden: int, embedding_dim: int, dropout: float = 0.0, neighbours: int = 2
    ) -> None:
        super().__init__()
        check_widths(in_features=in_features, hidden=hidden, embedding_dim=embedding_dim, neighbours=neighbours)
        widths = (in_features, hidden, hidden, embedding_dim)
        self.layers = nn.ModuleList(linear(*widths[at : at + 2]) for at in range(3))
        self.dropout, self.neighbours = nn.Dropout(dropout), neighbours
        self.register_buffer("rows", torch.empty(0, in_features))
        self.register_buffer("weights", torch.empty(0, 0), persistent=False)
        self._connect()

    def fit(self, rows: Tensor) -> None:
        """Makes rows [T, F] the training samples."""
        self.rows = rows.detach().to(self.rows).clone()
        self._connect()

    def _connect(self) -> None:
        """Computes what follows from the training samples: eps, the edges between them, and their positions."""
        self.largest = 0.0
        if len(self.rows):
            similar = cosines(self.rows, self.rows)
            self.largest = largest_distance(1 - similar, self.neighbours)
            self.weights = self._edges(similar).fill_diagonal_(0).to(self.rows)
        self._position: dict[bytes, int] = {}
        for at, key in enumerate(_keys(self.rows)):
            self._position.setdefault(key, at)

    def _edges(self, similar: Tensor) -> Tensor:
        """Weights of edges from cosines of the same shape."""
        return torch.where((similar > 0) & (1 - similar <= self.largest), similar, 0.0)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        stored = state_dict.get(f"{prefix}rows")
        if stored is not None and stored.ndim == 2:
            self.rows = self.rows.new_empty(len(stored), self.rows.shape[1])
        super()._load_from_state_dict(state_dict, prefix, *others)
        self._connect()

    def forward(self, x: Tensor) -> Tensor:
        assert len(self.rows), "the graph has no training samples; call fit first"
        at = self.positions(x)
        is_new = at < 0
        some_new = bool(is_new.any())
        edges = self._edges(cosines(x, self.rows)).to(x) if some_new else None
        known, new = self.rows, x
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            messages = functional.linear(known, layer.weight)
            if edges is not None:
                new = self._averaged(functional.linear(new, layer.weight), edges, messages, layer.bias)
            known = self._averaged(messages, self.weights, messages, layer.bias)
            if number < 2:
                known, new = self.dropout(known), self.dropout(new) if edges is not None else new
        states = known[at.clamp_min(0)]
        return torch.where(is_new[:, None], new, states) if some_new else states

    @staticmethod
    def _averaged(own: Tensor, edges: Tensor, messages: Tensor, bias: Tensor) -> Tensor:
        """The next states [n, K]: own [n, K] and the messages [T, K] of neighbours, averaged with edges [n, T]."""
        mean = (own + edges @ messages) / (1 + edges.sum(dim=1, keepdim=True))
        return functional.leaky_relu(mean + bias, _SLOPE)

    def positions(self, x: Tensor) -> Tensor:
        """For each row [n] the first training sample with exactly these features; -1 where there is none."""
        if x.shape == self.rows.shape and torch.equal(x, self.rows):  # the full batch
            return torch.arange(len(x), device=x.device)
        return torch.tensor([self._position.get(key, -1) for key in _keys(x)], device=x.device, dtype=torch.long)

    def mix(self, x: Tensor, permutation: Tensor, lam: Tensor) -> Tensor:
        """Eq. 2 for rows [N, F]: lam x + (1 - lam) x[permutation]."""
        return sample_mixing.mix(x, permutation, lam)

    def stored(self) -> dict[str, Any]:
        """Empty: the config and the tensors describe the encoder."""
        return {}


def _keys(rows: Tensor) -> list[bytes]:
    """A key of each row; equal for equal numbers, and so for 0 and -0."""
    values = rows.detach().double().cpu().numpy() + 0.0
    return [row.tobytes() for row in np.ascontiguousarray(values)]
