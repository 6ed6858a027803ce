"""What a modality of N samples holds: a table of numbers [N, D_m], or N pictures or texts that are read when needed.

Records refer to all pictures or texts of their data set by position. So a fold, a split and their concatenation share
one cache of decoded pictures or of tokens, see m3col.data.cache.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from m3col.data.missing import MARKS

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
ObjectArray = NDArray[np.object_]
Kind = Literal["numeric", "image", "text"]


@dataclass(frozen=True, eq=False)
class Records:
    """`source`: every picture (absolute path, or the bytes of a file) or text of the data set; `at` [N]: positions in
    it, one per sample."""

    kind: Literal["image", "text"]
    source: ObjectArray
    at: IntArray

    @classmethod
    def of(cls, kind: Literal["image", "text"], values: Any) -> "Records":
        """One record per value, with nothing else in the source."""
        source = np.empty(len(values), dtype=object)
        source[:] = list(values)
        return cls(kind, source, np.arange(len(source)))

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, at: Any) -> "Records":
        return Records(self.kind, self.source, self.at[at])

    @property
    def values(self) -> ObjectArray:
        """[N] paths, bytes or texts."""
        return self.source[self.at]


Column = FloatArray | Records
WORDS = {"image": "paths or contents (bytes) of pictures", "text": "texts"}  # what records are given as, for messages


def text_fault(text: object) -> str:
    """Why this cannot be the text of a sample; "" where it can."""
    if not isinstance(text, str):
        return f"must be one of the {WORDS['text']}, but is {text!r:.60}"
    if not text.strip():
        return "is an empty text"
    if text.strip() in MARKS:
        return f"is {text.strip()!r}, which stands for a missing text"
    return "" if encodable(text) else "holds half a surrogate pair"


def picture_fault(picture: object) -> str:
    """Why this cannot name or hold a picture; "" where it can. No file is looked at."""
    if isinstance(picture, str) and picture.strip() in MARKS:
        return f"is {picture.strip()!r}, which stands for a missing picture"
    good = isinstance(picture, str | bytes)
    return "" if good else f"must be one of the {WORDS['image']}, but is {picture!r:.60}"


def encodable(text: str) -> bool:
    """Whether the text can be written as UTF-8: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def kind_of(column: Column) -> Kind:
    return column.kind if isinstance(column, Records) else "numeric"


def join(a: Column, b: Column) -> Column:
    """The rows of `a`, then those of `b`."""
    if isinstance(a, Records) and isinstance(b, Records):
        if a.source is b.source:
            return Records(a.kind, a.source, np.concatenate([a.at, b.at]))
        return Records(a.kind, np.concatenate([a.source, b.source]), np.concatenate([a.at, b.at + len(a.source)]))
    if isinstance(a, Records) or isinstance(b, Records):
        raise ValueError(f"a modality must be of one kind, but got {kind_of(a)} and {kind_of(b)}")
    return np.concatenate([a, b])


def feed(sha: "hashlib._Hash", name: str, column: Column) -> None:
    """Adds a modality's name and content to a hash; the same on every machine, wherever its files lie."""
    if isinstance(column, Records):
        from m3col.data.cache import content_digests

        sha.update(json.dumps([name, column.kind, content_digests(column)]).encode())
        return
    canonical = np.where(np.isnan(column), np.nan, column).astype("<f8")  # one bit pattern for every NaN
    sha.update(json.dumps([name, list(column.shape)]).encode())
    sha.update(np.ascontiguousarray(canonical).tobytes())
