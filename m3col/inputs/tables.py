"""Numeric tables as model input: the fitted preprocessing pipeline, and batches of rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m3col import devices
from m3col.augmentation import registry
from m3col.augmentation.draws import Draws
from m3col.augmentation.registry import Chosen
from m3col.config.schema import RunConfig
from m3col.data.checks import number_limits as ranges
from m3col.data.columns import Kind, ModalityData, kind_of
from m3col.data.dataset import Split
from m3col.data.preprocessing import Pipeline, resolve
from m3col.errors import InputError
from m3col.inputs.base import Described, Index, Placement


class TableSource:
    """Preprocessed rows [N, D_m], stored on the device. `augment`: the augmentations, in order."""

    def __init__(self, values: Tensor, augment: Sequence[Chosen] = ()) -> None:
        self.values, self._augment = values, augment

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, index: Index, draws: Draws | None = None) -> Tensor:
        if isinstance(index, Tensor) and index.device != self.values.device:
            index = devices.moved(index, self.values.device)  # else a GPU finishes all its work first
        rows = self.values[index]
        if draws is None:
            return rows
        for chosen in self._augment:
            if chosen.augmentation.mixes:
                rows = chosen.augmentation.apply(rows, chosen.settings, draws, count=len(self), others=self._at)
            else:
                rows = chosen.augmentation.apply(rows, chosen.settings, draws)
        return rows

    def _at(self, positions: NDArray[np.int64]) -> Tensor:
        return self.values[torch.as_tensor(positions, device=self.values.device)]


@dataclass(frozen=True, eq=False)
class NumericTransform:
    """The input transform of a numeric modality: its fitted preprocessing steps.

    Attributes:
        pipeline: the steps.
        augment: how training rows are augmented, a name or a list (m3col.augmentation.registry).
    """

    pipeline: Pipeline
    augment: Any = "none"

    kind: ClassVar[str] = "numeric"

    @property
    def spec(self) -> int:
        return len(self.pipeline.feature_names)

    def source(self, column: ModalityData, place: Placement) -> TableSource:
        assert isinstance(column, np.ndarray)
        # Fixed memory layout: otherwise the order of sums, hence the last bits, depends on that of the caller's table.
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.ascontiguousarray(self.pipeline.transform(column))
        precision = "float64" if place.dtype == torch.float64 else "float32"
        # A value far outside of the range of the training fold may overflow when it is scaled.
        faults = ranges.faults(values, "after preprocessing", self.pipeline.feature_names, precision=precision)
        if faults:
            raise InputError(faults)
        rows = torch.as_tensor(values, dtype=place.dtype, device=place.device)
        return TableSource(rows, registry.parse(self.augment, kind=self.kind))

    def state(self) -> Described:
        return self.pipeline.state()


def fit(config: RunConfig, modality: str, train: Split, features: Sequence[str]) -> NumericTransform:
    """Fits the preprocessing steps of this modality on the training fold. Raises InputError."""
    steps = numeric_steps(config, {name: kind_of(column) for name, column in train.inputs.items()})[modality]
    column = train.inputs[modality]
    assert isinstance(column, np.ndarray)
    present, labels = train.present[modality], train.labels
    if not present.all():  # exclude placeholders of samples that lack the modality
        column, labels = column[present], None if labels is None else labels[present]
    augment = registry.of_modality(config.data.numeric.augment, modality)
    return NumericTransform(Pipeline.fit(column, labels, steps, feature_names=features), augment)


def restore(described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> NumericTransform:
    """Restores the transform of a checkpoint. Raises InputError."""
    return NumericTransform(Pipeline.from_state(described, arrays))


def numeric_steps(config: RunConfig, kinds: Mapping[str, Kind]) -> dict[str, list[Any]]:
    """The configured preprocessing steps of each numeric modality. Raises InputError."""
    numeric = [name for name, kind in kinds.items() if kind == NumericTransform.kind]
    return resolve(config.data.preprocess, numeric) if numeric else {}
