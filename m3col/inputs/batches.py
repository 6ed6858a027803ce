"""Wrappers of batch sources, and a thread that prepares batches in advance. n: number of samples of a batch."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m3col import devices
from m3col.augmentation.draws import Draws
from m3col.inputs.base import Index, Input, LazySource, Source
from m3col.inputs.specs import Partial

T = TypeVar("T")

_AHEAD = 2  # batches prepared in advance


class Changed:
    """Wraps a source; applies `change(rows, batch)` to each batch. `rows` [n]: positions of its samples."""

    def __init__(self, source: Source, change: Callable[[NDArray[np.int64], Input], Input]) -> None:
        self.source, self._change = source, change

    def __len__(self) -> int:
        return len(self.source)

    def rows(self, index: Index, draws: Draws | None = None) -> Input:
        positions = np.arange(len(self))[index if isinstance(index, slice) else index.cpu().numpy()]
        return self._change(positions, self.source.rows(index, draws))


class PartialSource:
    """Wraps a source of a modality that some samples lack. Its batches are `Partial`.

    Args:
        source: the source, with placeholders.
        present: [N] bool on the CPU, False for a placeholder.
        device: of the batches.
    """

    def __init__(self, source: Source, present: Tensor, device: torch.device) -> None:
        self.source, self._present, self._placed, self._device = source, present, present.to(device), device

    def __len__(self) -> int:
        return len(self.source)

    def rows(self, index: Index, draws: Draws | None = None) -> Input:
        rows = self.source.rows(index, draws)
        assert not isinstance(rows, Partial)
        if isinstance(index, slice) or index.device == self._placed.device:
            return Partial(rows, self._placed[index])
        return Partial(rows, devices.moved(self._present[index], self._device))  # a GPU would wait for the positions


class AugmentedSource:
    """Wraps a source; its samples are augmented as in training.

    Args:
        source: the source.
        key: seed, fold, epoch and step of the random numbers.
        modality: name of the modality.
        view: name of the view; views of a sample have different random numbers.
    """

    def __init__(self, source: Source, key: Mapping[str, int], modality: str, view: str) -> None:
        self.source, self._key, self._modality, self._view = source, key, modality, view

    def __len__(self) -> int:
        return len(self.source)

    def rows(self, index: Index, draws: Draws | None = None) -> Input:
        assert isinstance(index, slice) and draws is None
        return self.source.rows(index, Draws(self._key, self._modality, self._view, len(self), index))


def is_lazy(sources: Mapping[str, Source]) -> bool:
    """Whether preparing a batch is slow, so that it should be done in advance and in smaller pieces."""
    return any(_is_lazy_source(source) for source in sources.values())


def _is_lazy_source(source: Source) -> bool:
    if isinstance(source, AugmentedSource | Changed | PartialSource):
        return _is_lazy_source(source.source)
    return isinstance(source, LazySource)


def ahead(items: Iterable[T], device: torch.device | None = None) -> Iterator[T]:
    """Yields the same items, prepared by a thread while the consumer processes earlier ones.

    Args:
        items: what to prepare.
        device: where batches are placed. A new thread would open a context on GPU 0, whatever GPU its process uses.
    """
    iterator = iter(items)
    set_up = None
    if device is not None and device.type == "cuda":
        number = torch.cuda.current_device() if device.index is None else device.index
        set_up = partial(torch.cuda.set_device, number)
    with ThreadPoolExecutor(1, initializer=set_up) as thread:
        pending = [thread.submit(lambda: list(islice(iterator, 1))) for _ in range(_AHEAD)]
        while pending:
            item_or_end = pending.pop(0).result()  # a list of one item; empty at the end
            if not item_or_end:
                return
            pending.append(thread.submit(lambda: list(islice(iterator, 1))))
            yield item_or_end[0]
