"""What is fitted to the training part of each modality: preprocessing steps, a tokeniser, the cut of a picture."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from m3col.config.schema import RunConfig
from m3col.data import columns
from m3col.data.columns import Kind, MediaColumn, ModalityData
from m3col.data.dataset import Split
from m3col.data.preprocessing import Pipeline
from m3col.errors import InputError
from m3col.inputs.base import InputTransform, Placement, Source
from m3col.inputs.images import ImageTransform
from m3col.inputs.tables import NumericTransform, numeric_steps
from m3col.inputs.texts import TextTransform


def fit(config: RunConfig, train: Split, features: Mapping[str, Sequence[str]]) -> dict[str, InputTransform]:
    """Fits every modality to the training part `train`. Raises InputError."""
    kinds = {name: columns.kind_of(train.inputs[name]) for name in features}
    steps = numeric_steps(config, kinds)
    found: dict[str, InputTransform] = {}
    for name in features:
        column = train.inputs[name]
        if not isinstance(column, MediaColumn):
            found[name] = NumericTransform(
                Pipeline.fit(column, train.labels, steps[name], feature_names=features[name])
            )  # fmt: skip
        elif column.kind == "image":
            found[name] = ImageTransform(config.data.image.size, config.data.image.augment)
        else:
            from m3col.inputs import tokenization  # a library that tables need not wait for

            found[name] = TextTransform(tokenization.fit(list(column.values), config.data.text, config.model.text))
    return found


def source_of(modality: str, preparation: InputTransform, column: ModalityData, place: Placement) -> Source:
    """Samples of a modality as the model takes them. Raises InputError that names the modality."""
    try:
        return preparation.source(column, place)
    except InputError as error:
        raise InputError([f"modality {modality!r}, {line}" for line in error.faults]) from None


def kind_of(preparation: InputTransform) -> Kind:
    if isinstance(preparation, NumericTransform):
        return "numeric"
    return "image" if isinstance(preparation, ImageTransform) else "text"


def from_state(described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> InputTransform:
    """The preparation that `state` described. Raises InputError where something is missing or of the wrong type."""
    kind = described.get("kind", "numeric")
    if kind == "numeric":
        return NumericTransform(Pipeline.from_state(described, arrays))
    if kind == "text":
        from m3col.inputs.tokenization import TextPreparation

        return TextTransform(TextPreparation.from_state(described))
    if kind != "image" or not isinstance(described.get("size"), int) or described["size"] < 1:
        raise InputError([f"stored preprocessing: must be of a picture with its size, but is {dict(described)!r}"])
    return ImageTransform(described["size"], str(described.get("augment", "none")))
