"""Interfaces of all kinds of modality: an input transform fitted on the training fold, and a source of batches."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m3col.augmentation.draws import Draws
from m3col.data.columns import ModalityData
from m3col.data.images.cache import Table
from m3col.inputs.specs import MediaSpec, Partial, Sequences, Tokens

Input = Tensor | Tokens | Sequences | Partial

Index = Tensor | slice


class Source(Protocol):
    """N samples of one modality, in the form of model input."""

    def __len__(self) -> int: ...

    def rows(self, index: Index, draws: Draws | None = None) -> Input:
        """Returns the samples at `index`. `draws`: the random numbers of their augmentation; None: as in evaluation."""
        ...


class LazySource:
    """Base of sources that read each sample from a table of decoded images or tokens when it is needed."""

    def __init__(self, table: Table, at: NDArray[np.int64], device: torch.device) -> None:
        self._table, self._at, self._device = table, at, device

    def __len__(self) -> int:
        return len(self._at)

    def _positions(self, index: Index) -> NDArray[np.int64]:
        return self._at[index if isinstance(index, slice) else index.cpu().numpy()]


Spec = int | MediaSpec

Described = tuple[dict[str, Any], dict[str, NDArray[Any]]]


@dataclass(frozen=True)
class Placement:
    """Where and how batches are made.

    Attributes:
        device: of the batches.
        dtype: of the batches.
        cached: whether decoded images and tokens are cached on disk.
        length_multiple: texts are padded to a multiple of it. More than 1 bounds how many lengths are compiled.
    """

    device: torch.device
    dtype: torch.dtype
    cached: bool = True
    length_multiple: int = 1


class InputTransform(Protocol):
    """Converts one modality to model input; fitted on the training fold.

    Attributes:
        kind: its key in m3col.data.modality_kinds.TABLE.
        spec: what the encoder must know about its input.

    A transform whose samples can be augmented also has the attribute `augment`, the value of `data.<kind>.augment` for
    this modality: "none" or [] where they are not.
    """

    @property
    def kind(self) -> str: ...

    @property
    def spec(self) -> Spec: ...

    def source(self, column: ModalityData, place: Placement) -> Source:
        """Returns the samples of `column` as model input."""
        ...

    def state(self) -> Described:
        """The arguments of `fitting.from_state`: a dict for JSON, and arrays."""
        ...
