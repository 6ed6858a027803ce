"""SupCon: each row looks for all other rows of its label.

Letters: R rows, D embedding width, T temperature; z_r row r, y_r its label, P(r) the other rows with label y_r.
Paper: Khosla et al., "Supervised Contrastive Learning", arXiv 2004.11362, Eq. 2.

    supcon = mean over r of  -1/|P(r)| sum_{p in P(r)} [ z_r.z_p / T - log sum_{q != r} exp(z_r.z_q / T) ]

A sample gives one row per view, so the views of one sample are in P of each other. FactorCL's row "SupCon" takes the
two modalities as views, each through a head of its own, not normalised, T = 0.5. The supervised CoMM takes the fused
embedding of two augmentations, normalised, without the projector, T = 0.07.
Differs: a row without another row of its label, for which the paper's division is undefined, counts 0 and stays in the
mean, as in the published code of both.
"""

from torch import Tensor

from m3col.errors import InputError
from m3col.losses import chunks
from m3col.losses.common import full_precision, shape_faults, temperature_faults, unit_rows, working_dtype


def supcon_loss(rows: Tensor, labels: Tensor, *, temperature: float, normalize: bool = False) -> Tensor:
    """The scalar SupCon loss, averaged over rows.

    Above 8,192 rows it works in blocks of them and stores no [R, R] matrix (`m3col.losses.chunks`).

    Args:
        rows: embeddings [R, D] of all views: `torch.cat([first, second])`.
        labels: [R] whole numbers, the label of each row: `labels.repeat(2)` for two views.
        temperature: T, finite and > 0; 0.5 in FactorCL, 0.07 in CoMM.
        normalize: whether each row is divided by its length; default False: rows count as they are, as in FactorCL.

    Returns:
        A scalar of the dtype of `rows`; float16 and bfloat16 are computed, and returned, in float32. It is 0 where no
        label
        is shared.

    Raises:
        InputError: (a ValueError) with one line for every fault of the arguments: shapes, dtypes, temperature.

    Example:
        >>> import torch
        >>> from m3col.losses import supcon_loss
        >>> rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> labels = torch.tensor([0, 0, 1])
        >>> print(round(supcon_loss(rows, labels, temperature=1.0).item(), 4))  # two times log(1 + 1 / e), over 3
        0.2088
    """
    faults = shape_faults({"rows": rows}) + _label_faults(rows, labels) + temperature_faults(temperature)
    if faults:
        raise InputError(faults)
    dtype = working_dtype([rows])
    with full_precision(rows):
        z = unit_rows(rows, dtype) if normalize else rows.to(dtype)

        def losses_of(start: int, part: Tensor, part_labels: Tensor) -> Tensor:
            similarity = part @ z.T
            itself = chunks.diagonal(start, len(part), z)
            positive = (part_labels[:, None] == labels) & ~itself
            log_p = similarity - chunks.without(itself, similarity).logsumexp(1, keepdim=True)
            return -log_p.masked_fill(~positive, 0).sum(1) / positive.sum(1).clamp(min=1)

        return chunks.by_blocks(losses_of, z / temperature, labels).mean()


def _label_faults(rows: Tensor, labels: Tensor) -> list[str]:
    faults = []
    if labels.is_floating_point() or labels.is_complex():
        faults.append(f"labels must have an integer dtype, but got {labels.dtype}")
    if rows.ndim == 2 and list(labels.shape) != [len(rows)]:
        faults.append(f"labels must have shape [{len(rows)}], but got {list(labels.shape)}")
    return faults
