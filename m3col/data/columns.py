"""The data of one modality for N samples: a numeric table [N, D_m], N sequences, or N images or texts that are read
when needed.

A `MediaColumn` refers to the images or texts of the whole data set by position. Folds, splits and their concatenation
thus share one cache of decoded images or tokens, see m3col.data.images.cache.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3col.data import modality_kinds
from m3col.data.formats.missing_marks import MARKS
from m3col.data.sequences.column import SequenceColumn

FloatArray = NDArray[np.float64]

IntArray = NDArray[np.int64]

ObjectArray = NDArray[np.object_]

Kind = str  # a name of m3col.data.modality_kinds.TABLE


@dataclass(frozen=True, eq=False)
class MediaColumn:
    """N images or texts.

    Attributes:
        kind: image or text.
        source: all images (absolute path, or content of the file as bytes) or texts of the data set.
        at: [N] position of each sample's image or text in `source`.
    """

    kind: Kind
    source: ObjectArray
    at: IntArray

    @classmethod
    def of(cls, kind: Kind, values: Any) -> "MediaColumn":
        """Builds a column whose source is exactly `values`."""
        source = np.empty(len(values), dtype=object)
        source[:] = list(values)
        return cls(kind, source, np.arange(len(source)))

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, at: Any) -> "MediaColumn":
        return MediaColumn(self.kind, self.source, self.at[at])

    @property
    def values(self) -> ObjectArray:
        """[N] paths, bytes or texts."""
        return self.source[self.at]


ModalityData = FloatArray | MediaColumn | SequenceColumn


def text_fault(text: object) -> str:
    """Why `text` cannot be the text of a sample; "" if it can."""
    if not isinstance(text, str):
        return f"must be one of the {modality_kinds.of('text').given_as}, but is {text!r:.60}"
    if not text.strip():
        return "is an empty text"
    if text.strip() in MARKS:
        return f"is {text.strip()!r}, which stands for a missing text"
    return "" if encodable(text) else "holds half a surrogate pair"


def text_faults(values: Sequence[object]) -> dict[int, str]:
    """The fault of each unusable text, by position."""
    return {row: fault for row, value in enumerate(values) if (fault := text_fault(value))}


def text_digests(values: Sequence[str]) -> list[str]:
    """SHA-256 of each text."""
    return [hashlib.sha256(text.encode()).hexdigest() for text in values]


def image_fault(image: object) -> str:
    """Why `image` is neither a path nor the bytes of a file; "" if it is one. No file is read."""
    if isinstance(image, str) and image.strip() in MARKS:
        return f"is {image.strip()!r}, which stands for a missing image"
    good = isinstance(image, str | bytes)
    return "" if good else f"must be one of the {modality_kinds.of('image').given_as}, but is {image!r:.60}"


def encodable(text: str) -> bool:
    """Whether the text can be encoded as UTF-8: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def kind_of(column: ModalityData) -> Kind:
    return modality_kinds.NUMERIC if isinstance(column, np.ndarray) else column.kind


def join(a: ModalityData, b: ModalityData) -> ModalityData:
    """Concatenates the rows of two columns of the same kind."""
    if isinstance(a, MediaColumn) and isinstance(b, MediaColumn):
        if a.source is b.source:
            return MediaColumn(a.kind, a.source, np.concatenate([a.at, b.at]))
        return MediaColumn(a.kind, np.concatenate([a.source, b.source]), np.concatenate([a.at, b.at + len(a.source)]))
    if isinstance(a, SequenceColumn) and isinstance(b, SequenceColumn):
        return a.joined(b)
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)):
        raise ValueError(f"a modality must be of one kind, but got {kind_of(a)} and {kind_of(b)}")
    return np.concatenate([a, b])
