"""Features of each modality for the linear baselines.

Numeric tables are preprocessed as for training. Texts become TF-IDF features. Images become frozen embeddings where the
config names pretrained weights, else small squares of pixels. Sequences become the mean, the standard deviation and the
last value of each feature. Everything is fitted on the training fold only.
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
from m3col.data.columns import Kind, MediaColumn, ModalityData, kind_of
from m3col.data.dataset import Split
from m3col.data.preprocessing import Pipeline
from m3col.data.sequences.column import SequenceColumn
from m3col.devices import device_of
from m3col.inputs import fitting, sequences, tables
from m3col.inputs.base import Placement, Source
from m3col.inputs.images import ImageTransform
from m3col.models import build

_WORDS = 5000  # the most frequent ones

_SIDE = 16  # pixels

_BATCH = 64


Matrix = NDArray[Any] | sparse.csr_matrix

Pair = tuple[Matrix, Matrix]


class Views:
    """Linear features of one data set.

    Each image is read once, and each image or text is embedded once, for all folds and rows of a table. `features` are
    those of the data set.
    """

    def __init__(self, config: RunConfig, features: Mapping[str, Sequence[str]]) -> None:
        self.config, self.features = config, features
        self._caches: dict[tuple[str, bool], _RowCache] = {}

    def of(self, name: str, train: Split, apply: Split, *, frozen: bool = False) -> Pair:
        """Features of one modality of `train` [N, D] and of `apply` [N', D].

        `frozen`: also use embeddings for texts, where their encoder has pretrained weights. The embeddings are those of
        the pretrained encoder, without training and without projection.
        """
        assert train.labels is not None
        pair: Pair = modality_kinds.of(kind_of(train.inputs[name])).call("linear", self, name, train, apply, frozen)
        return pair

    def cached_rows(self, name: str, train: Split, apply: Split, *, embedded: bool) -> Pair:
        """Embeddings or pixels of images or texts; each record is computed once."""
        first, second = train.inputs[name], apply.inputs[name]
        assert isinstance(first, MediaColumn) and isinstance(second, MediaColumn)
        if (name, embedded) not in self._caches:
            compute = _encoding(train.select([name]), self.config, self.features[name]) if embedded else _pixels
            self._caches[name, embedded] = _RowCache(partial(compute, cached=self.config.data.cache))
        cache = self._caches[name, embedded]
        return cache.of(first), cache.of(second)


def of_table(views: Views, name: str, train: Split, apply: Split, frozen: bool) -> Pair:
    """Features of a numeric table, preprocessed as for training."""
    assert train.labels is not None
    kinds = {other: kind_of(column) for other, column in train.inputs.items()}
    steps = tables.numeric_steps(views.config, kinds)[name]
    x_train, x_apply = np.asarray(train.inputs[name]), np.asarray(apply.inputs[name])
    pipeline = Pipeline.fit(x_train, train.labels, steps, feature_names=views.features[name])
    return pipeline.transform(x_train), pipeline.transform(x_apply)


def of_images(views: Views, name: str, train: Split, apply: Split, frozen: bool) -> Pair:
    """Frozen embeddings of images where the config names pretrained weights, else small squares of pixels."""
    return views.cached_rows(name, train, apply, embedded=views.config.model.image.pretrained)


def of_texts(views: Views, name: str, train: Split, apply: Split, frozen: bool) -> Pair:
    """TF-IDF features of texts; with `frozen` and pretrained weights in the config, frozen embeddings."""
    if frozen and views.config.model.text.pretrained:
        return views.cached_rows(name, train, apply, embedded=True)
    first, second = train.inputs[name], apply.inputs[name]
    assert isinstance(first, MediaColumn) and isinstance(second, MediaColumn)
    return _tfidf(first, second)


def of_sequences(views: Views, name: str, train: Split, apply: Split, frozen: bool) -> Pair:
    """Features [N, 3 F] of sequences, prepared as for training: mean and standard deviation over the steps of each
    feature, and its value at the last step."""
    transform = sequences.fit(views.config, name, train, views.features[name])
    return _over_time(transform, train.inputs[name]), _over_time(transform, apply.inputs[name])


def _over_time(transform: sequences.SequenceTransform, column: ModalityData) -> NDArray[np.float64]:
    assert isinstance(column, SequenceColumn)
    prepared = transform.transform(column)
    steps, starts = prepared.table.astype(np.float64), prepared.starts
    lengths = prepared.lengths[:, None]
    means = np.add.reduceat(steps, starts) / lengths
    centred = steps - np.repeat(means, prepared.lengths, axis=0)
    deviations = np.sqrt(np.add.reduceat(centred**2, starts) / lengths)
    return np.concatenate([means, deviations, steps[starts + prepared.lengths - 1]], axis=1)


def frozen_differs(config: RunConfig, kinds: Iterable[Kind]) -> bool:
    """Whether `frozen` changes the features. It affects texts only: images are embedded in any case."""
    return config.model.text.pretrained and "text" in kinds


def concatenate(parts: Sequence[Matrix]) -> Matrix:
    """Concatenates the columns of all parts; sparse where any part is sparse."""
    if any(sparse.issparse(part) for part in parts):
        columns: Any = parts
        return sparse.csr_matrix(sparse.hstack(columns, format="csr"))
    return np.concatenate([np.asarray(part) for part in parts], axis=1)


class _RowCache:
    """Cache of feature rows [D] by record. A row depends on the content of its record alone."""

    def __init__(self, compute: Callable[[MediaColumn], NDArray[np.float32]]) -> None:
        self._compute = compute
        self._positions: dict[Any, int] = {}
        self._rows: NDArray[np.float32] | None = None

    def of(self, records: MediaColumn) -> NDArray[np.float32]:
        missing = {value: row for row, value in enumerate(records.values) if value not in self._positions}
        if missing or self._rows is None:
            computed = self._compute(records[np.array([*missing.values()], dtype=np.int64)])
            self._rows = computed if self._rows is None else np.concatenate([self._rows, computed])
            self._positions |= {value: len(self._positions) + number for number, value in enumerate(missing)}
        return self._rows[[self._positions[value] for value in records.values]]


def _tfidf(train: MediaColumn, apply: MediaColumn) -> Pair:
    from sklearn.feature_extraction.text import TfidfVectorizer  # slow to import

    vectorizer = TfidfVectorizer(max_features=_WORDS, sublinear_tf=True)
    tokens = vectorizer.build_analyzer()
    # Emoji and single letters are no words for the vectorizer: use characters where no text has a word.
    if not any(tokens(text) for text in train.values):
        vectorizer.set_params(analyzer="char")
    return vectorizer.fit_transform(train.values), vectorizer.transform(apply.values)


def _pixels(records: MediaColumn, *, cached: bool) -> NDArray[np.float32]:
    placement = Placement(torch.device("cpu"), torch.float32, cached=cached)
    return _batches(ImageTransform(_SIDE, "none").source(records, placement), lambda batch: batch.flatten(1))


def _encoding(train: Split, config: RunConfig, features: Sequence[str]) -> Callable[..., NDArray[np.float32]]:
    """A function that embeds records with the pretrained encoder of the only modality of `train`.

    The tokenizer belongs to the pretrained weights, so that nothing is fitted on `train`.
    """
    (prepared,) = fitting.fit(config, train, dict.fromkeys(train.inputs, features)).values()
    # The driver of a cluster may have no GPU although the workers have.
    device = device_of(config) if torch.cuda.is_available() else torch.device("cpu")
    encoder: Any = build.build_encoder(prepared.spec, config.model)
    encoder.projection = nn.Identity()  # its weights are random and depend on the seed
    encoder.eval().to(device)

    def embed(records: MediaColumn, *, cached: bool) -> NDArray[np.float32]:
        return _batches(prepared.source(records, Placement(device, torch.float32, cached=cached)), encoder)

    return embed


def _batches(source: Source, apply: Callable[[Any], torch.Tensor]) -> NDArray[np.float32]:
    with torch.inference_mode():
        batches = [
            apply(source.rows(slice(start, start + _BATCH))).float().cpu().numpy()
            for start in range(0, max(len(source), 1), _BATCH)
        ]
    return np.concatenate(batches)
