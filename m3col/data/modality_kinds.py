"""TABLE of kinds of modality: what differs between numeric tables, images and texts, in one place.

A new kind is one entry here, and the functions that it names: usually one file in `m3col/inputs` (transform and
batches) and one in `m3col/models` (encoder). Functions are named as "module:function", so that nothing heavy is
imported before a data set has the kind.
"""

import importlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from m3col.errors import InputError, nearest


@dataclass(frozen=True)
class ModalityKind:
    """One kind of modality.

    Attributes:
        name: as in `Dataset.kinds` and in checkpoints.
        is_media: whether samples are records in a `MediaColumn` (files, texts) that are read when needed, with one
            column for the modality; False: a table [N, D_m] in memory with a column for each feature.
        given_as: what users give for N samples, for messages.
        record_faults: (values) -> why each value that cannot be used cannot, by position; media only.
        digests: (values) -> a digest of the content of each value; media only.
        user_values: (values, columns, where, may_miss, precision) -> checked `ModalityData` of new samples.
        fit: (config, modality, train, features) -> `InputTransform`, fitted to the split `train` only.
        restore: (description, arrays) -> the `InputTransform` that a checkpoint describes.
        encoder: (spec, model config, load_weights, stored) -> a module from batches to embeddings [n, D].
        linear: (views, modality, train, apply, frozen) -> what a linear model sees of two splits.
        mlflow_type: how MLflow calls a column: double, string, or any.
    """

    name: str
    is_media: bool
    given_as: str
    user_values: str
    fit: str
    restore: str
    encoder: str
    linear: str
    mlflow_type: Literal["double", "string", "any"]
    record_faults: str = ""
    digests: str = ""

    def call(self, function: str, *values: Any, **named: Any) -> Any:
        """Calls the function of that attribute."""
        module, _, name = str(getattr(self, function)).partition(":")
        return getattr(importlib.import_module(module), name)(*values, **named)


TABLE: dict[str, ModalityKind] = {
    kind.name: kind
    for kind in (
        ModalityKind(
            "numeric",
            is_media=False,
            given_as="numbers",
            user_values="m3col.inputs.user_arrays:numbers",
            fit="m3col.inputs.tables:fit",
            restore="m3col.inputs.tables:restore",
            encoder="m3col.models.build:table_encoder",
            linear="m3col.evaluation.linear_features:of_table",
            mlflow_type="double",
        ),
        ModalityKind(
            "image",
            is_media=True,
            given_as="paths or contents (bytes) of images",
            user_values="m3col.inputs.user_arrays:images",
            fit="m3col.inputs.images:fit",
            restore="m3col.inputs.images:restore",
            encoder="m3col.models.build:image_encoder",
            linear="m3col.evaluation.linear_features:of_images",
            mlflow_type="any",  # a path or the bytes of a file: MLflow has no type for one or the other
            record_faults="m3col.data.images.cache:image_faults",
            digests="m3col.data.images.cache:image_digests",
        ),
        ModalityKind(
            "text",
            is_media=True,
            given_as="texts",
            user_values="m3col.inputs.user_arrays:texts",
            fit="m3col.inputs.texts:fit",
            restore="m3col.inputs.texts:restore",
            encoder="m3col.models.build:text_encoder",
            linear="m3col.evaluation.linear_features:of_texts",
            mlflow_type="string",
            record_faults="m3col.data.columns:text_faults",
            digests="m3col.data.columns:text_digests",
        ),
    )
}

NUMERIC = "numeric"


def of(name: str) -> ModalityKind:
    """The kind of that name. Raises InputError for an unknown one, with the nearest known one."""
    if name not in TABLE:
        raise InputError([f"kind of modality {name!r} is unknown{nearest(name, TABLE)}"])
    return TABLE[name]


def media(kinds: Collection[str]) -> set[str]:
    """Those of `kinds` whose samples are files or texts."""
    return {name for name in kinds if of(name).is_media}
