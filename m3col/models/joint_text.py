"""A text encoder of BERT's kind over a sequence of other tokens and texts.

Letters: n samples, L tokens, E width of the word embeddings.
"""

import inspect
from typing import Any

import torch
from torch import Tensor

from m3col.config.modality_sections import TextModelConfig
from m3col.models import text
from m3col.models.token_positions import padding_position, position_table


def faults(config: TextModelConfig) -> list[str]:
    """One line where the encoder that the config names cannot be told the positions of tokens.

    A name or options that are no encoder are no fault here.

    Args:
        config: the config section `model.text:`.
    """
    described = text.encoder_config(config)
    with torch.device("meta"):
        model = text.build(described)
    if position_table(model) is not None and "position_ids" in inspect.signature(model.forward).parameters:
        return []
    kind = described["model_type"]
    return [f"{text.KEY} {config.name!r}: {kind!r} takes no positions of tokens; name an encoder such as 'bert'"]


def run(model: Any, embeddings: Tensor, *, mask: Tensor, segments: Tensor, places: Tensor) -> Tensor:
    """The output of a text encoder at each token.

    Args:
        model: the encoder from transformers, see `TextEncoder.model`.
        embeddings: [n, L, E] word embeddings, or others in their space.
        mask: [n, L], False for tokens that no other one attends to.
        segments: [n, L] 0 or 1, which of two parts a token belongs to; encoders with one part ignore it.
        places: [n, L] positions, from 0.

    Returns:
        The outputs [n, L, width].
    """
    padding = padding_position(model)
    arguments = {
        "inputs_embeds": embeddings,
        "attention_mask": mask.long(),
        # In encoders such as RoBERTa the first token follows the position of padding.
        "position_ids": places if padding is None else places + padding + 1,
    }
    has_segments = "token_type_ids" in inspect.signature(model.forward).parameters
    if has_segments and getattr(model.config, "type_vocab_size", 0) > 1:
        arguments["token_type_ids"] = segments
    hidden: Tensor = model(**arguments).last_hidden_state
    return hidden
