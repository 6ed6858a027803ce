"""Sequences as model input: filling and scaling fitted on the training fold, and padded batches.

Letters: n sequences of a batch, L steps of the longest of them, F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m3col import devices
from m3col.augmentation import registry
from m3col.augmentation.draws import Draws
from m3col.augmentation.registry import Chosen
from m3col.config.modality_sections import SequenceDataConfig
from m3col.config.schema import RunConfig
from m3col.data.columns import ModalityData
from m3col.data.dataset import Split
from m3col.data.sequences.column import SequenceColumn
from m3col.errors import InputError
from m3col.inputs.base import Described, Index, LazySource, Placement
from m3col.inputs.specs import SequenceInput, Sequences

_SHOWN = 5  # features listed in a message; the others are only counted


class SequenceSource(LazySource):
    """Preprocessed sequences. Each batch is padded behind with zeros to its longest sequence.

    Args:
        column: the sequences, after preprocessing.
        place: where and how batches are made.
        longest: the largest number of steps of a sequence; None: no limit.
        augment: the augmentations, in order.
    """

    def __init__(
        self, column: SequenceColumn, place: Placement, *, longest: int | None = None, augment: Sequence[Chosen] = ()
    ) -> None:
        self._column, self._place, self._longest, self._augment = column, place, longest, augment

    def __len__(self) -> int:
        return len(self._column)

    def lengths(self) -> NDArray[np.int64]:
        """Number of steps of each sample [N]."""
        return self._column.lengths

    def rows(self, index: Index, draws: Draws | None = None) -> Sequences:
        part = self._column[index if isinstance(index, slice) else index.cpu().numpy()]
        longest = int(part.lengths.max(initial=1))  # the batch of a rank may be empty
        multiple = self._place.length_multiple
        rounded = -(-longest // multiple) * multiple
        longest = max(longest, rounded if self._longest is None else min(rounded, self._longest))
        mask = devices.moved(torch.from_numpy(np.arange(longest) < part.lengths[:, None]), self._place.device)
        values = self._padded(part, longest)
        if draws is not None:
            values = self._augmented(values, mask, draws, part.lengths)
        return Sequences(values, mask)

    def _augmented(self, values: Tensor, mask: Tensor, draws: Draws, lengths: NDArray[np.int64]) -> Tensor:
        for chosen in self._augment:
            if chosen.augmentation.mixes:
                others = partial(self._first_steps, longest=values.shape[1])
                mixed = chosen.augmentation.apply(values, chosen.settings, draws, count=len(self), others=others)
                values = torch.where(mask[:, :, None], mixed, values)  # the other sequence may be longer
            else:
                values = chosen.augmentation.apply(values, chosen.settings, draws, lengths=lengths)
        return values

    def _first_steps(self, at: NDArray[np.int64], longest: int) -> Tensor:
        return self._padded(self._column[at], longest)

    def _padded(self, part: SequenceColumn, longest: int) -> Tensor:
        """The first `longest` steps of each sequence [n, longest, F], with zeros behind its end."""
        step = np.arange(longest)
        mask = step < part.lengths[:, None]
        at = part.starts[:, None] + np.minimum(step, part.lengths[:, None] - 1)
        values = np.where(mask[:, :, None], part.table[at], np.float32(0))
        return devices.moved(torch.from_numpy(values), self._place.device).to(self._place.dtype)


@dataclass(frozen=True, eq=False)
class SequenceTransform:
    """The input transform of sequences: truncation, then for each feature filling of gaps and scaling.

    A value x becomes (x - shift) / scale, a missing one (fill - shift) / scale, and every value of a feature with
    scale 0 becomes 0.

    Attributes:
        fill: [F] medians of the values that exist in the training fold; 0 for a feature without any.
        shift: [F] means ("standard"), smallest values ("minmax") or zeros ("none").
        scale: [F] standard deviations, ranges, or ones; 0 for a feature that is constant in the training fold.
        feature_names: names of the F features.
        max_length: largest number of steps; None: no limit.
        cut: where the steps beyond it are cut off, "end" or "front".
        augment: how training sequences are augmented, a name or a list (m3col.augmentation.registry).
    """

    fill: NDArray[np.float64]
    shift: NDArray[np.float64]
    scale: NDArray[np.float64]
    feature_names: tuple[str, ...]
    max_length: int | None = None
    cut: str = "end"
    augment: Any = "none"

    kind: ClassVar[str] = "sequence"

    @property
    def spec(self) -> SequenceInput:
        return SequenceInput(len(self.feature_names))

    def source(self, column: ModalityData, place: Placement) -> SequenceSource:
        assert isinstance(column, SequenceColumn)
        steps = registry.parse(self.augment, kind=self.kind)
        return SequenceSource(self.transform(column), place, longest=self.max_length, augment=steps)

    def transform(self, column: SequenceColumn) -> SequenceColumn:
        """The truncated, filled and scaled sequences. Raises InputError for a value that overflows."""
        part = column.truncated(self.max_length, cut=self.cut)
        steps = part.steps.astype(np.float64)
        steps = np.where(np.isnan(steps), self.fill, steps)
        varies = self.scale > 0
        with np.errstate(over="ignore"):
            scaled = np.where(varies, (steps - self.shift) / np.where(varies, self.scale, 1.0), 0.0).astype(np.float32)
        overflows = np.flatnonzero(~np.isfinite(scaled).all(axis=0))
        if len(overflows):
            named = ", ".join(repr(self.feature_names[at]) for at in overflows[:_SHOWN])
            text = "a value is too far from those of the training fold: scaled, it does not fit into float32"
            raise InputError([f"feature {named}: {text}; look for a faulty measurement"])
        return SequenceColumn.from_offsets(scaled, part.offsets)

    def state(self) -> Described:
        described = {
            "kind": self.kind,
            "feature_names": list(self.feature_names),
            "max_length": self.max_length,
            "cut": self.cut,
        }
        return described, {"fill": self.fill, "shift": self.shift, "scale": self.scale}


def fit(config: RunConfig, modality: str, train: Split, features: Sequence[str]) -> SequenceTransform:
    """Fits the filling and the scaling of each feature on the training fold."""
    column = train.inputs[modality]
    assert isinstance(column, SequenceColumn)
    present = train.present[modality]  # placeholders of samples that lack the modality are excluded
    fitted = fit_column(config.data.sequence, column if present.all() else column[present], features)
    return replace(fitted, augment=registry.of_modality(config.data.sequence.augment, modality))


def fit_column(config: SequenceDataConfig, column: SequenceColumn, features: Sequence[str]) -> SequenceTransform:
    """Fits the transform on all steps of `column` that remain after truncation; each step counts equally."""
    steps = column.truncated(config.max_length, cut=config.cut).steps.astype(np.float64)
    width = column.width
    fill, shift, scale = np.zeros(width), np.zeros(width), np.ones(width)
    for feature in range(width):
        values = steps[:, feature]
        values = values[~np.isnan(values)]
        if not len(values):
            scale[feature] = 0.0
            continue
        fill[feature] = np.median(values)
        spread = np.ptp(values)
        if config.scale == "standard":
            # rounding may give a constant feature a deviation above 0; its range is exactly 0
            shift[feature], scale[feature] = values.mean(), values.std() if spread > 0 else 0.0
        elif config.scale == "minmax":
            shift[feature], scale[feature] = values.min(), spread
    return SequenceTransform(fill, shift, scale, tuple(features), config.max_length, config.cut)


def restore(described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> SequenceTransform:
    """Restores the transform of a checkpoint. Raises InputError."""
    names, longest, cut = described.get("feature_names"), described.get("max_length"), described.get("cut")
    is_described = isinstance(names, list) and all(isinstance(name, str) for name in names)
    is_described = is_described and (longest is None or (type(longest) is int and longest >= 1))
    if not is_described or cut not in ("end", "front"):
        raise InputError([f"stored preprocessing: must be that of sequences, but is {dict(described)!r}"])
    assert isinstance(names, list)
    shapes = {key: np.shape(arrays.get(key, ())) for key in ("fill", "shift", "scale")}
    faults = [
        f"stored preprocessing: {key} must have the shape [{len(names)}], but has {list(shape)}"
        for key, shape in shapes.items()
        if shape != (len(names),)
    ]
    if faults:
        raise InputError(faults)
    fill, shift, scale = (np.asarray(arrays[key], dtype=np.float64) for key in ("fill", "shift", "scale"))
    return SequenceTransform(fill, shift, scale, tuple(names), longest, cut)
