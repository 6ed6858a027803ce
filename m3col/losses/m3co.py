"""M3Co: the Mixup-based contrastive loss between every two modalities.

Letters: N samples in the batch, M modalities, D embedding width, tau temperature; a, b two modalities.
  u_m [N, D]   unit rows of the embedding of the clean input        (p in Eq. 1)
  v_m [N, D]   unit rows of the embedding of the mixed input        (p~ in Eq. 3)
  lam [N]      weight of a sample itself in its mixture             (lambda in Eq. 2)
  pi_m [N]     index of the sample it is mixed with in modality m   (j, k in Eq. 2)
Paper: Kumar et al., arXiv 2409.17777, Eq. 5-8 and 12.
Differs: the paper's "drawn arbitrarily, without replacement" is read as one permutation per modality and
  batch, the same in every pair of modalities; a sample mixed with itself (a fixed point) has weight 1.
Differs: the authors' code mixes embeddings in place, so that the clean side of a later pair is already
  mixed; here the arguments are left as they are, and `clean` is clean in every pair.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from m3col.errors import InputError
from m3col.losses import chunks
from m3col.losses.common import (
    embedding_faults,
    full_precision,
    second_list_faults,
    temperature_faults,
    unit_rows,
    working_dtype,
)


def m3co_loss(
    clean: Sequence[Tensor],
    mixed: Sequence[Tensor],
    permutations: Sequence[Tensor],
    lam: Tensor,
    *,
    temperature: float,
    check_values: bool = True,
) -> Tensor:
    """The scalar M3Co loss, summed over pairs of modalities and averaged over samples (Eq. 12).

    Above 8,192 samples it works in blocks of rows and stores no [N, N] matrix (`m3col.losses.chunks`).

    Args:
        clean: M embeddings [N, D] of the inputs, not yet normalised.
        mixed: M embeddings [N, D] of the mixed inputs, not yet normalised.
        permutations: M index tensors [N]; sample i of modality m was mixed with sample `permutations[m][i]`.
        lam: [N] in [0, 1], the weight of sample i itself, the same for all modalities.
        temperature: tau, finite and > 0; the paper uses 0.1.
        check_values: whether the values of `permutations` and `lam` are validated, default True. On a GPU reading them
            waits for all work that it still has to do.

    Returns:
        A scalar of the widest dtype of the embeddings; float16 and bfloat16 are computed, and returned, in float32.
        N = 1 gives 0.

    Raises:
        InputError: (a ValueError) with one line for every fault of the arguments: numbers of modalities, shapes,
            dtypes, indices outside 0..N-1, weights outside [0, 1], temperature.

    Example:
        >>> import torch
        >>> from m3col.losses import m3co_loss
        >>> rows = torch.eye(2)
        >>> same = torch.arange(2)  # each sample mixed with itself
        >>> loss = m3co_loss([rows, rows], [rows, rows], [same, same], torch.ones(2), temperature=1.0)
        >>> print(round(loss.item(), 4))
        0.6265
    """
    faults = _faults(clean, mixed, permutations, lam, check_values) + temperature_faults(temperature)
    if faults:
        raise InputError(faults)
    dtype = working_dtype([*clean, *mixed])
    with full_precision(clean[0]):
        u = [unit_rows(p, dtype) for p in clean]
        v = [unit_rows(q, dtype) for q in mixed]
        lam = lam.to(dtype)
        ordered = list(itertools.permutations(range(len(u)), 2))  # Eq. 6 where a < b, Eq. 7 where a > b
        if len(lam) > chunks.WHOLE_UP_TO:
            directions = [_in_chunks(v[a] / temperature, u[b], permutations[a].long(), lam) for a, b in ordered]
        else:
            directions = [_one_direction(v[a] @ u[b].T / temperature, permutations[a].long(), lam) for a, b in ordered]
        return torch.stack(directions).sum() / 2  # Eq. 8, 12


def _one_direction(similarity: Tensor, permutation: Tensor, lam: Tensor) -> Tensor:
    """Eq. 6 for mixtures of modality a against clean b, from `similarity` = v_a u_b^T / tau [N, N].

    The bracket of Eq. 6 needs log-softmax over rows at [i, j], the curly bracket that of the transposed
    matrix at [j, i], which is log-softmax over columns at [i, j]: one matrix product serves both.
    """
    log_p = F.log_softmax(similarity, dim=1) + F.log_softmax(similarity, dim=0)  # Eq. 5, twice
    own = log_p.diagonal()
    partner = log_p.gather(1, permutation[:, None]).squeeze(1)
    return -(lam * own + (1 - lam) * partner).mean()


def _in_chunks(mixed: Tensor, clean: Tensor, permutation: Tensor, lam: Tensor) -> Tensor:
    """`_one_direction` of S = mixed clean^T [N, N] without the matrix, from v_a / tau and u_b [N, D].

    Of each log-softmax it needs two entries a row, S[i, i] and S[i, j], and the logarithms of the denominators.
    """
    rows, columns = chunks.log_normalizers(mixed, clean)
    own = 2 * (mixed * clean).sum(1) - rows - columns
    partner = 2 * (mixed * clean[permutation]).sum(1) - rows - columns[permutation]
    return -(lam * own + (1 - lam) * partner).mean()


def _faults(
    clean: Sequence[Tensor], mixed: Sequence[Tensor], permutations: Sequence[Tensor], lam: Tensor, check_values: bool
) -> list[str]:
    """One line per fault of the tensors. Indices and weights are read only where their shapes are right."""
    faults = embedding_faults("clean", clean)
    if faults:
        return faults
    n = clean[0].shape[0]
    faults += second_list_faults("mixed", mixed, "clean", clean)
    if len(permutations) != len(clean):
        rule = f"one tensor per modality of clean ({len(clean)})"
        faults.append(f"permutations must hold {rule}, but got {len(permutations)}")
    for m, tensor in enumerate(permutations):
        faults += _permutation_faults(f"permutations[{m}]", tensor, n, check_values)
    return faults + _weight_faults(lam, n, check_values)


def _permutation_faults(name: str, permutation: Tensor, n: int, check_values: bool) -> list[str]:
    if permutation.dtype not in (torch.int64, torch.int32):  # torch indexes with bool and uint8 as masks
        return [f"{name} must have dtype int64 or int32, but got {permutation.dtype}"]
    if list(permutation.shape) != [n]:
        return [f"{name} must have shape [{n}], but got {list(permutation.shape)}"]
    if not check_values:
        return []
    low, high = (int(bound) for bound in torch.aminmax(permutation))
    if low < 0 or high >= n:
        return [f"{name} must lie in 0..{n - 1}, but got {low if low < 0 else high}"]
    return []


def _weight_faults(lam: Tensor, n: int, check_values: bool) -> list[str]:
    if not lam.is_floating_point():
        return [f"lam must have a floating dtype, but got {lam.dtype}"]
    if list(lam.shape) != [n]:
        return [f"lam must have shape [{n}], but got {list(lam.shape)}"]
    if not check_values:
        return []
    low, high = (float(bound) for bound in torch.aminmax(lam.detach()))
    if not (low >= 0 and high <= 1):  # also refuses NaN
        return [f"lam must lie in [0, 1], but got {high if low >= 0 else low}"]
    return []
