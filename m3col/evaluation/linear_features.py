"""What a linear model sees of each modality: the free baselines' view of numbers, images and texts.

Numbers come preprocessed as for training; texts as TF-IDF; images as frozen embeddings where the config names trained
weights, else as small squares of pixels. What is fitted is fitted on the training part.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import nn

from m3col.config.schema import RunConfig
from m3col.data import modality_kinds
from m3col.data.columns import Kind, MediaColumn, kind_of
from m3col.data.dataset import Split
from m3col.data.preprocessing import Pipeline
from m3col.devices import device_of
from m3col.inputs import fitting, tables
from m3col.inputs.base import Placement, Source
from m3col.inputs.images import ImageTransform
from m3col.models import build

_WORDS = 5000  # the most frequent ones

_SIDE = 16  # pixels

_BATCH = 64


Matrix = NDArray[Any] | sparse.csr_matrix

Pair = tuple[Matrix, Matrix]


class Views:
    """The modalities of one data set as a linear model sees them. Every image is read, and every image or text
    embedded, once for all folds and rows of a table. `features`: as of the data set."""

    def __init__(self, config: RunConfig, features: Mapping[str, Sequence[str]]) -> None:
        self.config, self.features = config, features
        self._made: dict[tuple[str, bool], _Made] = {}

    def of(self, name: str, train: Split, apply: Split, *, frozen: bool = False) -> Pair:
        """One modality of `train` [N, D] and of `apply` [N', D]. `frozen`: texts as embeddings as well, where their
        encoder begins with trained weights; those are the encoder's own, before any training and any projection."""
        assert train.labels is not None
        pair: Pair = modality_kinds.of(kind_of(train.inputs[name])).call("linear", self, name, train, apply, frozen)
        return pair

    def remembered(self, name: str, train: Split, apply: Split, *, embedded: bool) -> Pair:
        """Media as embeddings of their encoder, or as pixels; each record is computed once."""
        first, second = train.inputs[name], apply.inputs[name]
        assert isinstance(first, MediaColumn) and isinstance(second, MediaColumn)
        if (name, embedded) not in self._made:
            make = _encoding(train.select([name]), self.config, self.features[name]) if embedded else _pixels
            self._made[name, embedded] = _Made(partial(make, cached=self.config.data.cache))
        made = self._made[name, embedded]
        return made.of(first), made.of(second)


def of_table(views: Views, name: str, train: Split, apply: Split, frozen: bool) -> Pair:
    """A numeric table, preprocessed as for training."""
    assert train.labels is not None
    kinds = {other: kind_of(column) for other, column in train.inputs.items()}
    steps = tables.numeric_steps(views.config, kinds)[name]
    x_train, x_apply = np.asarray(train.inputs[name]), np.asarray(apply.inputs[name])
    pipeline = Pipeline.fit(x_train, train.labels, steps, feature_names=views.features[name])
    return pipeline.transform(x_train), pipeline.transform(x_apply)


def of_images(views: Views, name: str, train: Split, apply: Split, frozen: bool) -> Pair:
    """Images as frozen embeddings where the config names trained weights, else as small squares of pixels."""
    return views.remembered(name, train, apply, embedded=views.config.model.image.pretrained)


def of_texts(views: Views, name: str, train: Split, apply: Split, frozen: bool) -> Pair:
    """Texts as TF-IDF, or as frozen embeddings where these are asked for and the config names trained weights."""
    if frozen and views.config.model.text.pretrained:
        return views.remembered(name, train, apply, embedded=True)
    first, second = train.inputs[name], apply.inputs[name]
    assert isinstance(first, MediaColumn) and isinstance(second, MediaColumn)
    return _tfidf(first, second)


def frozen_differs(config: RunConfig, kinds: Iterable[Kind]) -> bool:
    """Whether `frozen` shows something else: images with a trained encoder are embedded in any case."""
    return config.model.text.pretrained and "text" in kinds


def beside(parts: Sequence[Matrix]) -> Matrix:
    """The columns of all parts; sparse where one of them is."""
    if any(sparse.issparse(part) for part in parts):
        columns: Any = parts
        return sparse.csr_matrix(sparse.hstack(columns, format="csr"))
    return np.concatenate([np.asarray(part) for part in parts], axis=1)


class _Made:
    """Rows [D] of records, each made once: they follow from its content alone."""

    def __init__(self, make: Callable[[MediaColumn], NDArray[np.float32]]) -> None:
        self._make = make
        self._places: dict[Any, int] = {}
        self._rows: NDArray[np.float32] | None = None

    def of(self, records: MediaColumn) -> NDArray[np.float32]:
        fresh = {value: row for row, value in enumerate(records.values) if value not in self._places}
        if fresh or self._rows is None:
            made = self._make(records[np.array([*fresh.values()], dtype=np.int64)])
            self._rows = made if self._rows is None else np.concatenate([self._rows, made])
            self._places |= {value: len(self._places) + number for number, value in enumerate(fresh)}
        return self._rows[[self._places[value] for value in records.values]]


def _tfidf(train: MediaColumn, apply: MediaColumn) -> Pair:
    from sklearn.feature_extraction.text import TfidfVectorizer  # slow to import

    vectorizer = TfidfVectorizer(max_features=_WORDS, sublinear_tf=True)
    tokens = vectorizer.build_analyzer()
    if not any(tokens(text) for text in train.values):  # emoji, single letters: nothing that it takes for a word
        vectorizer.set_params(analyzer="char")
    return vectorizer.fit_transform(train.values), vectorizer.transform(apply.values)


def _pixels(records: MediaColumn, *, cached: bool) -> NDArray[np.float32]:
    place = Placement(torch.device("cpu"), torch.float32, cached=cached)
    return _batches(ImageTransform(_SIDE, "none").source(records, place), lambda batch: batch.flatten(1))


def _encoding(train: Split, config: RunConfig, features: Sequence[str]) -> Callable[..., NDArray[np.float32]]:
    """Makes embeddings by the encoder of the one modality of `train`, which has trained weights. Its tokeniser came
    with it, so that nothing of this follows from `train`."""
    (prepared,) = fitting.fit(config, train, dict.fromkeys(train.inputs, features)).values()
    # The driver of a cluster may lack the GPU that its workers have.
    device = device_of(config) if torch.cuda.is_available() else torch.device("cpu")
    encoder: Any = build.build_encoder(prepared.spec, config.model)
    encoder.projection = nn.Identity()  # it is random, and would follow the seed
    encoder.eval().to(device)

    def embed(records: MediaColumn, *, cached: bool) -> NDArray[np.float32]:
        return _batches(prepared.source(records, Placement(device, torch.float32, cached=cached)), encoder)

    return embed


def _batches(source: Source, apply: Callable[[Any], torch.Tensor]) -> NDArray[np.float32]:
    with torch.inference_mode():
        found = [
            apply(source.rows(slice(start, start + _BATCH))).float().cpu().numpy()
            for start in range(0, max(len(source), 1), _BATCH)
        ]
    return np.concatenate(found)
