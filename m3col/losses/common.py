"""Shared parts of the contrastive losses: validation of arguments, the dtype of the computation, unit rows.

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
    """Validates a list of embeddings.

    Args:
        name: name of the argument, for messages.
        tensors: one embedding [N, D] per modality.

    Returns:
        One line per fault: fewer than two modalities, a shape other than [N, D], unequal shapes, N = 0, or a dtype that
        is not floating.
    """
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
    """Validates a temperature, which must be a finite number above 0. A bool is not a number here.

    Args:
        temperature: any value.

    Returns:
        One line that names the fault; an empty list for a valid temperature.
    """
    is_number = isinstance(temperature, numbers.Real) and not isinstance(temperature, bool)
    if is_number and math.isfinite(temperature) and temperature > 0:  # type: ignore[arg-type,operator]
        return []
    return [f"temperature must be a finite number > 0, but got {temperature!r}"]


def working_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    """The dtype of the computation: the widest dtype among `tensors`, and at least float32.

    Sums of exponentials are too inexact in 16 bits.

    Args:
        tensors: floating tensors of any shape.

    Returns:
        float32 or float64.
    """
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context without autocast, so that matrix products are not computed in 16 bits.

    Args:
        tensor: a tensor on the device of the computation.

    Returns:
        The context manager.
    """
    return torch.autocast(tensor.device.type, enabled=False)


def unit_rows(embedding: Tensor, dtype: torch.dtype) -> Tensor:
    """Divides each row by its L2 norm.

    Args:
        embedding: rows [N, D] of any floating dtype.
        dtype: dtype of the result.

    Returns:
        Rows [N, D] of length 1 in `dtype`. A row of zeros stays zero and has gradient 0.
    """
    embedding = embedding.to(dtype)
    norm = torch.linalg.vector_norm(embedding, dim=1, keepdim=True)
    unit: Tensor = embedding / norm.masked_fill(norm == 0, math.inf)
    return unit
