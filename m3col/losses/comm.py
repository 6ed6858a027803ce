"""CoMM: the fused embedding of all modalities against itself and against that of each modality alone, in two views.

Letters: N samples in the batch, M modalities, P embedding width after the projector, tau temperature;
  z'_0, z''_0 [N, P]   embedding of all modalities in the first and in the second view
  z'_k, z''_k [N, P]   embedding of modality k = 1..M alone, the tokens of the others left out
Paper: Dufumier et al., "What to align in multimodal contrastive learning?", arXiv 2409.07402v2.

    L_k = 1/2 [ nt_xent(z'_k, z''_0) + nt_xent(z''_k, z'_0) ]        k = 0..M; for k = 0 both halves are equal
    L   = 1/(M + 1) sum_k w_k L_k

This is the form of the published code, which gave the published figures. The paper's form (`form="paper"`) is

    L_k = 1/2 [ info_nce(z'_k, z''_0) + info_nce(z''_k, z'_0) ],  L = sum_k w_k L_k
    info_nce(a, b) = -1/(2N) sum_i [ log softmax_j(a_i.b_j / tau)[i] + log softmax_j(b_i.a_j / tau)[i] ]

whose negatives are the other argument's rows alone. In the paper the embedding of modality k alone comes from the clean
input: give the same tensor as z'_k and z''_k.
Differs: the paper states its bound for one direction, with a learnt critic as similarity; here both directions are
averaged, and the similarity is the cosine over tau, as in the published code. The positive pair is in the denominator,
where it belongs in a bound of mutual information.
"""

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from m3col.errors import InputError, nearest
from m3col.losses import chunks, clip, ntxent
from m3col.losses.common import (
    embedding_faults,
    full_precision,
    second_list_faults,
    temperature_faults,
    unit_rows,
    working_dtype,
)

Form = Literal["code", "paper"]


def comm_loss(
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    *,
    temperature: float,
    weights: Sequence[float] | None = None,
    form: Form = "code",
) -> Tensor:
    """The scalar loss of CoMM.

    Above 8,192 samples it works in blocks of rows and stores no [N, N] matrix (`m3col.losses.chunks`).

    Args:
        first: M + 1 embeddings [N, P] of the first view, not yet normalised: of all modalities, then of each alone.
        second: the same of the second view.
        temperature: tau, finite and > 0; 0.1 in CoMM.
        weights: w_0..w_M, finite and >= 0, at least one above 0; None (default): all 1. `[1, 0, 0]` is L_0 alone.
        form: `code` (default): NT-Xent and the mean over the M + 1 terms; `paper`: InfoNCE and their sum.

    Returns:
        A scalar of the widest dtype of the embeddings; float16 and bfloat16 are computed, and returned, in float32.
        N = 1 gives 0.

    Raises:
        InputError: (a ValueError) with one line for every fault of the arguments: numbers of tensors, shapes, dtypes,
            temperature, weights, form.

    Example:
        >>> import torch
        >>> from m3col.losses import comm_loss
        >>> rows = [torch.eye(2)] * 3
        >>> print(round(comm_loss(rows, rows, temperature=1.0).item(), 4))  # three times log(1 + 2 / e), over 3
        0.5514
    """
    faults = [] if weights is None else _weight_faults(weights, len(first))
    terms = _terms(first, second, temperature, form, faults)
    if weights is not None:
        terms = terms * terms.new_tensor(list(weights))
    return terms.mean() if form == "code" else terms.sum()


def comm_terms(first: Sequence[Tensor], second: Sequence[Tensor], *, temperature: float, form: Form = "code") -> Tensor:
    """The terms L_0..L_M of the loss of CoMM, without weights, for a log or a combination of your own.

    Args:
        first: as in `comm_loss`.
        second: as in `comm_loss`.
        temperature: as in `comm_loss`.
        form: as in `comm_loss`; whether the terms are averaged or added up is then up to you.

    Returns:
        [M + 1] in the dtype that `comm_loss` returns.

    Raises:
        InputError: as in `comm_loss`.

    Example:
        >>> import torch
        >>> from m3col.losses import comm_terms
        >>> rows = [torch.eye(2)] * 3
        >>> print([round(term, 4) for term in comm_terms(rows, rows, temperature=1.0).tolist()])
        [0.5514, 0.5514, 0.5514]
    """
    return _terms(first, second, temperature, form, [])


def _terms(
    first: Sequence[Tensor], second: Sequence[Tensor], temperature: float, form: Form, more_faults: list[str]
) -> Tensor:
    faults = _faults(first, second) + temperature_faults(temperature) + more_faults
    if form not in get_args(Form):
        faults.append(f"form {form!r} is unknown{nearest(form, get_args(Form))}")
    if faults:
        raise InputError(faults)
    dtype = working_dtype([*first, *second])
    with full_precision(first[0]):
        u, v = ([unit_rows(z, dtype) for z in view] for view in (first, second))
        between = _nt_xent(u, v, temperature) if form == "code" else _info_nce(u, v, temperature)
        halves = [(between(k, 0) + between(0, k)) / 2 for k in range(1, len(u))]  # both are symmetric
        return torch.stack([between(0, 0), *halves])


def _nt_xent(u: Sequence[Tensor], v: Sequence[Tensor], temperature: float) -> Callable[[int, int], Tensor]:
    """nt_xent(z'_k, z''_l) as a function of k and l. Similarities within one embedding are computed once."""
    others_u, others_v = (
        [chunks.log_normalizers_of_others(rows / temperature, rows) for rows in view] for view in (u, v)
    )
    return lambda k, other: ntxent.between(u[k], v[other], others_u[k], others_v[other], temperature)


def _info_nce(u: Sequence[Tensor], v: Sequence[Tensor], temperature: float) -> Callable[[int, int], Tensor]:
    return lambda k, other: clip.symmetric(u[k] / temperature, v[other])


def _faults(first: Sequence[Tensor], second: Sequence[Tensor]) -> list[str]:
    """One line per fault of the embeddings: those of all modalities, and of at least two alone."""
    faults = embedding_faults("first", first, at_least=3)
    return faults or second_list_faults("second", second, "first", first, per="tensor")


def _weight_faults(weights: Sequence[float], count: int) -> list[str]:
    faults = []
    if len(weights) != count:
        faults.append(f"weights must hold one number per tensor of first ({count}), but got {len(weights)}")
    for k, weight in enumerate(weights):
        is_number = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
        if not (is_number and math.isfinite(weight) and weight >= 0):
            faults.append(f"weights[{k}] must be a finite number >= 0, but got {weight!r}")
    if not faults and not any(weights):
        faults.append(f"weights must hold a number > 0, but got {list(weights)}")
    return faults
