"""What both contrastive losses need: the judgement of their arguments, the working precision, unit rows.

Letters: N samples in the batch, M modalities, D embedding width.
Paper: Kumar et al., "Harnessing Shared Relations via Multimodal Mixup Contrastive Learning for Multimodal
Classification", arXiv 2409.17777; every embedding in Eq. 5-13 is L2-normalised.
Differs: an embedding of length 0, for which the paper's division is undefined, stays 0 and gets no gradient.
"""

import math
import numbers
from collections.abc import Sequence

import torch
from torch import Tensor


def embedding_faults(name: str, tensors: Sequence[Tensor]) -> list[str]:
    """Faults of the argument `name`: fewer than two modalities, not [N, D], not floating, unequal, N = 0."""
    if len(tensors) < 2:
        return [f"{name} must hold at least two modalities, but got {len(tensors)}"]
    first = list(tensors[0].shape)
    faults = []
    for m, tensor in enumerate(tensors):
        if not tensor.is_floating_point():
            faults.append(f"{name}[{m}] must have a floating dtype, but got {tensor.dtype}")
        if tensor.ndim != 2:
            faults.append(f"{name}[{m}] must have shape [N, D], but got {list(tensor.shape)}")
        elif list(tensor.shape) != first:
            faults.append(f"{name}[{m}] must have the shape of {name}[0], {first}, but got {list(tensor.shape)}")
    if len(first) == 2 and first[0] == 0:
        faults.append(f"{name} must hold at least one sample, but got N = 0")
    return faults


def temperature_faults(temperature: object) -> list[str]:
    """Faults of a temperature: it must be a finite number above 0 (a bool is none)."""
    is_number = isinstance(temperature, numbers.Real) and not isinstance(temperature, bool)
    if is_number and math.isfinite(temperature) and temperature > 0:  # type: ignore[arg-type,operator]
        return []
    return [f"temperature must be a finite number > 0, but got {temperature!r}"]


def working_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    """The widest dtype among `tensors`, and at least float32: sums of exponentials are poor in 16 bits."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context in which autocast does not lower the matrix products on the device of `tensor`."""
    return torch.autocast(tensor.device.type, enabled=False)


def unit_rows(embedding: Tensor, dtype: torch.dtype) -> Tensor:
    """[N, D] in `dtype`, each row divided by its L2 norm; a row of zeros stays so, with gradient 0."""
    embedding = embedding.to(dtype)
    norm = torch.linalg.vector_norm(embedding, dim=1, keepdim=True)
    unit: Tensor = embedding / norm.masked_fill(norm == 0, math.inf)
    return unit
