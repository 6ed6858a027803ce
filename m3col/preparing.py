"""What is fitted to the training part of each modality: preprocessing steps, a tokeniser, the cut of a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from m3col.config import RunConfig
from m3col.data import cache, columns
from m3col.data import values as ranges
from m3col.data.columns import Column, Kind, Records
from m3col.data.dataset import Split
from m3col.data.preprocess import Pipeline, resolve
from m3col.faults import BadInput
from m3col.models.inputs import ImageInput, TextInput
from m3col.sources import PictureSource, Source, TableSource, TokenSource

if TYPE_CHECKING:
    from m3col.data.tokens import TextPreparation

Spec = int | ImageInput | TextInput
Described = tuple[dict[str, Any], dict[str, NDArray[Any]]]


@dataclass(frozen=True)
class Placement:
    """Where batches lie, and whether decoded pictures and tokens are kept on disk."""

    device: torch.device
    dtype: torch.dtype
    cached: bool = True


class Preparation(Protocol):
    """`spec`: what the encoder has to know of its input."""

    @property
    def spec(self) -> Spec: ...

    def source(self, column: Column, place: Placement) -> Source:
        """Samples as the model takes them."""
        ...

    def state(self) -> Described:
        """What `from_state` needs: a dict for JSON, and arrays."""
        ...


@dataclass(frozen=True, eq=False)
class Numbers:
    """Preprocessing steps of a numeric modality."""

    pipeline: Pipeline

    @property
    def spec(self) -> int:
        return len(self.pipeline.feature_names)

    def source(self, column: Column, place: Placement) -> TableSource:
        assert not isinstance(column, Records)
        # In one memory layout: the order of sums, hence the last bits, would follow that of the caller's table.
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.ascontiguousarray(self.pipeline.transform(column))
        precision = "float64" if place.dtype == torch.float64 else "float32"
        # A value far outside of the training part may overflow once it is scaled.
        wrong = ranges.faults(values, "after preprocessing", self.pipeline.feature_names, precision=precision)
        if wrong:
            raise BadInput(wrong)
        return TableSource(torch.as_tensor(values, dtype=place.dtype, device=place.device))

    def state(self) -> Described:
        return self.pipeline.state()


@dataclass(frozen=True)
class Pictures:
    """Pictures decoded at 8/7 of `size` (224 of 256), then cut to a square of that side."""

    size: int
    augment: str

    @property
    def spec(self) -> ImageInput:
        return ImageInput(self.size)

    @property
    def short_side(self) -> int:
        return round(self.size * 8 / 7)

    def source(self, column: Column, place: Placement) -> PictureSource:
        assert isinstance(column, Records)
        table = cache.decoded(column, self.short_side, cached=place.cached)
        return PictureSource(
            table, column.at, place.device, size=self.size, dtype=place.dtype, augment=self.augment
        )  # fmt: skip

    def state(self) -> Described:
        return {"kind": "image", "size": self.size, "augment": self.augment}, {}


@dataclass(frozen=True)
class Texts:
    """A tokeniser with its limit of tokens."""

    prepared: "TextPreparation"

    @property
    def spec(self) -> TextInput:
        return TextInput(self.prepared.vocabulary, self.prepared.pad, self.prepared.max_length)

    def source(self, column: Column, place: Placement) -> TokenSource:
        assert isinstance(column, Records)
        table = cache.encoded(
            column, self.prepared.encode, settings=self.prepared.digest, cached=place.cached
        )  # fmt: skip
        return TokenSource(table, column.at, place.device, pad=self.prepared.pad)

    def state(self) -> Described:
        return {"kind": "text", **self.prepared.state()}, {}


def numeric_steps(config: RunConfig, kinds: Mapping[str, Kind]) -> dict[str, list[Any]]:
    """The preprocessing steps of each numeric modality. Raises BadInput."""
    numeric = [name for name, kind in kinds.items() if kind == "numeric"]
    return resolve(config.data.preprocess, numeric) if numeric else {}


def fit(config: RunConfig, train: Split, features: Mapping[str, Sequence[str]]) -> dict[str, Preparation]:
    """Fits every modality to the training part `train`. Raises BadInput."""
    assert train.labels is not None
    kinds = {name: columns.kind_of(train.inputs[name]) for name in features}
    steps = numeric_steps(config, kinds)
    found: dict[str, Preparation] = {}
    for name in features:
        column = train.inputs[name]
        if not isinstance(column, Records):
            found[name] = Numbers(
                Pipeline.fit(column, train.labels, steps[name], feature_names=features[name])
            )  # fmt: skip
        elif column.kind == "image":
            found[name] = Pictures(config.data.image.size, config.data.image.augment)
        else:
            from m3col.data import tokens  # a library that tables need not wait for

            found[name] = Texts(tokens.fit(list(column.values), config.data.text, config.model.text))
    return found


def source_of(modality: str, preparation: Preparation, column: Column, place: Placement) -> Source:
    """Samples of a modality as the model takes them. Raises BadInput that names the modality."""
    try:
        return preparation.source(column, place)
    except BadInput as error:
        raise BadInput([f"modality {modality!r}, {line}" for line in error.faults]) from None


def kind_of(preparation: Preparation) -> Kind:
    if isinstance(preparation, Numbers):
        return "numeric"
    return "image" if isinstance(preparation, Pictures) else "text"


def from_state(described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Preparation:
    """The preparation that `state` described. Raises BadInput where something is missing or of the wrong type."""
    kind = described.get("kind", "numeric")
    if kind == "numeric":
        return Numbers(Pipeline.from_state(described, arrays))
    if kind == "text":
        from m3col.data.tokens import TextPreparation

        return Texts(TextPreparation.from_state(described))
    if kind != "image" or not isinstance(described.get("size"), int) or described["size"] < 1:
        raise BadInput([f"stored preprocessing: must be of a picture with its size, but is {dict(described)!r}"])
    return Pictures(described["size"], str(described.get("augment", "none")))
