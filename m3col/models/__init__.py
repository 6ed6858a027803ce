"""Encoders by name, and the classification head. A new encoder is one entry in `TABLE`.

Letters: D embedding width, H hidden width of a head, C classes.
Paper: Kumar et al., arXiv 2409.17777, section 3 (two-layer encoders and classifiers for omics).
"""

from collections.abc import Callable

from torch import nn

from m3col.faults import BadInput, nearest
from m3col.models.heads import MLPHead
from m3col.models.mlp import MLPEncoder

# name -> (in_features, embedding_dim) -> module from [N, in_features] to [N, embedding_dim]
TABLE: dict[str, Callable[[int, int], nn.Module]] = {"mlp": MLPEncoder}


def names() -> tuple[str, ...]:
    """The names of all encoders."""
    return tuple(TABLE)


def build_encoder(name: str, in_features: int, embedding_dim: int) -> nn.Module:
    """The encoder `name` for one modality with `in_features` columns, with freshly drawn weights.

    Weights come from torch's global generator: the caller seeds it. Raises BadInput on an unknown name or a
    width below 1.
    """
    if name not in TABLE:
        raise BadInput([f"encoder {name!r} is unknown{nearest(name, TABLE)}"])
    return TABLE[name](in_features, embedding_dim)


def build_head(in_features: int, hidden: int, num_classes: int, dropout: float) -> MLPHead:
    """A head from `in_features` to `num_classes` logits, with fresh weights (torch's global generator)."""
    return MLPHead(in_features, hidden=hidden, num_classes=num_classes, dropout=dropout)


__all__ = ["TABLE", "MLPEncoder", "MLPHead", "build_encoder", "build_head", "names"]
