"""A modality replaced by Gaussian noise with the mean and standard deviation of the training split.

Letters: N samples, D_m columns after preprocessing, L tokens of a text, E width of its word embeddings.
Paper: Kumar et al., arXiv 2409.17777, section 4.2 ("Testing on Random Data and Single-Corrupt Modalities").
Differs: the paper replaces what the text encoder puts out; here noise stands in place of the word embeddings of each
  token and passes through the encoder, so that every modality is spoilt at its input. Texts keep their lengths.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m3col import randomness
from m3col.analysis.context import AnalysisContext
from m3col.data.columns import ModalityData
from m3col.inputs.base import Input, Source
from m3col.inputs.batches import Changed
from m3col.inputs.specs import Partial, Tokens
from m3col.predictor import Member

_BATCH = 64


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation, each of a shape that fits a sample: [D_m] of a table, [3, 1, 1] of images in
    [0, 1], [E] of word embeddings."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]


@dataclass(frozen=True)
class Draw:
    """Keys the noise of each sample: it depends neither on batches nor on which member it is for."""

    seed: int
    repeat: int

    def normal(self, modality: str, row: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Standard normal numbers for one sample."""
        purpose = f"analysis/noise/{modality}"
        key = randomness.generator(seed=self.seed, fold=0, epoch=self.repeat, step=row, purpose=purpose)
        return key.standard_normal(shape)


def difference(case: AnalysisContext) -> str:
    """What the paper does otherwise, for the page."""
    texts = (
        " The paper puts noise in place of what the text encoder gives; here it stands in place of the word embeddings "
        "and passes through the encoder, so that the numbers for texts are not comparable."
    )
    compared = " In the paper several models are compared; this page is about one."
    return compared + (texts if case.modality("text") is not None else "")


def moments(member: Member, inputs: Mapping[str, ModalityData]) -> dict[str, Moments]:
    """Of each modality of training samples as the model takes them: per column, per colour, and over the word
    embeddings of all their tokens (a word counts as often as it occurs, padding does not)."""
    kept = {name: _Sums() for name in inputs}
    counts = dict[str, NDArray[np.int64]]()
    for name, source in member.sources(inputs).items():
        for start in range(0, len(source), _BATCH):
            batch = source.rows(slice(start, start + _BATCH))
            assert not isinstance(batch, Partial), "a predictor has all modalities"
            if isinstance(batch, Tokens):
                assert batch.ids is not None
                some = np.bincount(batch.ids[batch.mask].numpy())
                counts[name] = _added(counts.get(name, np.zeros(0, np.int64)), some)
            else:
                values = batch.double().numpy()
                kept[name].add(values if values.ndim == 2 else values.transpose(0, 2, 3, 1).reshape(-1, 3))
    found = {name: sums.moments() for name, sums in kept.items() if sums.count}
    images = [name for name, value in inputs.items() if getattr(value, "kind", "") == "image"]
    found |= {name: Moments(found[name].mean.reshape(3, 1, 1), found[name].std.reshape(3, 1, 1)) for name in images}
    return {name: found[name] if name in found else _of_words(member, name, counts[name]) for name in inputs}


class _Sums:
    """Count, sum and sum of squares of rows [n, D]; moved by the first row, so that differences lose little."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, rows: NDArray[np.float64]) -> None:
        if not self.count:
            self._base = rows[0].copy()
            self._sum, self._squares = np.zeros_like(self._base), np.zeros_like(self._base)
        moved = rows - self._base
        self.count += len(rows)
        self._sum += moved.sum(axis=0)
        self._squares += (moved**2).sum(axis=0)

    def moments(self) -> Moments:
        mean = self._sum / self.count
        return Moments(self._base + mean, np.sqrt(np.maximum(self._squares / self.count - mean**2, 0)))


def _added(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    total = np.zeros(max(len(a), len(b)), np.int64)
    total[: len(a)] += a
    total[: len(b)] += b
    return total


def _of_words(member: Member, modality: str, counts: NDArray[np.int64]) -> Moments:
    used = np.flatnonzero(counts)
    weight = counts[used] / counts.sum()
    vectors = _words(member, modality, torch.from_numpy(used)[None]).double().numpy()[0]
    mean = weight @ vectors
    return Moments(mean, np.sqrt(weight @ (vectors - mean) ** 2))


def _words(member: Member, modality: str, ids: Tensor) -> Tensor:
    """Word embeddings [n, L, E]."""
    encoder: Any = member.method.encoders[modality]
    with torch.inference_mode():
        found: Tensor = encoder.embed(Tokens(ids, torch.ones_like(ids, dtype=torch.bool))).embeddings
    return found


def replaced(source: Source, modality: str, found: Moments, draw: Draw, dtype: torch.dtype) -> Source:
    """A source in which every sample is noise: row r is mean + std * draw.normal(r). `dtype`: of the model."""

    def change(rows: NDArray[np.int64], batch: Input) -> Input:
        assert not isinstance(batch, Partial), "a predictor has all modalities"
        if isinstance(batch, Tokens):
            return _noisy_texts(rows, batch, modality, found, draw, dtype)
        shape = tuple(batch.shape[1:])
        noise = np.stack([found.mean + found.std * draw.normal(modality, int(row), shape) for row in rows])
        return torch.as_tensor(noise, dtype=dtype)

    return Changed(source, change)


def _noisy_texts(
    rows: NDArray[np.int64], batch: Tokens, modality: str, found: Moments, draw: Draw, dtype: torch.dtype
) -> Tokens:
    lengths = batch.mask.sum(dim=1).tolist()
    width = found.mean.shape[-1]
    noise = np.zeros((*batch.mask.shape, width))
    for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        noise[place, :length] = found.mean + found.std * draw.normal(modality, int(row), (length, width))
    return Tokens(None, batch.mask, torch.as_tensor(noise, dtype=dtype), batch.types)
