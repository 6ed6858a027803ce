"""Predictions from model checkpoints. Needs neither ray nor optuna."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from m3col import checkpoint, config, methods, metrics
from m3col.data.preprocess import Pipeline
from m3col.faults import BadInput, nearest
from m3col.methods.base import FUSED, Method


class Predictor:
    """One or several trained members; their mean probability is the answer.

    `modalities`, `classes` and `features` (names per modality, in the order of the columns) say what goes in and out.
    """

    def __init__(self, members: Sequence["_Member"], *, described: Mapping[str, Any]) -> None:
        self._members = tuple(members)
        self.classes: tuple[str, ...] = tuple(described["classes"])
        self.features: dict[str, tuple[str, ...]] = {m: tuple(names) for m, names in described["features"].items()}
        self.config: dict[str, Any] = dict(described["config"])

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.features)

    def __len__(self) -> int:
        return len(self._members)

    def votes(self, data: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Probabilities [N, C] of each head ("fused" and, where they were trained, one per modality)."""
        inputs = self._inputs(data)
        found = [member.probabilities(inputs) for member in self._members]
        return {name: np.mean([f[name] for f in found], axis=0) for name in found[0]}

    def predict_proba(self, data: Mapping[str, Any]) -> np.ndarray:
        """Class probabilities [N, C]. `data`: per modality an array [N, D_m] or a DataFrame (columns found by name).

        Raises BadInput naming each missing modality or column, wrong width, or value that is not a finite number.
        """
        return self.votes(data)[FUSED]

    def predict(self, data: Mapping[str, Any]) -> np.ndarray:
        """Class names [N]."""
        return np.asarray(self.classes)[self.predict_proba(data).argmax(axis=1)]

    def _inputs(self, data: Mapping[str, Any]) -> dict[str, np.ndarray]:
        if not isinstance(data, Mapping):
            raise BadInput([f"data must map {', '.join(self.features)} to arrays, but is a {type(data).__name__}"])
        faults: list[str] = []
        inputs: dict[str, np.ndarray] = {}
        for name in self.features:
            if name not in data:
                close = nearest(name, [str(key) for key in data if key not in self.features])
                faults.append(
                    f"modality {name!r} is missing; the model needs {', '.join(self.features)}"
                    f"{close if 'did you mean' in close else ''}"
                )
                continue
            try:
                inputs[name] = self._array(name, data[name])
            except BadInput as error:
                faults += error.faults
        if len({len(value) for value in inputs.values()}) > 1:
            counts = ", ".join(f"{name} {len(value)}" for name, value in inputs.items())
            faults.append(f"all modalities must have the same number of rows, but got {counts}")
        if faults:
            raise BadInput(faults)
        return inputs

    def _array(self, name: str, values: Any) -> np.ndarray:
        """The values of one modality as [N, D_m] float64."""
        where, columns = f"modality {name!r}", self.features[name]
        if isinstance(values, pd.DataFrame):
            # Names that are no text (0, 1, 2) were turned into text in training as well.
            values = values.set_axis([str(column) for column in values.columns], axis=1)
            missing = [column for column in columns if column not in values.columns]
            if missing:
                more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
                close = nearest(missing[0], values.columns)
                close = close if "did you mean" in close else ""
                raise BadInput([f"{where}: columns {', '.join(missing[:5])}{more} are missing{close}"])
            values = values[list(columns)]
        try:
            # In one memory layout: sums over a DataFrame's columns would differ in the last bits.
            array = np.ascontiguousarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            raise BadInput([f"{where}: {_first_text(values)}"]) from None
        if array.ndim != 2 or array.shape[1] != len(columns):
            raise BadInput([f"{where}: must have shape [N, {len(columns)}], but got {list(array.shape)}"])
        if not self._imputes(name) and not np.isfinite(array).all():
            row, column = np.argwhere(~np.isfinite(array))[0]
            place = f"{where}: row {row + 1}, column {columns[column]!r}"
            raise BadInput(
                [f"{place} is {array[row, column]}, but the model was trained without `impute`; fill the gaps"]
            )
        return array

    def _imputes(self, modality: str) -> bool:
        return all("impute" in member.pipelines[modality].steps for member in self._members)


class _Member:
    def __init__(self, method: Method, pipelines: Mapping[str, Pipeline], dtype: torch.dtype) -> None:
        self.method, self.pipelines, self.dtype = method, pipelines, dtype

    def probabilities(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        prepared = {
            name: torch.as_tensor(pipeline.transform(inputs[name]), dtype=self.dtype)
            for name, pipeline in self.pipelines.items()
        }
        with torch.inference_mode():
            logits = self.method.logits(prepared)
        return {name: metrics.softmax(value.double().numpy()) for name, value in logits.items()}


def _first_text(values: Any) -> str:
    """Where a table holds something other than a number."""
    for column, cells in pd.DataFrame(values).items():
        wrong = pd.to_numeric(cells, errors="coerce").isna() & cells.notna()
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            return f"row {row + 1}, column {column!r} must be a number, but is {cells.iloc[row]!r}"
    return "must hold numbers only"


def load(checkpoints: "str | Path | Sequence[str | Path]") -> Predictor:
    """A predictor from one model checkpoint or several (an ensemble of all their members), on the CPU.

    Raises BadInput where a folder is no checkpoint, is newer than this version, or does not fit the others.
    """
    folders = [checkpoints] if isinstance(checkpoints, str | Path) else list(checkpoints)
    if not folders:
        raise BadInput(["load needs at least one checkpoint, but got none"])
    described = [(Path(folder), checkpoint.describe(Path(folder), "model")) for folder in folders]
    first = described[0][1]
    for folder, found in described[1:]:
        if (found["classes"], found["features"]) != (first["classes"], first["features"]):
            raise BadInput([f"{folder}: classes or features differ from those of {described[0][0]}"])
    members = [_member(folder, found, member) for folder, found in described for member in found["members"]]
    return Predictor(members, described=first)


def _member(folder: Path, described: Mapping[str, Any], member: Mapping[str, Any]) -> _Member:
    run = config.load(described["config"], where=str(folder / checkpoint.DESCRIPTION))
    dtype = torch.float64 if run.train.precision == "float64" else torch.float32
    try:
        path = folder / str(member["file"])
        tensors = checkpoint.read_tensors(path)
        pipelines = {
            name: Pipeline.from_state(member["preprocess"][name], _below(tensors, f"preprocess.{name}."))
            for name in described["features"]
        }
    except (KeyError, TypeError) as error:
        raise BadInput([f"{folder / checkpoint.DESCRIPTION}: damaged: a member lacks {error}"]) from None
    except BadInput as error:
        raise BadInput([line if str(path) in line else f"{path}: damaged: {line}" for line in error.faults]) from None
    method = methods.load(run.method)(
        run,
        features={name: len(pipeline.feature_names) for name, pipeline in pipelines.items()},
        num_classes=len(described["classes"]),
    ).to(dtype)
    weights = {key.removeprefix("weights."): value for key, value in tensors.items() if key.startswith("weights.")}
    try:
        method.load_state_dict(weights)
    except RuntimeError as error:
        raise BadInput([f"{path}: weights do not fit the config ({' '.join(str(error).split())})"]) from None
    return _Member(method.eval(), pipelines, dtype)


def _below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): value.numpy() for key, value in tensors.items() if key.startswith(prefix)}
