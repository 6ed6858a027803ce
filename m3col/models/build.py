"""Builds the encoder of each kind of modality, and the classification head.

A new encoder of numeric tables is one entry in `TABLE`.

Letters: D embedding width, H hidden width of a head, C classes.
Paper: Kumar et al., arXiv 2409.17777, section 3 (two-layer encoders and classifiers for omics; ViT and BERT or RoBERTa
with three-layer classifiers for image and text).

Every encoder has three methods: `forward` from a batch of inputs to embeddings [n, D], `mix(x, permutation, lam)` for
Eq. 2, and `stored()`, which returns what a checkpoint needs beside the weights to build the encoder again. Encoders of
sequences also have `sequence(x)`, which returns a token for each step, [n, L, E], and their mask [n, L], False for
padding.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from m3col.config.modality_sections import NumericModelConfig
from m3col.data import modality_kinds
from m3col.errors import InputError, nearest
from m3col.inputs.specs import ImageInput, MediaSpec, SequenceInput, TextInput
from m3col.models.heads import MLPHead
from m3col.models.mlp import MLPEncoder
from m3col.models.table import TableEncoder

if TYPE_CHECKING:
    from m3col.config.schema import ModelConfig


# name -> (in_features, embedding_dim) -> module from [N, in_features] to [N, embedding_dim]
TABLE: dict[str, Callable[[int, int], nn.Module]] = {"mlp": MLPEncoder}


def names() -> tuple[str, ...]:
    """The names of all encoders of numeric tables."""
    return tuple(TABLE)


def build_encoder(
    spec: int | MediaSpec,
    config: "ModelConfig",
    *,
    load_weights: bool = True,
    described: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Builds the encoder of one modality. Random weights come from torch's global generator, which the caller seeds.

    Args:
        spec: the number of columns of a numeric table, or the description of images, texts or sequences.
        config: the config section `model:`.
        load_weights: whether to load pretrained weights. False for a model whose weights are then loaded from a
            checkpoint.
        described: for such a model what `stored()` returned; None: the encoder is built from the config.

    Returns:
        The encoder, from inputs to embeddings [n, D].

    Raises:
        InputError: an unknown name, a width below 1, or files that are missing or do not fit.
    """
    kind = modality_kinds.NUMERIC if isinstance(spec, int) else spec.kind
    encoder: nn.Module = modality_kinds.of(kind).call("encoder", spec, config, load_weights, described)
    return encoder


def table_encoder(spec: int, config: "ModelConfig", load_weights: bool, stored: Mapping[str, Any] | None) -> nn.Module:
    """The encoder of a numeric table with `spec` columns. Raises InputError."""
    if config.numeric != NumericModelConfig():
        return TableEncoder(spec, config.numeric, config.embedding_dim)
    if config.encoder not in TABLE:
        raise InputError([f"encoder {config.encoder!r} is unknown{nearest(config.encoder, TABLE)}"])
    return TABLE[config.encoder](spec, config.embedding_dim)


def image_encoder(
    spec: ImageInput, config: "ModelConfig", load_weights: bool, stored: Mapping[str, Any] | None
) -> nn.Module:
    """The encoder of images that the config names. Raises InputError."""
    from m3col.models.image import ImageEncoder  # imported here: timm takes seconds to import

    return ImageEncoder(
        config.image, spec, config.embedding_dim,
        checkpointing=config.gradient_checkpointing, load_weights=load_weights,
    )  # fmt: skip


def text_encoder(
    spec: TextInput, config: "ModelConfig", load_weights: bool, stored: Mapping[str, Any] | None
) -> nn.Module:
    """The encoder of texts that the config names. Raises InputError."""
    from m3col.models.text import TextEncoder

    return TextEncoder(
        config.text, spec, config.embedding_dim,
        checkpointing=config.gradient_checkpointing, load_weights=load_weights, described=stored,
    )  # fmt: skip


def sequence_encoder(
    spec: SequenceInput, config: "ModelConfig", load_weights: bool, stored: Mapping[str, Any] | None
) -> nn.Module:
    """The encoder of sequences that the config names. Raises InputError."""
    from m3col.models.sequence import SequenceEncoder

    return SequenceEncoder(config.sequence, spec, config.embedding_dim)


def build_head(in_features: int, hidden: int, num_classes: int, dropout: float, *, layers: int = 2) -> MLPHead:
    """A head from `in_features` to `num_classes` logits, with random weights from torch's global generator."""
    return MLPHead(in_features, hidden=hidden, num_classes=num_classes, dropout=dropout, layers=layers)


__all__ = ["TABLE", "MLPEncoder", "MLPHead", "build_encoder", "build_head", "names"]
