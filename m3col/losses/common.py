"""Shared parts of the losses: validation of arguments, the dtype of the computation, unit rows.

Letters: N samples in the batch, M modalities, D embedding width.
Paper: Kumar et al., "Harnessing Shared Relations via Multimodal Mixup Contrastive Learning for Multimodal
Classification", arXiv 2409.17777; every embedding in Eq. 5-13 is L2-normalised.
Differs: an embedding of length 0, for which the paper's division is undefined, stays 0 and gets no gradient.
"""

import math
import numbers
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def embedding_faults(name: str, tensors: Sequence[Tensor], *, at_least: int = 2) -> list[str]:
    """Validates a list of embeddings.

    Args:
        name: name of the argument, for messages.
        tensors: one embedding [N, D] per modality.
        at_least: the smallest number of them, default 2.

    Returns:
        One line per fault: too few modalities, a shape other than [N, D], unequal shapes, N = 0, or a dtype that is not
        floating.
    """
    if len(tensors) < at_least:
        parts = "two modalities" if at_least == 2 else f"{at_least} tensors"
        return [f"{name} must hold at least {parts}, but got {len(tensors)}"]
    return shape_faults({f"{name}[{m}]": tensor for m, tensor in enumerate(tensors)}, of=name)


def shape_faults(named: Mapping[str, Tensor], *, of: str | None = None) -> list[str]:
    """Validates embeddings that must have one shape.

    Args:
        named: embeddings [N, D] by name of their argument.
        of: name of the argument that holds all of them; None (default): the first one's.

    Returns:
        One line per fault: a shape other than [N, D], unequal shapes, N = 0, or a dtype that is not floating.
    """
    (reference, tensor), *_ = named.items()
    first = list(tensor.shape)
    faults = []
    for name, tensor in named.items():
        if not tensor.is_floating_point():
            faults.append(f"{name} must have a floating dtype, but got {tensor.dtype}")
        if tensor.ndim != 2:
            faults.append(f"{name} must have shape [N, D], but got {list(tensor.shape)}")
        elif list(tensor.shape) != first:
            faults.append(f"{name} must have the shape of {reference}, {first}, but got {list(tensor.shape)}")
    if len(first) == 2 and first[0] == 0:
        faults.append(f"{of or reference} must hold at least one sample, but got N = 0")
    return faults


def second_list_faults(
    name: str, tensors: Sequence[Tensor], reference: str, first: Sequence[Tensor], *, per: str = "modality"
) -> list[str]:
    """Validates embeddings that must match those of another, valid argument.

    Args:
        name: name of the argument, for messages.
        tensors: one embedding per modality.
        reference: name of the other argument.
        first: the embeddings of the other argument.
        per: what one tensor stands for, default `modality`.

    Returns:
        One line per fault: another number of tensors, another shape than `first[0]`, or a dtype that is not floating.
    """
    faults, shape = [], list(first[0].shape)
    if len(tensors) != len(first):
        rule = f"one tensor per {per} of {reference} ({len(first)})"
        faults.append(f"{name} must hold {rule}, but got {len(tensors)}")
    for m, tensor in enumerate(tensors):
        if list(tensor.shape) != shape:
            faults.append(f"{name}[{m}] must have the shape of {reference}[0], {shape}, but got {[*tensor.shape]}")
        if not tensor.is_floating_point():
            faults.append(f"{name}[{m}] must have a floating dtype, but got {tensor.dtype}")
    return faults


def temperature_faults(temperature: object) -> list[str]:
    """Validates a temperature, which must be a finite number above 0. A bool is not a number here.

    Args:
        temperature: any value.

    Returns:
        One line that names the fault; an empty list for a valid temperature.
    """
    if is_positive(temperature):
        return []
    return [f"temperature must be a finite number > 0, but got {temperature!r}"]


def is_positive(value: object) -> bool:
    """Whether a value is a finite number above 0. A bool is not a number here.

    Args:
        value: any value.

    Returns:
        True for such a number.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0  # type: ignore[arg-type,operator]


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
