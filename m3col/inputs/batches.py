"""Batches of one modality, from a table in memory, or from images and texts as they are needed.

Letters: n samples of a batch, D_m columns, S side of an image, L tokens of the batch's longest text.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from m3col.inputs.base import Index, Input, LazySource, Source
from m3col.inputs.specs import Partial

T = TypeVar("T")

_AHEAD = 2  # batches that wait for the model


class Changed:
    """Another source whose batches pass through `change(rows, batch)`; `rows` [n]: the positions of the samples."""

    def __init__(self, source: Source, change: Callable[[NDArray[np.int64], Input], Input]) -> None:
        self.source, self._change = source, change

    def __len__(self) -> int:
        return len(self.source)

    def rows(self, index: Index, draws: NDArray[np.float64] | None = None) -> Input:
        positions = np.arange(len(self))[index if isinstance(index, slice) else index.cpu().numpy()]
        return self._change(positions, self.source.rows(index, draws))


class PartialSource:
    """Another source of which some samples are absent; its batches say which."""

    def __init__(self, source: Source, present: Tensor) -> None:
        self.source, self._present = source, present

    def __len__(self) -> int:
        return len(self.source)

    def rows(self, index: Index, draws: NDArray[np.float64] | None = None) -> Input:
        rows = self.source.rows(index, draws)
        assert not isinstance(rows, Partial)
        return Partial(rows, self._present[index])


def is_lazy(sources: Mapping[str, Source]) -> bool:
    """Whether making a batch takes time, so that it is worth doing ahead and in smaller pieces."""
    return any(_waits(source) for source in sources.values())


def _waits(source: Source) -> bool:
    if isinstance(source, Changed | PartialSource):
        return _waits(source.source)
    return isinstance(source, LazySource)


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
