"""NT-Xent: each of 2N rows looks for its other view among the 2N - 1 other rows.

Letters: N samples in the batch, D embedding width, tau temperature; u_i, v_i unit rows of the two arguments.
Paper: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", arXiv 2002.05709, Eq. 1,
which names the loss; CoMM (arXiv 2409.07402), Cross+Self, SimCLR, CMC and the second term of SLIP use it.

    l(u_i; v_i) = u_i.v_i / tau - log( sum_j exp(u_i.v_j / tau) + sum_{j != i} exp(u_i.u_j / tau) )
    nt_xent     = -1/(2N) sum_i [ l(u_i; v_i) + l(v_i; u_i) ]

Differs: published code removes a row's similarity with itself by subtracting 1e8, which overflows in float16; here a
mask does it, and 16-bit rows are computed in float32.
"""

import torch
from torch import Tensor

from m3col.errors import InputError
from m3col.losses import chunks
from m3col.losses.common import full_precision, shape_faults, temperature_faults, unit_rows, working_dtype


def nt_xent(a: Tensor, b: Tensor, *, temperature: float) -> Tensor:
    """The scalar NT-Xent loss: the mean over the rows of both arguments.

    Above 8,192 samples it works in blocks of rows and stores no [N, N] matrix (`m3col.losses.chunks`).

    Args:
        a: embeddings [N, D] of one view, not yet normalised.
        b: embeddings [N, D] of the other view of the same samples.
        temperature: tau, finite and > 0; 0.1 in CoMM.

    Returns:
        A scalar of the wider dtype of the embeddings; float16 and bfloat16 are computed, and returned, in float32.
        N = 1 gives 0.

    Raises:
        InputError: (a ValueError) with one line for every fault of the arguments: shapes, dtypes, temperature.

    Example:
        >>> import torch
        >>> from m3col.losses import nt_xent
        >>> rows = torch.eye(2)
        >>> print(round(nt_xent(rows, rows, temperature=1.0).item(), 4))  # log(1 + 2 / e)
        0.5514
    """
    faults = shape_faults({"a": a, "b": b}) + temperature_faults(temperature)
    if faults:
        raise InputError(faults)
    dtype = working_dtype([a, b])
    with full_precision(a):
        u, v = unit_rows(a, dtype), unit_rows(b, dtype)
        others = [chunks.log_normalizers_of_others(rows / temperature, rows) for rows in (u, v)]
        return between(u, v, others[0], others[1], temperature)


def between(u: Tensor, v: Tensor, others_u: Tensor, others_v: Tensor, temperature: float) -> Tensor:
    """NT-Xent of unit rows, with the part of the denominators that one argument alone decides.

    Args:
        u: unit rows [N, D].
        v: unit rows [N, D].
        others_u: log sum_{j != i} exp(u_i.u_j / tau) for each i [N].
        others_v: the same for v.
        temperature: tau.

    Returns:
        The scalar loss.
    """
    positive, rows, columns = chunks.pairs(u / temperature, v)
    from_u, from_v = torch.logaddexp(rows, others_u), torch.logaddexp(columns, others_v)
    return ((from_u + from_v) / 2 - positive).mean()
