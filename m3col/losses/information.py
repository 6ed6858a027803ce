"""FactorCL's two bounds of the mutual information of A and B, from the scores that a critic gives to all pairs.

Letters: N samples in the batch; c(a_i, b_j) = scores[i, j], the critic's score of sample i of A with sample j of B.
Paper: Liang et al., "Factorized Contrastive Learning: Going Beyond Multi-view Redundancy", arXiv 2306.05268. Its terms
are InfoNCE (van den Oord et al., arXiv 1807.03748) and CLUB (Cheng et al., arXiv 2006.12013).

    nce  = mean_i c(a_i, b_i) - mean_i [ log sum_j exp c(a_j, b_i) - log N ]     a lower bound
    club = mean_i c(a_i, b_i) - mean_{i, j} c(a_j, b_i)                          an upper bound, if c is optimal

As in the published code nce has the positive pair in its sum and is one-sided: for each b_i it sums over the samples of
A. club has the positive pairs in its second mean. Both are bounds, not losses: a term to be maximised enters a loss
with a minus sign.
Differs: the arguments `temperature` and `ratio` of the published code, which ignores them, do not exist here.
"""

import math

from torch import Tensor

from m3col.errors import InputError
from m3col.losses.common import full_precision, working_dtype


def nce_bound(scores: Tensor) -> Tensor:
    """The lower bound: how much better the critic scores true pairs than it scores all samples of A with each of B.

    Args:
        scores: [N, N]; row i: sample i of A, column j: sample j of B.

    Returns:
        A scalar of the dtype of `scores`, at most log N; float16 and bfloat16 are computed, and returned, in float32.
        N = 1 gives 0.

    Raises:
        InputError: (a ValueError) with one line for every fault: shape, dtype.

    Example:
        >>> import torch
        >>> from m3col.losses import nce_bound
        >>> print(round(nce_bound(torch.eye(2)).item(), 4))  # 1 - log((e + 1) / 2)
        0.3799
    """
    _check(scores)
    with full_precision(scores):
        c = scores.to(working_dtype([scores]))
        return c.diagonal().mean() - (c.logsumexp(0) - math.log(len(c))).mean()


def club_bound(scores: Tensor) -> Tensor:
    """The upper bound: the mean score of true pairs less the mean score of all pairs.

    Args:
        scores: [N, N]; row i: sample i of A, column j: sample j of B.

    Returns:
        A scalar of the dtype of `scores`; float16 and bfloat16 are computed, and returned, in float32. N = 1 gives 0.

    Raises:
        InputError: (a ValueError) with one line for every fault: shape, dtype.

    Example:
        >>> import torch
        >>> from m3col.losses import club_bound
        >>> print(club_bound(torch.eye(2)).item())
        0.5
    """
    _check(scores)
    with full_precision(scores):
        c = scores.to(working_dtype([scores]))
        return c.diagonal().mean() - c.mean()


def _check(scores: Tensor) -> None:
    faults = []
    if not scores.is_floating_point():
        faults.append(f"scores must have a floating dtype, but got {scores.dtype}")
    shape = list(scores.shape)
    if len(shape) != 2 or shape[0] != shape[1]:
        faults.append(f"scores must have shape [N, N], but got {shape}")
    elif shape[0] == 0:
        faults.append("scores must hold at least one sample, but got N = 0")
    if faults:
        raise InputError(faults)
