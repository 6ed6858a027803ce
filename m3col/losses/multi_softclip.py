"""MultiSClip: the SoftClip loss between every two modalities, with soft targets from within each modality.

Letters: N samples in the batch, M modalities, D embedding width, tau temperature; a, b two modalities.
  u_m [N, D]    unit rows of the embedding of the clean input                  (p in Eq. 1)
  W_m [N, N]    soft targets, rowwise softmax of u_m u_m^T / tau, diagonal included   (the fraction in Eq. 9)
  S_ab [N, N]   -rowwise log_softmax(u_a u_b^T / tau), S_ab[i, l] = L_sim(p_i^a, p^b; l)   (Eq. 5)
Paper: Kumar et al., arXiv 2409.17777, Eq. 9-11 and 13.
Differs: the paper does not say whether the targets W carry a gradient; here they do (no stop-gradient).
Differs: the authors' code weights S_ab[i, l] by W_a[i, l] where Eq. 9 weights it by W_a[l, i], and uses a
  temperature of 0.125 for this loss; this file follows Eq. 9, and the temperature is the caller's.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from m3col.errors import InputError
from m3col.losses import chunks
from m3col.losses.common import embedding_faults, full_precision, temperature_faults, unit_rows, working_dtype


def multi_softclip_loss(clean: Sequence[Tensor], *, temperature: float) -> Tensor:
    """The scalar MultiSClip loss, summed over pairs of modalities and averaged over samples (Eq. 13).

    Above 8,192 samples it works in blocks of rows and stores no [N, N] matrix (`m3col.losses.chunks`).

    Args:
        clean: M embeddings [N, D], not yet normalised.
        temperature: tau, finite and > 0; the paper uses 0.1.

    Returns:
        A scalar of the widest dtype of the embeddings; float16 and bfloat16 are computed, and returned, in float32.
        N = 1 gives 0.

    Raises:
        InputError: (a ValueError) with one line for every fault of the arguments: number of modalities, shapes, dtypes,
            temperature.

    Example:
        >>> import torch
        >>> from m3col.losses import multi_softclip_loss
        >>> rows = torch.eye(2)
        >>> print(round(multi_softclip_loss([rows, rows], temperature=1.0).item(), 4))
        1.1644
    """
    faults = embedding_faults("clean", clean) + temperature_faults(temperature)
    if faults:
        raise InputError(faults)
    dtype = working_dtype(clean)
    with full_precision(clean[0]):
        u = [unit_rows(p, dtype) for p in clean]
        if len(u[0]) > chunks.WHOLE_UP_TO:
            return _in_chunks(u, temperature)
        w = [F.softmax(u_m @ u_m.T / temperature, dim=1) for u_m in u]
        pairs = [_pair(u[a] @ u[b].T / temperature, w[a], w[b]) for a, b in itertools.combinations(range(len(u)), 2)]
        return torch.stack(pairs).sum()  # Eq. 13


def _pair(similarity: Tensor, w_a: Tensor, w_b: Tensor) -> Tensor:
    """Eq. 11 for one pair, from `similarity` = u_a u_b^T / tau [N, N].

    Row i, column l of `both` is S_ab[i, l] + S_ba[l, i]: anchors of a over b along rows, anchors of b over
    a along columns of the same matrix. Eq. 10 weights it by W_b[i, l], and Eq. 9 by W_a[l, i], the transpose.
    """
    both = -F.log_softmax(similarity, dim=1) - F.log_softmax(similarity, dim=0)
    return ((w_a.T + w_b) * both).sum() / (2 * similarity.shape[0])


def _in_chunks(u: Sequence[Tensor], temperature: float) -> Tensor:
    """Eq. 13 without a matrix [N, N].

    With Z_ab[i] the logarithm of the denominator of row i of Eq. 5 for anchors of a over b, Eq. 9 is

        sum over i, l of W_m[i, l] (Z_om[i] + Z_mo[l] - 2 S[i, l]) / N      S[i, l] = u_o[i] u_m[l] / tau

    for targets of m and the other modality o. Rows of W_m add up to 1, so the sum over l needs only the products of W_m
    with Z_mo and with u_m.
    """
    scaled = [u_m / temperature for u_m in u]
    z: dict[tuple[int, int], Tensor] = {}
    for a, b in itertools.combinations(range(len(u)), 2):
        z[a, b], z[b, a] = chunks.log_normalizers(scaled[a], u[b])
    halves = []
    for m, u_m in enumerate(u):
        others = [o for o in range(len(u)) if o != m]
        means = chunks.attend(scaled[m], u_m, torch.cat([u_m, *(z[m, o][:, None] for o in others)], dim=1))
        direction, *normalizers = means.split([u_m.shape[1], *(1 for _ in others)], dim=1)
        for o, z_mo in zip(others, normalizers, strict=True):
            halves.append((z[o, m] + z_mo.squeeze(1) - 2 * (scaled[o] * direction).sum(1)).mean())
    return torch.stack(halves).sum() / 2
