"""Input specifications of encoders of images, texts and sequences, and the batch types that encoders receive.

Notation: n samples, L tokens or steps of the longest one of the batch, E width of the word embeddings, F features of a
sequence, S side of an image.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m3col.errors import InputError


class MediaSpec(Protocol):
    """What an image or text encoder must know about its input. `kind`: key in `m3col.data.modality_kinds.TABLE`."""

    @property
    def kind(self) -> str: ...


@dataclass(frozen=True)
class ImageInput:
    """Input of an image encoder. `size`: S, the side of the square image in pixels."""

    size: int

    kind: ClassVar[str] = "image"


@dataclass(frozen=True)
class TextInput:
    """Input of a text encoder.

    Attributes:
        vocabulary: all token ids are smaller.
        pad: the padding token id.
        max_length: maximal number of tokens of a text.
    """

    vocabulary: int
    pad: int
    max_length: int

    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class SequenceInput:
    """Input of an encoder of sequences. `features`: F, the number of features at each step."""

    features: int

    kind: ClassVar[str] = "sequence"


@dataclass(frozen=True, eq=False)
class Tokens:
    """n texts as tokens, padded on the right. At least one of `ids` and `embeddings` is set.

    Attributes:
        ids: [n, L] int64; None after the embedding lookup.
        mask: [n, L] bool, False for padding.
        embeddings: [n, L, E] word embeddings, possibly mixed (Mixup).
        types: [n, L] int64, which of two joined texts a token belongs to; None: the first.
        lengths: [n] upper bounds of the numbers of tokens, in the CPU's memory; None: unknown.
        mixed_lengths: [n] the same for the mixture of each text with its partner, see `with_partners`.
        padded: whether a text is shorter than L; None: only the mask says so, which a GPU would have to be asked for.

    Raises:
        InputError: neither is set, or shapes differ.
    """

    ids: Tensor | None
    mask: Tensor
    embeddings: Tensor | None = None
    types: Tensor | None = None
    lengths: NDArray[np.int64] | None = None
    mixed_lengths: NDArray[np.int64] | None = None
    padded: bool | None = None

    def __post_init__(self) -> None:
        if self.ids is None and self.embeddings is None:
            raise InputError(["tokens must have ids or embeddings, but have neither"])
        faults = [
            f"{name} of tokens must begin with shape {list(self.mask.shape)}, but got {list(value.shape)}"
            for name, value in (("ids", self.ids), ("embeddings", self.embeddings), ("types", self.types))
            if value is not None and value.shape[:2] != self.mask.shape
        ]
        if faults:
            raise InputError(faults)

    def __len__(self) -> int:
        return len(self.mask)

    def __getitem__(self, rows: slice | Tensor) -> "Tokens":
        """Returns the texts at `rows`: a slice, positions or a mask."""
        return Tokens(
            ids=None if self.ids is None else self.ids[rows],
            mask=self.mask[rows],
            embeddings=None if self.embeddings is None else self.embeddings[rows],
            types=None if self.types is None else self.types[rows],
            padded=None if self.padded else self.padded,
        )

    def to(self, device: torch.device | str) -> "Tokens":
        """Returns the same texts on `device`."""
        return Tokens(
            ids=None if self.ids is None else self.ids.to(device),
            mask=self.mask.to(device),
            embeddings=None if self.embeddings is None else self.embeddings.to(device),
            types=None if self.types is None else self.types.to(device),
            lengths=self.lengths,
            mixed_lengths=self.mixed_lengths,
            padded=self.padded,
        )

    def shortened(self, length: int) -> "Tokens":
        """Returns the texts without the positions from `length` on, which must be padding."""
        ids, embeddings, types = (
            None if value is None else value[:, :length] for value in (self.ids, self.embeddings, self.types)
        )
        return replace(self, ids=ids, mask=self.mask[:, :length], embeddings=embeddings, types=types)


@dataclass(frozen=True, eq=False)
class Sequences:
    """n sequences, padded behind.

    Attributes:
        values: [n, L, F], 0 for padding; possibly mixed (Mixup).
        mask: [n, L] bool, False for padding.

    Raises:
        InputError: the shapes differ.
    """

    values: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or self.values.shape[:2] != self.mask.shape:
            shapes = f"values {list(self.values.shape)} and the mask {list(self.mask.shape)}"
            raise InputError([f"sequences must have values [n, L, F] and a mask [n, L], but have {shapes}"])

    def __len__(self) -> int:
        return len(self.mask)

    def __getitem__(self, rows: slice | Tensor) -> "Sequences":
        """Returns the sequences at `rows`: a slice, positions or a mask."""
        return Sequences(self.values[rows], self.mask[rows])

    def to(self, device: torch.device | str) -> "Sequences":
        """Returns the same sequences on `device`."""
        return Sequences(self.values.to(device), self.mask.to(device))


@dataclass(frozen=True, eq=False)
class Partial:
    """A batch of one modality that some of its samples lack.

    Attributes:
        rows: n samples as encoder input, with placeholders for samples that lack the modality.
        present: [n] bool, False if the sample lacks the modality.
    """

    rows: Tensor | Tokens | Sequences
    present: Tensor

    def __len__(self) -> int:
        return len(self.present)

    def to(self, device: torch.device | str) -> "Partial":
        """Returns the same batch on `device`."""
        return Partial(self.rows.to(device), self.present.to(device))


def present_of(inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """By modality whether each of n samples [n] has it. Modalities that no sample lacks are left out.

    Args:
        inputs: n samples by modality.
    """
    return {name: rows.present for name, rows in inputs.items() if isinstance(rows, Partial)}


def one_like(rows: Tensor | Tokens | Sequences) -> Tensor | Tokens | Sequences:
    """One dummy row with the shape of `rows` (which may be empty): zeros for numbers and pixels, else one token or
    step."""
    if isinstance(rows, Tensor):
        return rows.new_zeros((1, *rows.shape[1:]))
    device = rows.mask.device
    if isinstance(rows, Sequences):
        step = rows.values.new_zeros((1, 1, rows.values.shape[2]))
        return Sequences(step, torch.ones((1, 1), dtype=torch.bool, device=device))
    ids, mask = torch.zeros((1, 1), dtype=torch.long, device=device), torch.ones(1, 1, dtype=torch.bool, device=device)
    return Tokens(ids, mask, padded=False)


def with_partners(rows: Tensor | Tokens | Sequences | Partial, partner: NDArray[np.int64]) -> Any:
    """The same batch; texts with `mixed_lengths`, if their lengths are known.

    Args:
        rows: n samples.
        partner: [n] position of the sample with which each one will be mixed.
    """
    if isinstance(rows, Partial):
        return replace(rows, rows=with_partners(rows.rows, partner))
    if not isinstance(rows, Tokens) or rows.lengths is None:
        return rows
    return replace(rows, mixed_lengths=np.maximum(rows.lengths, rows.lengths[partner]))
