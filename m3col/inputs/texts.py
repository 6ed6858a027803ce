"""Texts as model input: the fitted tokenizer, and batches of tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from m3col.config.schema import RunConfig
from m3col.data.columns import MediaColumn, ModalityData
from m3col.data.dataset import Split
from m3col.data.images import cache
from m3col.data.images.cache import Table
from m3col.inputs.base import Described, Index, LazySource, Placement
from m3col.inputs.specs import TextInput, Tokens

if TYPE_CHECKING:
    from m3col.inputs.tokenization import TextPreparation


class TokenSource(LazySource):
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


@dataclass(frozen=True)
class TextTransform:
    """A tokeniser with its limit of tokens."""

    prepared: "TextPreparation"

    kind: ClassVar[str] = "text"

    @property
    def spec(self) -> TextInput:
        return TextInput(self.prepared.vocabulary, self.prepared.pad, self.prepared.max_length)

    def source(self, column: ModalityData, place: Placement) -> TokenSource:
        assert isinstance(column, MediaColumn)
        table = cache.encoded(
            column, self.prepared.encode, settings=self.prepared.digest, cached=place.cached
        )  # fmt: skip
        return TokenSource(table, column.at, place.device, pad=self.prepared.pad)

    def state(self) -> Described:
        return {"kind": self.kind, **self.prepared.state()}, {}


def fit(config: RunConfig, modality: str, train: Split, features: Sequence[str]) -> TextTransform:
    """The encoder's tokenizer, or one whose vocabulary is learnt on the training fold. Raises InputError."""
    from m3col.inputs import tokenization  # a library that tables need not wait for

    column = train.inputs[modality]
    assert isinstance(column, MediaColumn)
    return TextTransform(tokenization.fit(list(column.values), config.data.text, config.model.text))


def restore(described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> TextTransform:
    """The transform that a checkpoint describes. Raises InputError."""
    from m3col.inputs.tokenization import TextPreparation

    return TextTransform(TextPreparation.from_state(described))
