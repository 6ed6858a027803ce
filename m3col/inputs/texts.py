"""Texts as model input: the fitted tokenizer, and batches of tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from m3col import devices
from m3col.augmentation import registry
from m3col.augmentation.draws import Draws
from m3col.config.schema import RunConfig
from m3col.data.columns import MediaColumn, ModalityData
from m3col.data.dataset import Split
from m3col.data.images import cache
from m3col.data.images.cache import Table
from m3col.inputs.base import Described, Index, LazySource, Placement
from m3col.inputs.specs import TextInput, Tokens

if TYPE_CHECKING:
    from m3col.inputs.tokenization import TextPreparation


Augment = Callable[[list[NDArray[np.int32]], Draws], list[NDArray[np.int32]]]


class TokenSource(LazySource):
    """Texts as tokens. Each batch is padded on the right to its longest text.

    Args:
        table: the tokens of each text.
        at: [N] positions of the samples in the table.
        device: of the batches.
        pad: the token of padding.
        multiple: lengths are rounded up to a multiple of it, but not beyond `longest`.
        longest: the largest number of tokens of a text.
        augment: changes the tokens of a batch of texts with random numbers; None: nothing is augmented.
    """

    def __init__(
        self, table: Table, at: NDArray[np.int64], device: torch.device, *, pad: int, multiple: int = 1,
        longest: int | None = None, augment: "Augment | None" = None,
    ) -> None:  # fmt: skip
        super().__init__(table, at, device)
        self._augment = augment
        self._pad, self._multiple, self._longest = pad, multiple, longest

    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens of each sample [N]."""
        return self._table.lengths()[self._at]

    def rows(self, index: Index, draws: Draws | None = None) -> Tokens:
        texts = [self._table[int(position)] for position in self._positions(index)]
        if draws is not None and self._augment is not None:
            texts = self._augment(texts, draws)
        longest = max((len(text) for text in texts), default=1)  # the batch of a rank may be empty
        rounded = -(-longest // self._multiple) * self._multiple
        longest = max(longest, rounded if self._longest is None else min(rounded, self._longest))
        ids = np.full((len(texts), longest), self._pad, np.int64)
        mask = np.zeros((len(texts), longest), np.bool_)
        for row, text in enumerate(texts):
            ids[row, : len(text)], mask[row, : len(text)] = text, True
        placed = [devices.moved(torch.from_numpy(array), self._device) for array in (ids, mask)]
        lengths = np.array([len(text) for text in texts], np.int64)
        return Tokens(placed[0], placed[1], lengths=lengths, padded=not mask.all())


def by_length(
    order: NDArray[np.int64], lengths: NDArray[np.int64], batch: int, draw: np.random.Generator, *, buckets: int = 50
) -> NDArray[np.int64]:
    """Reorders shuffled samples so that the texts of each batch have similar lengths.

    Buckets of `buckets` batches are cut from the shuffled order and sorted by length. Then the batches are shuffled; a
    smaller last batch stays last. This changes which samples are contrasted with each other in a contrastive loss.

    Args:
        order: [N] shuffled positions of the samples.
        lengths: [N] number of tokens of each sample, by position.
        batch: samples per batch.
        draw: random numbers.
        buckets: batches per bucket.

    Returns:
        [N] positions in the new order.
    """
    chunks: list[NDArray[np.int64]] = []
    for start in range(0, len(order), buckets * batch):
        bucket = order[start : start + buckets * batch]
        by_size = bucket[np.argsort(lengths[bucket], kind="stable")]
        chunks += [by_size[offset : offset + batch] for offset in range(0, len(by_size), batch)]
    complete = [chunk for chunk in chunks if len(chunk) == batch]
    incomplete = [chunk for chunk in chunks if len(chunk) < batch]
    return np.concatenate([*(complete[number] for number in draw.permutation(len(complete))), *incomplete])


@dataclass(frozen=True)
class TextTransform:
    """The input transform of a text modality: a tokenizer with a maximal number of tokens.

    Attributes:
        prepared: the tokenizer.
        augment: how training texts are augmented, a name or a list (m3col.augmentation.registry).
    """

    prepared: "TextPreparation"
    augment: Any = "none"

    kind: ClassVar[str] = "text"

    @property
    def spec(self) -> TextInput:
        return TextInput(self.prepared.vocabulary, self.prepared.pad, self.prepared.max_length)

    def source(self, column: ModalityData, place: Placement) -> TokenSource:
        assert isinstance(column, MediaColumn)
        table = cache.encoded(column, self.prepared.encode, settings=self.prepared.digest, cached=place.cached)
        return TokenSource(
            table, column.at, place.device, pad=self.prepared.pad, multiple=place.length_multiple,
            longest=self.prepared.max_length, augment=self._augment(),
        )  # fmt: skip

    def _augment(self) -> Augment | None:
        """Applies the configured augmentations to tokens; None where there are none."""
        steps = registry.parse(self.augment, kind=self.kind)
        if not steps:
            return None
        token, kept = self.prepared.mask_token, self.prepared.ends
        assert token is not None, "the tokenizer was checked before"

        def change(texts: list[NDArray[np.int32]], draws: Draws) -> list[NDArray[np.int32]]:
            for chosen in steps:
                texts = chosen.augmentation.apply(texts, chosen.settings, draws, token=token, kept=kept)
            return texts

        return change

    def state(self) -> Described:
        return {"kind": self.kind, **self.prepared.state()}, {}


def fit(config: RunConfig, modality: str, train: Split, features: Sequence[str]) -> TextTransform:
    """Loads the tokenizer of the encoder, or learns a vocabulary on the training fold. Raises InputError."""
    from m3col.inputs import tokenization  # imported late: not needed for numeric tables

    column = train.inputs[modality]
    assert isinstance(column, MediaColumn)
    prepared = tokenization.fit(list(column.values), config.data.text, config.model.text)
    return TextTransform(prepared, registry.of_modality(config.data.text.augment, modality))


def restore(described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> TextTransform:
    """Restores the transform of a checkpoint. Raises InputError."""
    from m3col.inputs.tokenization import TextPreparation

    return TextTransform(TextPreparation.from_state(described))
