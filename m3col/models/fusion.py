"""The fusion transformer: one embedding per sample from the tokens of all its modalities, or of some of them.

Letters: n samples, M modalities, S subsets of the modalities, T tokens of all modalities and the class token, L layers,
D width, E_m width of the tokens of modality m.
Paper: Dufumier et al., "What to align in multimodal contrastive learning?", arXiv 2409.07402, section 3 and Appendix.
Differs: a modality that is left out is masked as a key of the attention; the authors' code removes its tokens. Both
  give the same embedding. A sample that lacks a modality is treated in the same way.
Differs: the authors' code attends to the padding of texts in training, and masks it in evaluation; here it is always
  masked. All biases start at 0.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from m3col.errors import InputError
from m3col.models.mlp import check_widths
from m3col.models.named_modules import NamedModules
from m3col.models.token_sequence import TokenSequence

_POSITION_BASE = 10_000.0


class FusionTransformer(nn.Module):
    """Tokens of all modalities to one embedding [n, D] per sample and subset of the modalities.

    A learnt class token is put before the tokens. The embedding is its state after the last layer and a layer norm.
    Tokens of another width than D are projected. Tokens that come from a map get fixed sine positions; there are no
    other positions.

    Args:
        widths: E_m by modality.
        width: D.
        layers: L.
        heads: number of attention heads; must divide D.

    Raises:
        InputError: `heads` does not divide D, or a number is below 1.

    Example:
        >>> import torch
        >>> fusion = FusionTransformer({"image": 8, "text": 6}, width=8, layers=1, heads=2)
        >>> tokens = {"image": TokenSequence(torch.zeros(3, 4, 8)), "text": TokenSequence(torch.zeros(3, 5, 6))}
        >>> list(fusion(tokens, [["image", "text"], ["image"], ["text"]]).shape)
        [3, 3, 8]
    """

    def __init__(self, widths: Mapping[str, int], *, width: int, layers: int = 1, heads: int = 8) -> None:
        super().__init__()
        check_widths(width=width, layers=layers, heads=heads)
        if width % heads:
            raise InputError([f"heads must divide the width {width}, but got {heads}"])
        self.adapters = NamedModules(
            {name: nn.Identity() if own == width else _linear(own, width, own**-0.5) for name, own in widths.items()}
        )
        self.token = nn.Parameter(torch.randn(width))
        self.layers = nn.ModuleList(_Layer(width, heads, layers) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        sequences: Mapping[str, TokenSequence],
        subsets: Sequence[Collection[str]],
        present: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Embeddings of each sample from several subsets of its modalities, in one pass.

        Args:
            sequences: the tokens of each modality.
            subsets: S collections of names of modalities; the tokens of all others are masked.
            present: [n] bool by modality, False where a sample lacks it; modalities without gaps may be left out.

        Returns:
            Embeddings [S, n, D].
        """
        tokens, visible = self._tokens(sequences, subsets, present or {})
        count, n, _ = visible.shape
        mask = visible.flatten(0, 1)[:, None, None, :]
        for number, layer in enumerate(self.layers):
            # All subsets share the input of the first layer. Of the last one only the class token is used.
            copies, is_last = count if number == 0 else 1, number == len(self.layers) - 1
            tokens = layer(tokens, mask, copies=copies, first_token_only=is_last)
        embedding: Tensor = self.norm(tokens[:, 0]).unflatten(0, (count, n))
        return embedding

    def _tokens(
        self,
        sequences: Mapping[str, TokenSequence],
        subsets: Sequence[Collection[str]],
        present: Mapping[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """The tokens [n, T, D] of all modalities, and which of them each subset uses, [S, n, T]."""
        n = len(next(iter(sequences.values())).values)
        pieces, masks = [self.token.expand(n, 1, -1)], [self.token.new_ones(len(subsets), n, 1, dtype=torch.bool)]
        for name, sequence in sequences.items():
            values = self.adapters[name](sequence.values)
            if sequence.grid is not None:
                values = values + map_positions(*sequence.grid, values.shape[-1]).to(values)
            mask = values.new_ones(values.shape[:2], dtype=torch.bool) if sequence.mask is None else sequence.mask
            if name in present:
                mask = mask & present[name][:, None]
            pieces.append(values.to(self.token.dtype))
            # Subsets are known on the host: no mask is copied to a GPU.
            hidden = torch.zeros_like(mask)
            masks.append(torch.stack([mask if name in subset else hidden for subset in subsets]))
        return torch.cat(pieces, dim=1), torch.cat(masks, dim=2)


class _Layer(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)) with D -> 4 D -> D and the activation x sigmoid(1.702 x)."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.heads = heads
        out = (2 * layers * width) ** -0.5
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention_in, self.attention_out = _linear(width, 3 * width, width**-0.5), _linear(width, width, out)
        self.mlp_in, self.mlp_out = _linear(width, 4 * width, (2 * width) ** -0.5), _linear(4 * width, width, out)

    def forward(self, tokens: Tensor, mask: Tensor, *, copies: int, first_token_only: bool) -> Tensor:
        """Tokens [n, T, D] to [copies n, T, D], or to [copies n, 1, D]. `mask` [copies n, 1, 1, T]: visible keys."""
        query, key, value = self.attention_in(self.attention_norm(tokens)).chunk(3, dim=-1)
        if first_token_only:
            query, tokens = query[:, :1], tokens[:, :1]
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2).repeat(copies, 1, 1, 1) for part in (query, key, value)
        )
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        tokens = tokens.repeat(copies, 1, 1) + self.attention_out(attended.transpose(1, 2).flatten(2))
        hidden = self.mlp_in(self.mlp_norm(tokens))
        result: Tensor = tokens + self.mlp_out(hidden * torch.sigmoid(1.702 * hidden))
        return result


def map_positions(height: int, width: int, channels: int) -> Tensor:
    """Fixed sine and cosine positions of a map, row by row.

    Args:
        height: rows of the map.
        width: columns of the map.
        channels: D, a multiple of 4: sine and cosine of the row, then of the column, at D / 4 frequencies.

    Returns:
        [height * width, D] in float64.

    Raises:
        InputError: D is not a multiple of 4.
    """
    if channels % 4:
        near = max(4, round(channels / 4) * 4)
        raise InputError(
            [f"model.embedding_dim must be a multiple of 4 for images, but is {channels}; nearest valid: {near}"]
        )
    count = channels // 4
    frequency = _POSITION_BASE ** (-torch.arange(count, dtype=torch.float64) / count)
    rows, columns = (torch.arange(size, dtype=torch.float64)[:, None] * frequency for size in (height, width))
    by_row = torch.cat([rows.sin(), rows.cos()], dim=1)[:, None, :].expand(height, width, -1)
    by_column = torch.cat([columns.sin(), columns.cos()], dim=1)[None, :, :].expand(height, width, -1)
    return torch.cat([by_row, by_column], dim=2).reshape(height * width, channels)


def _linear(in_features: int, out_features: int, deviation: float) -> nn.Linear:
    layer = nn.Linear(in_features, out_features)
    nn.init.normal_(layer.weight, std=deviation)
    nn.init.zeros_(layer.bias)
    return layer
