"""Attention masks of transformers' encoders without reading a value back from a GPU.

Where torch's scaled_dot_product_attention computes the attention, transformers asks whether a batch has padding at all,
and passes no mask if it has none. On a GPU the answer has to wait for all work that is still queued, in each forward
pass. Here the answer comes from the host (`Tokens.padded`), or a mask is passed.
"""

from typing import Any

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "m3col_sdpa"


def padding_mask(*, attention_mask: Tensor | None = None, **named: Any) -> Tensor | None:
    """transformers' mask for scaled_dot_product_attention; the values of a mask on a GPU are not read.

    Args:
        attention_mask: [n, L], 0 for padding; None: no padding.
        named: see `sdpa_mask` of transformers.

    Returns:
        The mask [n, 1, L, L]; None where no token is masked. On a GPU that is known only without `attention_mask`.
    """
    if attention_mask is not None and attention_mask.device.type != "cpu":
        named["allow_is_bidirectional_skip"] = False
    mask: Tensor | None = sdpa_mask(attention_mask=attention_mask, **named)
    return mask


def read_no_masks(model: PreTrainedModel) -> None:
    """Makes an encoder use `padding_mask`, if its attention is scaled_dot_product_attention."""
    if model.config._attn_implementation == "sdpa":
        AttentionMaskInterface.register(_NAME, padding_mask)
        AttentionInterface.register(_NAME, sdpa_attention_forward)
        model.set_attn_implementation(_NAME)
