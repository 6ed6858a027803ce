"""Predictions from model checkpoints. Needs neither ray nor optuna."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from m3col import devices
from m3col.config import loading
from m3col.data import modality_kinds, numeric_tables, row_alignment
from m3col.data.checks import naming
from m3col.data.columns import Kind, ModalityData
from m3col.data.dataset import Dataset
from m3col.ensemble_member import Member
from m3col.errors import InputError, nearest, reason_of
from m3col.inputs import fitting
from m3col.inputs.tables import NumericTransform
from m3col.methods import registry
from m3col.runtime import notices
from m3col.tasks import registry as tasks
from m3col.tasks.base import Task
from m3col.training import checkpoint

_MOST_CLASSES = 10  # largest number of classes that a notebook lists


class Predictor:
    """An ensemble of one or several trained models; it predicts the mean of their predictions. Made by `m3col.load`.

    Attributes:
        modalities: names of the modalities of the input.
        features: names of the columns by modality, in their order.
        kinds: "numeric", "image", "text" or "sequence" by modality.
        classes: names of the C classes, labels or targets, in the order of the columns of predictions.
        config: the config of the training.
        task: what is predicted.
        notice: what must be known before the checkpoint is passed on, as a sentence; "": nothing.
    """

    def __init__(self, members: Sequence[Member], *, described: Mapping[str, Any]) -> None:
        self._members = tuple(members)
        self.classes: tuple[str, ...] = tuple(described["classes"])
        self.features: dict[str, tuple[str, ...]] = {m: tuple(names) for m, names in described["features"].items()}
        self.config: dict[str, Any] = dict(described["config"])
        self.notice: str = described.get("notice", "")
        self.task = _joint_task([member.task for member in self._members])
        # Checkpoints of older versions do not say where they were trained.
        self._trained_on_gpu = any(member.get("device") == "cuda" for member in described["members"])

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name} [N, {len(columns)}]" for name, columns in self.features.items())
        return f"Predictor({self.config['method']}, {len(self)} models: {inputs} -> {self._outputs})"

    def _repr_html_(self) -> str:
        columns = {name: [self.kinds[name], len(names)] for name, names in self.features.items()}
        table = pd.DataFrame.from_dict(columns, orient="index", columns=["kind", "columns"]).to_html(border=0)
        shown = ", ".join(self.classes[:_MOST_CLASSES]) + (", ..." if len(self.classes) > _MOST_CLASSES else "")
        about = f"{self.config['method']}, {len(self)} models, {self._outputs}: {shown}"
        notice = f"<p>{html.escape(self.notice)}</p>" if self.notice else ""
        return f"<p><b>{html.escape(about)}</b></p>{table}{notice}"

    @property
    def _outputs(self) -> str:
        """Number and kind of the outputs, such as "10 classes"."""
        count, called = len(self.classes), self.task.outputs_called
        return f"{count} {called if count != 1 else 'target' if called == 'targets' else 'label'}"

    @property
    def device_note(self) -> str:
        """A sentence, where models that were trained on a GPU compute on the CPU here; "" elsewhere."""
        if not self._trained_on_gpu or all(member.device.type == "cuda" for member in self._members):
            return ""
        return (
            "the model was trained on a GPU, and its scores are computed on the CPU, which rounds differently: they "
            "may differ from those of the GPU in the last digits, in bfloat16 by up to a percent"
        )

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities of the input."""
        return tuple(self.features)

    @property
    def kinds(self) -> dict[str, Kind]:
        """The kind of each modality: "numeric", "image", "text" or "sequence"."""
        return {name: transform.kind for name, transform in self._members[0].transforms.items()}

    @property
    def primary(self) -> str:
        """The output that makes the predictions, one of the keys of `votes`."""
        name = self._members[0].method.primary_output
        assert name is not None, "a method without outputs cannot predict"
        return name

    @property
    def precision(self) -> str:
        """The dtype of the computation: "float32" or "float64"."""
        return "float64" if self._members[0].dtype == torch.float64 else "float32"

    @property
    def members(self) -> tuple[Member, ...]:
        """The models of the ensemble."""
        return self._members

    def __len__(self) -> int:
        """The number of models in the ensemble."""
        return len(self._members)

    def votes(self, data: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Predictions of each head, averaged over the models: probabilities, or numbers for the task `regression`.

        Args:
            data: by modality N samples, see `predict_proba`.

        Returns:
            Predictions [N, C] by head: "fused" and, where they were trained, one per modality.

        Raises:
            InputError: the data does not fit the model, see `predict_proba`.
        """
        return self._votes(self._inputs(data)[0])

    def predict_proba(self, data: Mapping[str, Any]) -> np.ndarray:
        """Probabilities of classes or labels, averaged over the models.

        Modalities with a pandas index are aligned by it. The result then has the row order of the first modality with
        an index of its own; `predict_table` also returns the index. Without an index, rows are matched by position.

        Args:
            data: by modality N samples. Numeric tables: a DataFrame, whose columns are matched by name, or an array or
                tensor [N, D_m]. Images: N paths or file contents (bytes). Texts: N strings.

        Returns:
            Probabilities [N, C], with one column per class or label in the order of `classes`. Those of a sample add up
            to 1 for classes, but not for labels.

        Raises:
            InputError: the model predicts numbers, which have no probabilities; or with one line for each missing
                modality or column, rows that do not match between modalities, a wrong number of columns, a value that
                is missing, infinite or too large, an image that cannot be read, or an empty text.
        """
        if not self.task.probabilities:
            raise InputError(
                [f"predict_proba: a model of task {self.task.name!r} predicts numbers, which have no probabilities; "
                 "call predict for the numbers, or votes for those of each head"]
            )  # fmt: skip
        return self.votes(data)[self.primary]

    def predict(self, data: Mapping[str, Any]) -> np.ndarray:
        """The most probable class of each sample, or its labels, or its numbers.

        Args:
            data: by modality N samples, see `predict_proba`.

        Returns:
            Of classes their names [N]; of several labels per sample 0 and 1 [N, C]; of numbers the predictions [N, K]
            in the units of the targets. Columns are in the order of `classes`, rows in that of `predict_proba`.

        Raises:
            InputError: the data does not fit the model, see `predict_proba`.
        """
        return self.task.answers(self.votes(data)[self.primary])

    def predict_table(self, data: Mapping[str, Any]) -> pd.DataFrame:
        """Labels or numbers, probabilities and votes of the modalities, one row per sample.

        Args:
            data: by modality N samples, see `predict_proba`.

        Returns:
            A table of N rows, with the index of the input where it has one. Columns: `label`, the class, or `labels`,
            the names of several labels with `|` between them; `p(<class>)`, the probability of each class or label;
            `vote(<modality>)`, what the head of that modality alone predicts. Of numbers: `<target>`, and
            `vote(<modality>) <target>`.

        Raises:
            InputError: the data does not fit the model, see `predict_proba`.
        """
        inputs, index = self._inputs(data)
        return pd.DataFrame(self.task.answer_columns(self._votes(inputs), self.primary), index=index)

    def embeddings(self, data: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Embeddings of each modality by the first model of the ensemble.

        The models have different embedding spaces, so a mean over them would have no meaning.

        Args:
            data: by modality N samples, see `predict_proba`.

        Returns:
            Embeddings [N, D] by modality in float64, not normalised, in the row order of `predict_proba`.

        Raises:
            InputError: the data does not fit the model, see `predict_proba`.
        """
        first = self._members[0]
        embeddings = first.encode(first.sources(self._inputs(data)[0]))
        return {name: value.double().numpy() for name, value in embeddings.items()}

    def dataset_faults(self, dataset: Dataset) -> list[str]:
        """Checks whether the model can be tested on a data set.

        Args:
            dataset: the data set.

        Returns:
            One line per fault: no labelled test split, or other classes or features than those of the training.
        """
        name, faults = dataset.name, list[str]()
        if dataset.test is None or dataset.test.labels is None or not len(dataset.test):
            faults.append(f"{name}: has no labelled test split")
        if dataset.classes != self.classes:
            faults.append(
                f"{name}: has the {self.task.outputs_called} {dataset.classes}, but the checkpoint has {self.classes}"
            )
        return faults + [
            f"{name}: the features of {modality!r} are not those that the checkpoint was trained on"
            for modality, features in self.features.items()
            if dataset.features.get(modality) != features
        ]

    def _votes(self, inputs: Mapping[str, ModalityData]) -> dict[str, np.ndarray]:
        by_member = [member.probabilities(inputs) for member in self._members]
        votes = {name: np.mean([outputs[name] for outputs in by_member], axis=0) for name in by_member[0]}
        wrong = ~np.logical_and.reduce([np.isfinite(p).all(axis=1) for p in votes.values()])
        if wrong.any():
            row, lacks = int(wrong.argmax()), "probabilities" if self.task.probabilities else "finite numbers"
            raise InputError(
                [f"row {row + 1}: the model gives no {lacks} ({int(wrong.sum())} such rows in all): its numbers "
                 f"overflow; {_largest(inputs, row)}"]
            )  # fmt: skip
        return votes

    def _inputs(self, data: Mapping[str, Any]) -> tuple[dict[str, ModalityData], pd.Index | None]:
        """The validated modalities with their rows in one order, and the index of these rows; None without an index."""
        if not isinstance(data, Mapping):
            raise InputError([f"data must map {', '.join(self.features)} to arrays, but is a {type(data).__name__}"])
        faults = naming.repeats(data)
        data = {str(name): values for name, values in data.items()}  # in training too, names are text
        inputs: dict[str, ModalityData] = {}
        indexes: dict[str, pd.Index | None] = {}
        kinds = self.kinds
        for name in self.features:
            if name not in data:
                close = nearest(name, [key for key in data if key not in self.features])
                faults.append(
                    f"modality {name!r} is missing; the model needs {', '.join(self.features)}"
                    f"{close if 'did you mean' in close else ''}"
                )
                continue
            try:
                values, index = numeric_tables.plain(data[name], f"modality {name!r}")
                inputs[name] = self._column(name, kinds[name], values)
                indexes[name] = index
            except InputError as error:
                faults += error.faults
        before = len(faults)
        aligned = row_alignment.align(indexes, "", faults, unique=False)
        for line in aligned.warnings:
            notices.warn(line)
        if len({len(value) for value in inputs.values()}) > 1 and len(faults) == before:
            counts = ", ".join(f"{name} {len(value)}" for name, value in inputs.items())
            faults.append(f"all modalities must have the same number of rows, but got {counts}")
        if faults:
            raise InputError(faults)
        ordered = {name: x[aligned.orders[name]] if name in aligned.orders else x for name, x in inputs.items()}
        return ordered, aligned.index

    def _column(self, name: str, kind: Kind, values: Any) -> ModalityData:
        where = f"modality {name!r}"
        column: ModalityData = modality_kinds.of(kind).call(
            "user_values", values, self.features[name], where=where, may_miss=self._imputes(name),
            precision=self.precision,
        )  # fmt: skip
        return column

    def _imputes(self, modality: str) -> bool:
        """Whether all models replace missing values of the modality."""
        transforms = [member.transforms[modality] for member in self._members]
        return all(isinstance(item, NumericTransform) and "impute" in item.pipeline.steps for item in transforms)


def _joint_task(of_members: Sequence[Task]) -> Task:
    """The task of an ensemble: what its models chose, such as thresholds, is averaged where they differ."""
    first, choices = of_members[0], [task.choices() for task in of_members]
    if all(chosen == choices[0] for chosen in choices):
        return first
    return first.with_choices(
        {name: np.mean([chosen[name] for chosen in choices], axis=0).tolist() for name in choices[0]}
    )


def _largest(inputs: Mapping[str, ModalityData], row: int) -> str:
    """A sentence that names the largest value of a sample and its column, for a message."""
    tables = {name: np.abs(np.nan_to_num(x[row])) for name, x in inputs.items() if isinstance(x, np.ndarray)}
    if not tables:
        return "values of the sample are too large, or the weights of the model are damaged"
    name = max(tables, key=lambda key: tables[key].max())
    column = int(tables[name].argmax())
    return f"its largest value is {tables[name][column]:g} in modality {name!r}, column {column + 1}"


def load(checkpoints: "str | Path | Sequence[str | Path]", *, device: str = "auto") -> Predictor:
    """Loads a model for prediction. Loading does not run code from the checkpoint.

    Args:
        checkpoints: folder of a model checkpoint, such as `TrainResult.checkpoint` or `results/model` of a study; or
            several folders, whose models are joined into one ensemble.
        device: where the models compute: "cpu", "cuda", or "auto" (default), which is the first GPU where there is one.
            Probabilities of a GPU differ from those of the CPU in their last digits, in bfloat16 by up to a percent.

    Returns:
        The predictor.

    Raises:
        InputError: the device is not there, or a folder is no checkpoint, is damaged, is newer than this version, does
            not fit the others, or needs a method of your own whose module has not been imported.

    Example:
        >>> import tempfile, m3col
        >>> result = m3col.train("digits", overrides={"train.epochs": 1}, runs=tempfile.mkdtemp(), tracking_uri="none")
        >>> model = m3col.load(result.checkpoint)
        >>> model
        Predictor(m3col, 1 models: pixels [N, 64], fourier [N, 40], gradients [N, 32] -> 10 classes)
        >>> model.predict_proba(m3col.data.load("digits").test.inputs).shape
        (1597, 10)
    """
    folders = [checkpoints] if isinstance(checkpoints, str | Path) else list(checkpoints)
    if not folders:
        raise InputError(["load needs at least one checkpoint, but got none"])
    described = [(Path(folder), checkpoint.describe(Path(folder), "model")) for folder in folders]
    first = described[0][1]
    for folder, description in described[1:]:
        if (description["classes"], description["features"]) != (first["classes"], first["features"]):
            raise InputError([f"{folder}: classes or features differ from those of {described[0][0]}"])
        own, other = (content["config"].get("task", tasks.DEFAULT) for content in (description, first))
        if own != other:
            raise InputError([f"{folder}: task {own!r} differs from {other!r}, that of {described[0][0]}"])
    place = devices.prediction_device(device)
    members = [
        _member(folder, description, member, place)
        for folder, description in described
        for member in description["members"]
    ]
    return Predictor(members, described=first)


def _member(folder: Path, described: Mapping[str, Any], member: Mapping[str, Any], device: torch.device) -> Member:
    """Builds one model of a checkpoint, with its preprocessing and weights. Raises InputError for a damaged one."""
    description_path = str(folder / checkpoint.DESCRIPTION)
    try:
        registry.find(described["config"].get("method", registry.DEFAULT), trusted=False)
    except InputError as error:
        raise InputError([f"{description_path}: {line}" for line in error.faults]) from None
    run = loading.load_stored(described["config"], where=description_path)
    dtype = torch.float64 if run.train.precision == "float64" else torch.float32
    try:
        path = folder / str(member["file"])
        tensors = checkpoint.read_tensors(path)
        prefixes = checkpoint.preprocess_prefixes(described["features"])
        transforms = {
            name: fitting.from_state(member["preprocess"][name], _below(tensors, prefix))
            for name, prefix in prefixes.items()
        }
        task = tasks.of(run, described["classes"]).restored(_below(tensors, checkpoint.TASK_PREFIX))
        task = task.with_choices(described.get("choices", {}))
    except (KeyError, TypeError) as error:
        raise InputError([f"{folder / checkpoint.DESCRIPTION}: damaged: a member lacks {error}"]) from None
    except InputError as error:
        raise InputError([line if str(path) in line else f"{path}: damaged: {line}" for line in error.faults]) from None
    for name, transform in transforms.items():
        features = tuple(described["features"][name])
        if isinstance(transform, NumericTransform) and transform.pipeline.feature_names_in != features:
            raise InputError([f"{folder / checkpoint.DESCRIPTION}: damaged: two lists of the features of {name!r}"])
    method = registry.load(run.method)(
        run,
        features={name: transform.spec for name, transform in transforms.items()},
        task=task,
        stored=described.get("encoders", {}),
    ).to(dtype)
    weights = {key.removeprefix("weights."): value for key, value in tensors.items() if key.startswith("weights.")}
    try:
        method.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError([f"{path}: weights do not fit the config ({reason_of(error, limit=None)})"]) from None
    return Member(method, transforms, dtype, task, device, samples=member.get("samples"))


def _below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with `prefix`, by the rest of their name."""
    return {key.removeprefix(prefix): value.numpy() for key, value in tensors.items() if key.startswith(prefix)}
