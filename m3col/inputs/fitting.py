"""Input transforms of all modalities (numeric pipeline, image crop, tokenizer), fitted on the training fold only."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from m3col.augmentation import registry
from m3col.config.schema import RunConfig
from m3col.data import columns, modality_kinds
from m3col.data.columns import ModalityData
from m3col.data.dataset import Split
from m3col.errors import InputError
from m3col.inputs.base import InputTransform, Placement, Source


def fit(config: RunConfig, train: Split, features: Mapping[str, Sequence[str]]) -> dict[str, InputTransform]:
    """Fits the input transform of every modality on the training fold.

    Args:
        config: the config of the run.
        train: the training fold.
        features: names of the columns, by modality.

    Returns:
        The transforms, by modality.

    Raises:
        InputError: a preprocessing step cannot be fitted, or files of a tokenizer are missing.
    """
    return {
        name: modality_kinds.of(columns.kind_of(train.inputs[name])).call("fit", config, name, train, features[name])
        for name in features
    }


def source_of(modality: str, transform: InputTransform, column: ModalityData, place: Placement) -> Source:
    """Returns the samples of a modality as model input. Raises InputError that names the modality."""
    try:
        return transform.source(column, place)
    except InputError as error:
        raise InputError([f"modality {modality!r}, {line}" for line in error.faults]) from None


def augmented(transform: InputTransform, config: RunConfig, modality: str) -> InputTransform | None:
    """The transform with the augmentation of the config, which checkpoints store for images alone.

    Returns:
        A transform whose source augments samples, if it is given random numbers; None: the modality is not augmented.
    """
    given: Any = transform
    if transform.kind != "image":
        section = getattr(config.data, transform.kind)
        given = replace(given, augment=registry.of_modality(section.augment, modality))
    return given if registry.is_used(given.augment) else None


def from_state(described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> InputTransform:
    """Restores a transform from the result of its `state`. Raises InputError if the arguments are not valid."""
    kind = described.get("kind", modality_kinds.NUMERIC)
    if not isinstance(kind, str) or kind not in modality_kinds.TABLE:
        raise InputError([f"stored preprocessing: kind {kind!r} is unknown to this version"])
    restored: InputTransform = modality_kinds.of(kind).call("restore", described, arrays)
    return restored
