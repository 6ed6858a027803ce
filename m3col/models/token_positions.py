"""Positions of tokens in transformers' encoders: their ids, and how many there are.

Letters: n texts, L tokens of the longest text of a batch.
"""

import inspect

from torch import Tensor, nn
from transformers import PreTrainedModel


def positions(mask: Tensor, padding: int) -> Tensor:
    """Position ids [n, L] for encoders such as RoBERTa: tokens have padding + 1, padding + 2, ..., others `padding`."""
    counted = mask.long()
    return counted.cumsum(dim=1) * counted + padding


def padding_position(model: nn.Module) -> int | None:
    """The position id of padding in encoders such as RoBERTa (1; the first token has 2); None for other encoders."""
    parameters = inspect.signature(model.forward).parameters
    table = position_table(model)
    return table.padding_idx if table is not None and "position_ids" in parameters else None


def position_table(model: nn.Module) -> nn.Embedding | None:
    """The embeddings of absolute positions; None where the encoder has none."""
    tables = (m for name, m in model.named_modules() if name.endswith("position_embeddings"))
    return next((table for table in tables if isinstance(table, nn.Embedding)), None)


def longest(model: PreTrainedModel) -> int | None:
    """The largest number of tokens per text that the encoder accepts; None: no limit."""
    table = position_table(model)
    if table is None:
        limit: int | None = getattr(model.config, "max_position_embeddings", None)
        return limit if limit and limit > 0 else None
    padding = padding_position(model)
    return table.num_embeddings - (0 if padding is None else padding + 1)
