"""What a linear model sees of each modality: the free baselines' view of numbers, pictures and texts.

Numbers come preprocessed as for training; texts as TF-IDF; pictures as frozen embeddings where the config names trained
weights, else as small squares of pixels. Everything is fitted on the training part.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from m3col import models, preparing
from m3col.config import RunConfig
from m3col.data.columns import Kind, Records, kind_of
from m3col.data.dataset import Split
from m3col.data.preprocess import Pipeline
from m3col.preparing import Pictures, Placement, Preparation
from m3col.sources import Source

_WORDS = 5000  # the most frequent ones; a dense table of them fits into memory for tens of thousands of texts
_SIDE = 16  # pixels
_BATCH = 64

Pair = tuple[NDArray[np.float64], NDArray[np.float64]]


def view(
    name: str, train: Split, apply: Split, config: RunConfig, features: Mapping[str, Sequence[str]], *,
    frozen: bool = False,
) -> Pair:  # fmt: skip
    """One modality of `train` [N, D] and of `apply` [N', D]. `frozen`: embeddings of the encoder that the config names,
    before any training, also for texts."""
    assert train.labels is not None
    first, second = train.inputs[name], apply.inputs[name]
    if not isinstance(first, Records) or not isinstance(second, Records):
        kinds = {other: kind_of(column) for other, column in train.inputs.items()}
        steps = preparing.numeric_steps(config, kinds)[name]
        pipeline = Pipeline.fit(np.asarray(first), train.labels, steps, feature_names=features[name])
        return pipeline.transform(np.asarray(first)), pipeline.transform(np.asarray(second))
    if frozen or (first.kind == "image" and config.model.image.pretrained):
        (prepared,) = preparing.fit(config, train.select([name]), {name: features[name]}).values()
        return _embedded(prepared, first, config), _embedded(prepared, second, config)
    return _tfidf(first, second) if first.kind == "text" else (_pixels(first, config), _pixels(second, config))


def has_trained_weights(config: RunConfig, kinds: Iterable[Kind]) -> bool:
    """Whether an encoder of one of these kinds begins with trained weights, so that its embeddings say something."""
    found = {"image": config.model.image.pretrained, "text": config.model.text.pretrained}
    return any(found.get(kind, False) for kind in kinds)


def _tfidf(train: Records, apply: Records) -> Pair:
    vectorizer = TfidfVectorizer(max_features=_WORDS, sublinear_tf=True)
    first = vectorizer.fit_transform(train.values)
    return first.toarray(), vectorizer.transform(apply.values).toarray()


def _pixels(records: Records, config: RunConfig) -> NDArray[np.float64]:
    place = Placement(torch.device("cpu"), torch.float64, cached=config.data.cache)
    source = Pictures(_SIDE, "none").source(records, place)
    return _batches(source, lambda batch: batch.flatten(1))


def _embedded(prepared: Preparation, records: Records, config: RunConfig) -> NDArray[np.float64]:
    torch.manual_seed(config.train.seed)
    encoder = models.build_encoder(prepared.spec, config.model).eval()
    place = Placement(torch.device("cpu"), torch.float32, cached=config.data.cache)
    return _batches(prepared.source(records, place), encoder)


def _batches(source: Source, apply: Callable[[Any], torch.Tensor]) -> NDArray[np.float64]:
    with torch.inference_mode():
        found = [
            apply(source.rows(slice(start, start + _BATCH))).double().numpy()
            for start in range(0, max(len(source), 1), _BATCH)
        ]
    return np.concatenate(found)
