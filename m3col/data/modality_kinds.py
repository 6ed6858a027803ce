"""TABLE of the kinds of modality (numeric table, image, text, sequence) and the functions that depend on the kind.

A new kind needs one entry here and the functions that it names: usually one file in `m3col/inputs` (transform and
batches) and one in `m3col/models` (encoder). Functions are written as "module:function", so that heavy libraries are
imported only if a data set has the kind.
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
        is_media: True: samples are images or texts in a `MediaColumn`, read when needed, one column per modality.
            False: in memory.
        given_as: what users pass for N samples, for messages.
        user_values: (values, columns, where, may_miss, precision) -> validated `ModalityData` of new samples.
        fit: (config, modality, train, features) -> `InputTransform`, fitted on the split `train` only.
        restore: (description, arrays) -> the `InputTransform` of a checkpoint.
        encoder: (spec, model config, load_weights, stored) -> a module that maps batches to embeddings [n, D].
        linear: (views, modality, train, apply, frozen) -> features of two splits for a linear model.
        mlflow_type: type of a column in MLflow: double, string, any, or sequence (a list of steps, each a list of
            doubles).
        has_steps: whether samples are sequences in a `SequenceColumn`.
        record_faults: (values) -> the fault of each unusable value, by position; media only.
        digests: (values) -> a digest of the content of each value; media only.
    """

    name: str
    is_media: bool
    given_as: str
    user_values: str
    fit: str
    restore: str
    encoder: str
    linear: str
    mlflow_type: Literal["double", "string", "any", "sequence"]
    record_faults: str = ""
    digests: str = ""
    has_steps: bool = False

    @property
    def is_table(self) -> bool:
        """Whether samples are rows [D_m] of a table, with a column per feature. Other samples fill one field each."""
        return not (self.is_media or self.has_steps)

    def call(self, function: str, *values: Any, **named: Any) -> Any:
        """Imports and calls the function that the attribute `function` names."""
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
            mlflow_type="any",  # a path or the bytes of a file: MLflow has no type for this union
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
        ModalityKind(
            "sequence",
            is_media=False,
            given_as="arrays [steps, features]",
            user_values="m3col.data.sequences.values:user_sequences",
            fit="m3col.inputs.sequences:fit",
            restore="m3col.inputs.sequences:restore",
            encoder="m3col.models.build:sequence_encoder",
            linear="m3col.evaluation.linear_features:of_sequences",
            mlflow_type="sequence",
            has_steps=True,
        ),
    )
}

NUMERIC = "numeric"


def of(name: str) -> ModalityKind:
    """Returns the kind of that name. Raises InputError, with the nearest name, if it is unknown."""
    if name not in TABLE:
        raise InputError([f"kind of modality {name!r} is unknown{nearest(name, TABLE)}"])
    return TABLE[name]


def media(kinds: Collection[str]) -> set[str]:
    """Those of `kinds` whose samples are images or texts."""
    return {name for name in kinds if of(name).is_media}


def all_tables(kinds: Collection[str]) -> bool:
    """Whether the samples of all `kinds` are rows of numeric tables."""
    return all(of(name).is_table for name in kinds)
