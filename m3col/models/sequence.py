"""Encoders of sequences: a transformer, a recurrent network (GRU) and causal convolutions.

Letters: n sequences, L steps of the longest one of the batch, F features, E width of the layers, D embedding width.
Papers: positions of Vaswani et al., arXiv 1706.03762, section 3.5; a LayerNorm in front of each part of a layer
  (pre-LN) of Xiong et al., arXiv 2002.04745; dilated causal convolutions of van den Oord et al., arXiv 1609.03499,
  section 2.1.
  The transformer of CoMM (arXiv 2409.07402) for MOSI, UR-FUNNY and MUsTARD is `width: 40, layers: 5, heads: 5,
  feedforward: 2048, positions: none, final_norm: false, mask: false`.
  Its force encoder for Vision & Touch is `name: convolution, layers: 5, kernel: 2, stride: 2, stride_at: first,
  widths: [16, 32, 64, 128], width: 128, tokens: features`. Of 32 steps one vector remains, which depends on the first
  step alone (see `CausalConvolutions`); with `stride_at: last` it depends on all of them.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from m3col.augmentation import sample_mixing
from m3col.config.modality_sections import SequenceModelConfig
from m3col.errors import InputError
from m3col.inputs.specs import SequenceInput, Sequences
from m3col.models.mlp import check_widths, linear
from m3col.models.table import FeatureTokens

_SLOPE = 0.1  # of LeakyReLU below 0, in the convolutions

_BASE = 10000.0  # of the wavelengths of the positions


class SequenceEncoder(nn.Module):
    """Sequences to embeddings [n, D], not normalised: a pooled token, projected where E is not D.

    Padding changes nothing, unless the config has `mask: false`: embeddings do not depend on the other samples of a
    batch.

    Args:
        config: the config section `model.sequence:`.
        input: the description of the sequences.
        embedding_dim: D.

    Raises:
        InputError: the heads do not divide the width.
    """

    def __init__(self, config: SequenceModelConfig, input: SequenceInput, embedding_dim: int) -> None:
        super().__init__()
        check_widths(features=input.features, embedding_dim=embedding_dim)
        faults = config_faults(config)
        if faults:
            raise InputError(faults)
        self._config, self._embedding_dim = config, embedding_dim
        self.steps = TABLE[config.name](config, input.features)
        self.projection = nn.Identity() if config.width == embedding_dim else linear(config.width, embedding_dim)
        self.feature_tokens: FeatureTokens | None = None

    @property
    def sequence_width(self) -> int:
        """The width of the tokens of `sequence`."""
        return self._embedding_dim if self._config.tokens == "features" else self._config.width

    def forward(self, x: Sequences) -> Tensor:
        embedding: Tensor = self.projection(self._pooled(*self._of_steps(x)))
        return embedding

    def _of_steps(self, x: Sequences) -> tuple[Tensor, Tensor]:
        """A token for each step that remains, [n, L', E], and their mask [n, L']."""
        mask = x.mask if self._config.mask else torch.ones_like(x.mask)
        tokens: Tensor = self.steps(x.values, mask)
        mask = remaining(mask, self._config)
        return tokens * mask.unsqueeze(-1).to(tokens.dtype) if self._config.mask else tokens, mask

    def _pooled(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """One vector [n, E] of the tokens of each sequence."""
        if self._config.pool == "last":
            mask = mask & ~functional.pad(mask[:, 1:], (0, 1))  # the last step that exists
        weights = mask.unsqueeze(-1).to(tokens.dtype)
        return (tokens * weights).sum(dim=1) / weights.sum(dim=1)

    def sequence(self, x: Sequences) -> tuple[Tensor, Tensor]:
        """A token for each step, or with `tokens: features` one for each number of the pooled vector.

        Args:
            x: n sequences.

        Returns:
            Tokens [n, L', E], 0 for padding, and their mask [n, L'] bool, False for padding, where L' = L unless
            convolutions have strides. With `mask: false`, padding counts as steps. Or tokens [n, E, D] of features.
        """
        tokens, mask = self._of_steps(x)
        if self.feature_tokens is None:
            return tokens, mask
        tokens = self.feature_tokens(self._pooled(tokens, mask))
        return tokens, mask.new_ones(tokens.shape[:2])

    def without_pooling(self) -> None:
        """Removes the projection of pooled embeddings, and adds the tokens of features, for methods that use `sequence`
        alone."""
        self.projection = nn.Identity()
        if self._config.tokens == "features":
            self.feature_tokens = FeatureTokens(self._config.width, self._embedding_dim)

    def mix(self, x: Sequences, permutation: Tensor, lam: Tensor) -> Sequences:
        """Eq. 2 at each step: lam x + (1 - lam) x[permutation]; permutation, lam: [n].

        A step of the mixture exists where a sequence of positive weight has one; the other one counts with 0 there. So
        lam = 1 gives the sequence itself, and lam = 0 the partner.
        """
        weight = lam.to(x.values.dtype).unsqueeze(1)  # rounded as in `sample_mixing.mix`
        mask = (x.mask & (weight > 0)) | (x.mask[permutation] & (weight < 1))
        return Sequences(sample_mixing.mix(x.values, permutation, lam), mask)

    def stored(self) -> dict[str, Any]:
        """Empty: the config and the number of features describe the encoder."""
        return {}


def remaining(mask: Tensor, config: SequenceModelConfig) -> Tensor:
    """The mask [n, L'] of the tokens that convolutions with strides leave: those whose first step exists."""
    for _ in range(config.layers if config.stride > 1 else 0):
        mask = mask[:, :: config.stride]
    return mask


def config_faults(config: SequenceModelConfig) -> list[str]:
    """Faults that involve several values of the section `model.sequence:`, one line each."""
    return _head_faults(config) + _convolution_faults(config)


def _convolution_faults(config: SequenceModelConfig) -> list[str]:
    faults = []
    if config.name != "convolution":
        given = {"widths": config.widths is not None, "stride": config.stride > 1}
        faults += [
            f"model.sequence.{key} is for the encoder 'convolution', but model.sequence.name is {config.name!r}; leave "
            "it out"
            for key, is_set in given.items()
            if is_set
        ]
    elif config.widths is not None and len(config.widths) != config.layers - 1:
        faults.append(
            f"model.sequence.widths must have an entry for each layer but the last, {config.layers - 1}, but has "
            f"{len(config.widths)}; the width of the last is model.sequence.width"
        )
    return faults


def _head_faults(config: SequenceModelConfig) -> list[str]:
    if config.name != "transformer" or config.width % config.heads == 0:
        return []
    divisors = [number for number in range(1, config.width + 1) if config.width % number == 0]
    close = min(divisors, key=lambda number: abs(number - config.heads))
    text = f"must divide model.sequence.width ({config.width}), but is {config.heads}"
    return [f"model.sequence.heads {text}; the nearest valid value is {close}"]


def sine_positions(length: int, width: int, *, like: Tensor) -> Tensor:
    """Positions [length, width]: sin(t / 10000^(2i / width)) in column 2i, the cosine in column 2i + 1.

    Args:
        length: number of steps; t = 0 is the first one.
        width: E.
        like: a tensor with the device and dtype of the result.
    """
    column = torch.arange(0, width, 2, device=like.device, dtype=torch.float64)
    step = torch.arange(length, device=like.device, dtype=torch.float64)
    angles = step[:, None] * torch.exp(column * (-math.log(_BASE) / width))
    both = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return both[:, :width].to(like.dtype)


class Transformer(nn.Module):
    """Linear(F, E) without bias, positions, pre-LN layers, and a LayerNorm: [n, L, F] to tokens [n, L, E]."""

    def __init__(self, config: SequenceModelConfig, features: int) -> None:
        super().__init__()
        self._positions = config.positions
        self.first = nn.Linear(features, config.width, bias=False)
        nn.init.xavier_normal_(self.first.weight)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(config.width, config.heads, config.feedforward, config.dropout)
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width) if config.final_norm else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        tokens: Tensor = self.first(x)
        if self._positions == "sine":
            tokens = self.dropout(tokens + sine_positions(x.shape[1], tokens.shape[2], like=tokens))
        for layer in self.layers:
            tokens = layer(tokens, mask)
        normed: Tensor = self.norm(tokens)
        return normed


class TransformerLayer(nn.Module):
    """x + attention(LayerNorm(x)), then x + feed-forward(LayerNorm(x)), with ReLU and dropout.

    Args:
        width: E.
        heads: number of attention heads, a divisor of E.
        inner: hidden width of the feed-forward part.
        dropout: rate, of attention weights, hidden values and what is added.
    """

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self._heads, self._rate = heads, dropout
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.merge = linear(width, 3 * width), linear(width, width)
        self.first, self.second = linear(width, inner), linear(inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Tokens [n, L, E] to tokens [n, L, E]. Positions where `mask` [n, L] is False are not attended to."""
        query, key, value = (
            part.unflatten(-1, (self._heads, -1)).transpose(1, 2)
            for part in self.attention(self.attention_norm(x)).chunk(3, dim=-1)
        )
        rate = self._rate if self.training else 0.0
        attended = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask[:, None, None, :], dropout_p=rate
        )
        x = x + self.dropout(self.merge(attended.transpose(1, 2).flatten(2)))
        hidden = self.dropout(torch.relu(self.first(self.norm(x))))
        return x + self.dropout(self.second(hidden))


class Recurrent(nn.Module):
    """Gated recurrent units: [n, L, F] to the states [n, L, E] of the last layer. Padding is behind, hence never read
    by a step that exists."""

    def __init__(self, config: SequenceModelConfig, features: int) -> None:
        super().__init__()
        between = config.dropout if config.layers > 1 else 0.0  # torch warns of a dropout that nothing follows
        self.gru = nn.GRU(features, config.width, config.layers, batch_first=True, dropout=between)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        states: Tensor = self.gru(x)[0]
        return states


class CausalConvolutions(nn.Module):
    """Convolutions that read a step and earlier ones, with LeakyReLU and dropout: [n, L, F] to tokens [n, L', E].

    Layer i (from 0) reads the steps t, t - 2^i, ..., t - (kernel - 1) 2^i; steps before the first count as 0.

    With a stride s > 1 the steps that a layer reads are neighbours, and each layer has a token for every s of its
    steps, ceil(L / s) in all: token j reads the steps up to s j + s - 1 (`stride_at: last`), of which those behind the
    end count as 0, or up to s j (`first`, as published). With `first`, token 0 depends on step 0 alone in every layer,
    so that where one token remains, it has seen one step.
    """

    def __init__(self, config: SequenceModelConfig, features: int) -> None:
        super().__init__()
        between = [config.width] * (config.layers - 1) if config.widths is None else config.widths
        widths, stride = [features, *between, config.width], config.stride
        self._stride, self._skipped = stride, stride - 1 if config.stride_at == "last" else 0
        self.layers = nn.ModuleList(
            nn.Conv1d(before, after, config.kernel, stride=stride, dilation=2**number if stride == 1 else 1)
            for number, (before, after) in enumerate(itertools.pairwise(widths))
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        tokens = x.transpose(1, 2)
        for layer in self.layers:
            assert isinstance(layer, nn.Conv1d)
            if self._stride > 1:  # a window may end behind the end of a sequence
                tokens = tokens * mask.unsqueeze(1).to(tokens.dtype)
                mask = mask[:, :: self._stride]
            before = (layer.kernel_size[0] - 1) * layer.dilation[0]
            behind = -tokens.shape[2] % self._stride if self._skipped else 0
            padded = functional.pad(tokens, (before, behind))[:, :, self._skipped :]
            tokens = self.dropout(functional.leaky_relu(layer(padded), _SLOPE))
        return tokens.transpose(1, 2)


# name -> (config, features) -> module from values [n, L, F] and their mask [n, L] to tokens [n, L', E]
TABLE: dict[str, Callable[[SequenceModelConfig, int], nn.Module]] = {
    "transformer": Transformer,
    "gru": Recurrent,
    "convolution": CausalConvolutions,
}
