"""What an encoder of images or texts has to know of its input, and a batch of texts.

Letters: n texts, L tokens of the batch's longest one, E width of the word embeddings, S side of an image.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from m3col.errors import InputError


class MediaSpec(Protocol):
    """What the encoder of a kind of media has to know of its input. `kind`: the entry of that kind."""

    @property
    def kind(self) -> str: ...


@dataclass(frozen=True)
class ImageInput:
    """`size`: S, the side of the square image in pixels."""

    size: int

    kind: ClassVar[str] = "image"


@dataclass(frozen=True)
class TextInput:
    """`vocabulary`: ids lie below it; `pad`: the id that fills up a batch; `max_length`: no text has more tokens."""

    vocabulary: int
    pad: int
    max_length: int

    kind: ClassVar[str] = "text"


@dataclass(frozen=True, eq=False)
class Tokens:
    """n texts, padded on the right. Either `ids` or `embeddings` say what stands at each place.

    ids: [n, L] int64, None once words have been looked up. mask: [n, L] bool, where a token stands. embeddings:
    [n, L, E] word embeddings, possibly mixed. types: [n, L] int64, which of two joined texts a token belongs to; None
    means the first. Raises InputError for shapes that differ.
    """

    ids: Tensor | None
    mask: Tensor
    embeddings: Tensor | None = None
    types: Tensor | None = None

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
        """The texts at `rows`: a slice, positions or a mask."""
        return Tokens(
            ids=None if self.ids is None else self.ids[rows],
            mask=self.mask[rows],
            embeddings=None if self.embeddings is None else self.embeddings[rows],
            types=None if self.types is None else self.types[rows],
        )

    def to(self, device: torch.device | str) -> "Tokens":
        """The same texts on `device`."""
        return Tokens(
            ids=None if self.ids is None else self.ids.to(device),
            mask=self.mask.to(device),
            embeddings=None if self.embeddings is None else self.embeddings.to(device),
            types=None if self.types is None else self.types.to(device),
        )


@dataclass(frozen=True, eq=False)
class Partial:
    """Samples of one modality of which some are absent.

    Attributes:
        rows: as the encoder takes them; an absent sample has a placeholder there.
        present: [n] bool, False where the sample lacks the modality.
    """

    rows: Tensor | Tokens
    present: Tensor

    def __len__(self) -> int:
        return len(self.present)


def one_like(rows: Tensor | Tokens) -> Tensor | Tokens:
    """One row that means nothing, shaped as `rows` (of which there may be none): numbers and pixels 0, one token."""
    if isinstance(rows, Tensor):
        return rows.new_zeros((1, *rows.shape[1:]))
    device = rows.mask.device
    return Tokens(
        torch.zeros((1, 1), dtype=torch.long, device=device), torch.ones((1, 1), dtype=torch.bool, device=device)
    )
