"""Batches of one modality, from a table in memory, or from pictures and texts as they are needed.

Letters: n samples of a batch, D_m columns, S side of a picture, L tokens of the batch's longest text.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m3col.data.cache import Table
from m3col.models.inputs import Tokens

Input = Tensor | Tokens
Index = Tensor | slice
T = TypeVar("T")
_AHEAD = 2  # batches that wait for the model


class Source(Protocol):
    """N samples of one modality, as the model takes them."""

    def __len__(self) -> int: ...

    def rows(self, index: Index, draws: NDArray[np.float64] | None = None) -> Input:
        """The samples at `index`. `draws` [n, 3]: uniform numbers for augmentation, None for none."""
        ...


class TableSource:
    """Numbers [N, D_m], on the device already."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, index: Index, draws: NDArray[np.float64] | None = None) -> Tensor:
        return self.values[index]


class _Lazy:
    def __init__(self, table: Table, at: NDArray[np.int64], device: torch.device) -> None:
        self._table, self._at, self._device = table, at, device

    def __len__(self) -> int:
        return len(self._at)

    def _positions(self, index: Index) -> NDArray[np.int64]:
        return self._at[index if isinstance(index, slice) else index.cpu().numpy()]


class PictureSource(_Lazy):
    """Pictures as [n, 3, S, S] in [0, 1]: a square cut from the middle or, with draws, from a random place."""

    def __init__(
        self, table: Table, at: NDArray[np.int64], device: torch.device, *, size: int, dtype: torch.dtype, augment: str
    ) -> None:
        super().__init__(table, at, device)
        self._size, self._dtype = size, dtype
        self._crop, self._flip = "crop" in augment, "flip" in augment

    def rows(self, index: Index, draws: NDArray[np.float64] | None = None) -> Tensor:
        positions, size = self._positions(index), self._size
        batch = np.empty((len(positions), size, size, 3), np.uint8)
        for number, position in enumerate(positions):
            picture = self._table[int(position)]
            draw = None if draws is None else draws[number]
            batch[number] = self._square(picture, draw)
        pixels = torch.from_numpy(batch).to(self._device).permute(0, 3, 1, 2)
        return pixels.to(self._dtype) / 255

    def _square(self, picture: NDArray[np.uint8], draw: NDArray[np.float64] | None) -> NDArray[np.uint8]:
        size = self._size
        down, right = picture.shape[0] - size, picture.shape[1] - size
        top, left = down // 2, right // 2
        if draw is not None and self._crop:
            top, left = int(draw[0] * (down + 1)), int(draw[1] * (right + 1))
        square = picture[top : top + size, left : left + size]
        return square[:, ::-1] if draw is not None and self._flip and draw[2] < 0.5 else square


class TokenSource(_Lazy):
    """Texts as tokens, padded on the right to the longest of each batch."""

    def __init__(self, table: Table, at: NDArray[np.int64], device: torch.device, *, pad: int) -> None:
        super().__init__(table, at, device)
        self._pad = pad

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sample [N]."""
        return self._table.lengths()[self._at]

    def rows(self, index: Index, draws: NDArray[np.float64] | None = None) -> Tokens:
        texts = [self._table[int(position)] for position in self._positions(index)]
        longest = max((len(text) for text in texts), default=1)  # a worker may have no text
        ids = np.full((len(texts), longest), self._pad, np.int64)
        mask = np.zeros((len(texts), longest), np.bool_)
        for row, text in enumerate(texts):
            ids[row, : len(text)], mask[row, : len(text)] = text, True
        return Tokens(ids=torch.from_numpy(ids), mask=torch.from_numpy(mask)).to(self._device)


class Changed:
    """Another source whose batches pass through `change(rows, batch)`; `rows` [n]: the positions of the samples."""

    def __init__(self, source: Source, change: Callable[[NDArray[np.int64], Input], Input]) -> None:
        self.source, self._change = source, change

    def __len__(self) -> int:
        return len(self.source)

    def rows(self, index: Index, draws: NDArray[np.float64] | None = None) -> Input:
        positions = np.arange(len(self))[index if isinstance(index, slice) else index.cpu().numpy()]
        return self._change(positions, self.source.rows(index, draws))


def is_lazy(sources: Mapping[str, Source]) -> bool:
    """Whether making a batch takes time, so that it is worth doing ahead and in smaller pieces."""
    return any(_waits(source) for source in sources.values())


def _waits(source: Source) -> bool:
    return _waits(source.source) if isinstance(source, Changed) else isinstance(source, _Lazy)


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items, made by a thread while the consumer works on the one before."""
    iterator = iter(items)
    with ThreadPoolExecutor(1) as thread:
        waiting = [thread.submit(lambda: list(islice(iterator, 1))) for _ in range(_AHEAD)]
        while waiting:
            found = waiting.pop(0).result()
            if not found:
                return
            waiting.append(thread.submit(lambda: list(islice(iterator, 1))))
            yield found[0]


def by_length(
    order: NDArray[np.int64], lengths: NDArray[np.int64], batch: int, draw: np.random.Generator, *, buckets: int = 50
) -> NDArray[np.int64]:
    """A shuffled `order` [N] of samples in which batches hold texts of similar length.

    Buckets of `buckets` batches are cut from the shuffled order and sorted by length, and the batches are shuffled
    again; the last one, which may be smaller, stays last. It changes who is contrasted with whom.
    """
    chunks: list[NDArray[np.int64]] = []
    for start in range(0, len(order), buckets * batch):
        bucket = order[start : start + buckets * batch]
        ranked = bucket[np.argsort(lengths[bucket], kind="stable")]
        chunks += [ranked[at : at + batch] for at in range(0, len(ranked), batch)]
    whole = [chunk for chunk in chunks if len(chunk) == batch]
    rest = [chunk for chunk in chunks if len(chunk) < batch]
    return np.concatenate([*(whole[number] for number in draw.permutation(len(whole))), *rest])
