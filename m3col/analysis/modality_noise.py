"""A modality replaced by Gaussian noise with the mean and standard deviation of the training split.

Letters: N samples, D_m columns after preprocessing, L tokens of a text, E width of its word embeddings.
Paper: Kumar et al., arXiv 2409.17777, section 4.2 ("Testing on Random Data and Single-Corrupt Modalities").
Differs: the paper replaces the output of the text encoder. Here noise replaces the word embedding of each token and
  passes through the encoder, so that every modality is corrupted at its input. Texts keep their lengths.
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
from m3col.ensemble_member import Member
from m3col.inputs.base import Input, Source
from m3col.inputs.batches import Changed
from m3col.inputs.specs import Partial, Sequences, Tokens

_BATCH = 64


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of a modality, in a shape that broadcasts to one sample.

    The shape is [D_m] for a numeric table, [3, 1, 1] for images with values in [0, 1], [E] for word embeddings, [F] for
    the steps of sequences.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]


@dataclass(frozen=True)
class Draw:
    """Random stream of the noise. The noise of a sample depends neither on the batch nor on the ensemble member."""

    seed: int
    repeat: int

    def normal(self, modality: str, row: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Standard normal values for one sample, the one at position `row`."""
        purpose = f"analysis/noise/{modality}"
        key = randomness.generator(seed=self.seed, fold=0, epoch=self.repeat, step=row, purpose=purpose)
        return key.standard_normal(shape)


def difference(case: AnalysisContext) -> str:
    """Sentences for the page that say how this analysis differs from the paper."""
    texts = (
        " The paper replaces the output of the text encoder by noise; here noise is put in place of the word "
        "embeddings and passes through the encoder, so that the numbers for texts are not comparable."
    )
    compared = " In the paper several models are compared; this page is about one."
    return compared + (texts if case.modality("text") is not None else "")


def moments(member: Member, inputs: Mapping[str, ModalityData]) -> dict[str, Moments]:
    """Mean and standard deviation of each modality of training samples, after their preprocessing.

    They are computed per column of a numeric table, per colour channel of images, and per dimension of the word
    embeddings of texts, over all tokens without padding, and per feature of sequences, over all their steps.
    """
    sums_of = {name: _Sums() for name in inputs}
    counts = dict[str, NDArray[np.int64]]()
    for name, source in member.sources(inputs).items():
        for start in range(0, len(source), _BATCH):
            batch = source.rows(slice(start, start + _BATCH))
            assert not isinstance(batch, Partial), "a predictor has all modalities"
            if isinstance(batch, Tokens):
                assert batch.ids is not None
                batch_counts = np.bincount(batch.ids[batch.mask].numpy())
                counts[name] = _sum_padded(counts.get(name, np.zeros(0, np.int64)), batch_counts)
            elif isinstance(batch, Sequences):
                sums_of[name].add(batch.values[batch.mask].double().numpy())
            else:
                values = batch.double().numpy()
                sums_of[name].add(values if values.ndim == 2 else values.transpose(0, 2, 3, 1).reshape(-1, 3))
    by_modality = {name: sums.moments() for name, sums in sums_of.items() if sums.count}
    images = [name for name, value in inputs.items() if getattr(value, "kind", "") == "image"]
    by_modality |= {
        name: Moments(by_modality[name].mean.reshape(3, 1, 1), by_modality[name].std.reshape(3, 1, 1))
        for name in images
    }
    return {
        name: by_modality[name] if name in by_modality else _word_moments(member, name, counts[name]) for name in inputs
    }


class _Sums:
    """Running count, sum and sum of squares of rows [n, D], relative to the first row for numerical accuracy."""

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


def _sum_padded(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    total = np.zeros(max(len(a), len(b)), np.int64)
    total[: len(a)] += a
    total[: len(b)] += b
    return total


def _word_moments(member: Member, modality: str, counts: NDArray[np.int64]) -> Moments:
    used = np.flatnonzero(counts)
    weight = counts[used] / counts.sum()
    vectors = _word_embeddings(member, modality, torch.from_numpy(used)[None]).double().numpy()[0]
    mean = weight @ vectors
    return Moments(mean, np.sqrt(weight @ (vectors - mean) ** 2))


def _word_embeddings(member: Member, modality: str, ids: Tensor) -> Tensor:
    """Word embeddings [n, L, E]."""
    encoder: Any = member.method.encoders[modality]
    with torch.inference_mode():
        tokens = Tokens(ids, torch.ones_like(ids, dtype=torch.bool)).to(member.device)
        vectors: Tensor = encoder.embed(tokens).embeddings.cpu()
    return vectors


def replaced(source: Source, modality: str, statistics: Moments, draw: Draw, dtype: torch.dtype) -> Source:
    """A source with noise in place of every sample: row r is mean + std * draw.normal(r), in `dtype` of the model."""

    def change(rows: NDArray[np.int64], batch: Input) -> Input:
        assert not isinstance(batch, Partial), "a predictor has all modalities"
        if isinstance(batch, Tokens):
            noise = _noisy_steps(rows, batch.mask, modality, statistics, draw)
            return Tokens(None, batch.mask, torch.as_tensor(noise, dtype=dtype), batch.types)
        if isinstance(batch, Sequences):
            noise = _noisy_steps(rows, batch.mask, modality, statistics, draw)
            return Sequences(torch.as_tensor(noise, dtype=dtype), batch.mask)
        shape = tuple(batch.shape[1:])
        noise = np.stack([statistics.mean + statistics.std * draw.normal(modality, int(row), shape) for row in rows])
        return torch.as_tensor(noise, dtype=dtype)

    return Changed(source, change)


def _noisy_steps(
    rows: NDArray[np.int64], mask: Tensor, modality: str, statistics: Moments, draw: Draw
) -> NDArray[np.float64]:
    """Noise [n, L, E] in place of tokens or steps; 0 for padding. `mask`: [n, L]."""
    lengths = mask.sum(dim=1).tolist()
    width = statistics.mean.shape[-1]
    noise = np.zeros((*mask.shape, width))
    for position, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        noise[position, :length] = statistics.mean + statistics.std * draw.normal(modality, int(row), (length, width))
    return noise
