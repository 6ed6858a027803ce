"""CLIP's loss: the embedding of each sample in one modality looks for its partner among all of the other, both ways.

Letters: N samples in the batch, D embedding width, s scale; u_i, v_i unit rows of the two arguments.
Paper: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", arXiv 2103.00020,
Fig. 3.

    clip = 1/2 [ CE(s u v^T, diagonal) + CE(s v u^T, diagonal) ]

The scale is an inverse temperature, usually s = exp(t) with a learnt t that starts at ln(1 / 0.07) and is clamped to
[0, ln 100]; both are the caller's.
Differs: published code of CoMM's row "Cross" gathers the rows of other processes without gradient. Here the arguments
hold all rows, and rows that were gathered with gradient give the gradient of a single process.
"""

import math

from torch import Tensor

from m3col.errors import InputError
from m3col.losses import chunks
from m3col.losses.common import full_precision, is_positive, shape_faults, unit_rows, working_dtype


def clip_loss(a: Tensor, b: Tensor, *, scale: float | Tensor, check_values: bool = True) -> Tensor:
    """The scalar loss of CLIP: the mean over samples and both directions.

    Above 8,192 samples it works in blocks of rows and stores no [N, N] matrix (`m3col.losses.chunks`).

    Args:
        a: embeddings [N, D] of one modality, not yet normalised.
        b: embeddings [N, D] of the other modality of the same samples.
        scale: s, finite and > 0: a number, or a tensor without dimensions, which gets a gradient.
        check_values: whether the value of a scale that is a tensor is validated, default True. On a GPU reading it
            waits for all work that it still has to do.

    Returns:
        A scalar of the wider dtype of the embeddings; float16 and bfloat16 are computed, and returned, in float32.
        N = 1 gives 0.

    Raises:
        InputError: (a ValueError) with one line for every fault of the arguments: shapes, dtypes, scale.

    Example:
        >>> import torch
        >>> from m3col.losses import clip_loss
        >>> rows = torch.eye(2)
        >>> print(round(clip_loss(rows, rows, scale=1.0).item(), 4))  # log(1 + 1 / e)
        0.3133
    """
    faults = shape_faults({"a": a, "b": b}) + _scale_faults(scale, check_values)
    if faults:
        raise InputError(faults)
    dtype = working_dtype([a, b])
    with full_precision(a):
        factor = scale.to(dtype) if isinstance(scale, Tensor) else scale
        return symmetric(unit_rows(a, dtype) * factor, unit_rows(b, dtype))


def symmetric(u: Tensor, v: Tensor) -> Tensor:
    """The mean of the cross-entropies of the rows and of the columns of u v^T [N, N] with its diagonal as target.

    Args:
        u: unit rows [N, D] times the scale.
        v: unit rows [N, D].

    Returns:
        The scalar loss.
    """
    positive, rows, columns = chunks.pairs(u, v)
    return ((rows + columns) / 2 - positive).mean()


def _scale_faults(scale: float | Tensor, check_values: bool) -> list[str]:
    if not isinstance(scale, Tensor):
        return [] if is_positive(scale) else [f"scale must be a finite number > 0, but got {scale!r}"]
    faults = []
    if not scale.is_floating_point():
        faults.append(f"scale must have a floating dtype, but got {scale.dtype}")
    if scale.ndim != 0:
        faults.append(f"scale must be a number or a tensor of shape [], but got {list(scale.shape)}")
    if not faults and check_values:
        value = float(scale.detach())
        if not (math.isfinite(value) and value > 0):
            faults.append(f"scale must be a finite number > 0, but got {value}")
    return faults
