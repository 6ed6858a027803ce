"""MLflow, and nothing but MLflow: the only module that imports it, and only when something is tracked.

A `Tracker` writes runs through `MlflowClient` and explicit ids: no active run, no global state, so that a thread can
use it beside anything else. Every write can be repeated; what calls it (tune.sync) looks up first what is there.
"""

import getpass
import logging
import math
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from m3col import __version__, metrics, yamlio
from m3col.faults import BadInput
from m3col.judge import flatten

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from m3col.api import TrainResult
    from m3col.data.dataset import Dataset

T = TypeVar("T")
OFF = "none"
NOTE = "mlflow.note.content"
PARENT = "mlflow.parentRunId"
RUN_NAME = "mlflow.runName"
STUDY, RUN, KIND, STATE = "m3col.study", "m3col.run", "m3col.kind", "m3col.state"
RUNNING, FINISHED, KILLED, FAILED = "RUNNING", "FINISHED", "KILLED", "FAILED"

_CHECK_S = 12.0  # for the first word with a store
_BATCH = 1000  # metrics per call, MLflow's limit
_PAIRS = 100  # params or tags per call, MLflow's limit
_LENGTHS = {"param": 6000, "tag": 8000}
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
# Cut short: MLflow's own patience with a dead server is four minutes per call.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
             "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}  # fmt: skip
_AT_FIRST = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}


@dataclass(frozen=True)
class Point:
    """One value of one metric: `step` is the epoch, `time` Unix seconds."""

    name: str
    value: float
    step: int
    time: float


@dataclass(frozen=True)
class Stored:
    """What a store knows of a run."""

    id: str
    name: str
    status: str
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def connect(uri: str | None, runs: Path) -> "Tracker | None":
    """The store to write to: `uri`, $MLFLOW_TRACKING_URI, or SQLite in the folder `runs`; None for "none".

    Raises BadInput within 15 s where it cannot be reached or written.
    """
    wanted = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs.absolute()}/mlflow.db"
    if wanted == OFF:
        return None
    local = wanted.startswith("sqlite:")
    if local:
        try:
            runs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput([f"{runs}: cannot be written ({error.strerror or error})"]) from None
    for key, value in {**_QUIET, **({} if local else _PATIENCE)}.items():
        os.environ.setdefault(key, value)
    return _within(_CHECK_S, lambda: _first_word(wanted, runs), what=wanted)


def _first_word(uri: str, runs: Path) -> "Tracker":
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    kept = {key: os.environ.get(key) for key in _AT_FIRST}
    os.environ.update(_AT_FIRST)
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    finally:
        for key, value in kept.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
    return Tracker(client, uri=uri, artifacts=runs.absolute() / "mlartifacts" if uri.startswith("sqlite:") else None)


def _within(seconds: float, call: Callable[[], T], *, what: str) -> T:
    """The call's value, or BadInput where it fails or takes longer: a name server can hang longer than any timeout."""
    found: list[T] = []
    errors: list[Exception] = []

    def attempt() -> None:
        try:
            found.append(call())
        except Exception as error:  # whatever the client library raises
            errors.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if found:
        return found[0]
    reason = f"no answer within {seconds:.0f} s" if not errors else " ".join(str(errors[0]).split())[:200]
    raise BadInput(
        [f"tracking.uri {what}: the MLflow store cannot be reached ({reason}); start it, or leave it out: SQLite needs "
         "no server, 'none' switches tracking off"]
    ) from None  # fmt: skip


class Tracker:
    """Runs in one MLflow store. Methods raise whatever MLflow raises; `log_training` alone turns that into a warning."""

    def __init__(self, client: "MlflowClient", *, uri: str, artifacts: Path | None) -> None:
        self.client, self.uri, self._artifacts = client, uri, artifacts

    def experiment(self, name: str, *, note: str | None = None) -> str:
        """The id of the experiment of that name, made or brought back from the bin where needed."""
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        location = None if self._artifacts is None else (self._artifacts / _file_name(name)).as_uri()
        # Else MLflow opens an experiment on its page for language-model traces.
        tags = {"mlflow.experimentKind": "custom_model_development", **({NOTE: note} if note else {})}
        return str(self.client.create_experiment(name, artifact_location=location, tags=tags))

    def experiments(self) -> dict[str, str]:
        """Ids by name of the experiments that have runs of ours to show, the last used first."""
        found = self.client.search_experiments(order_by=["last_update_time DESC"])
        return {item.name: str(item.experiment_id) for item in found if str(item.experiment_id) != "0"}

    def find(self, experiment: str, tags: Mapping[str, str]) -> list[Stored]:
        """All runs of an experiment that carry these tags, oldest first."""
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        stored: list[Stored] = []
        token: str | None = None
        while True:
            page = self.client.search_runs(
                [experiment], wanted, max_results=1000, order_by=["attributes.start_time ASC"], page_token=token
            )
            for run in page:
                data = run.data
                stored.append(
                    Stored(run.info.run_id, run.info.run_name, run.info.status, data.tags, data.params, data.metrics)
                )
            token = page.token
            if not token:
                return stored

    def create(self, experiment: str, name: str, *, tags: Mapping[str, str], started: float) -> str:
        """A new run, running since `started`; its id."""
        tags = {"mlflow.user": getpass.getuser(), "mlflow.source.name": "m3col", **_cut(tags, "tag")}
        run = self.client.create_run(experiment, start_time=_ms(started), tags=tags, run_name=name)
        return str(run.info.run_id)

    def write(
        self, run: str, points: Iterable[Point] = (), *, params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Adds metrics, params and tags in as few calls as MLflow allows; an epoch is never torn over two calls."""
        from mlflow.entities import Metric, Param, RunTag

        numbers = [Metric(p.name, float(p.value), _ms(p.time), p.step) for p in points if p.value is not None]
        settings = [Param(key, value) for key, value in _cut(params or {}, "param").items()]
        labels = [RunTag(key, value) for key, value in _cut(tags or {}, "tag").items()]
        batches = _whole_epochs(numbers)
        while batches or settings or labels:
            self.client.log_batch(
                run, metrics=batches.pop(0) if batches else [], params=settings[:_PAIRS], tags=labels[:_PAIRS]
            )
            settings, labels = settings[_PAIRS:], labels[_PAIRS:]

    def last_step(self, run: str, metric: str) -> int:
        """The last epoch of which the store has this metric, 0 where it has none."""
        return max((point.step for point in self.client.get_metric_history(run, metric)), default=0)

    def close(self, run: str, status: str, ended: float) -> None:
        self.client.set_terminated(run, status=status, end_time=_ms(ended))

    def note(self, experiment: str, text: str) -> None:
        """The Markdown at the top of an experiment's page."""
        self.client.set_experiment_tag(experiment, NOTE, text)

    def artifacts(self, run: str, path: Path, folder: str | None = None) -> None:
        """Uploads a file, or all that a folder holds, below `folder` of the run's artifacts."""
        upload = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        upload(run, str(path), folder)

    def dataset(self, run: str, name: str, digests: Mapping[str, str], profile: Mapping[str, Any]) -> None:
        """Names the data as the run's input, one entry per split with its digest."""
        import json

        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(name, digest[:32], "local", json.dumps({"name": name}), profile=json.dumps(dict(profile))),
                [InputTag("mlflow.data.context", split)],
            )
            for split, digest in digests.items()
        ]
        self.client.log_inputs(run, datasets=inputs)

    def model(self, run: str, checkpoint: Path, *, medians: Mapping[str, np.ndarray] | None, step: int = 0) -> str:
        """Logs a model checkpoint as an MLflow model of the run; returns its URI, `models:/...`.

        Input: a DataFrame with a column `<modality>.<feature>` for each feature; output: one column per class.
        `medians` of the training columns per modality [D_m] make the input example, which shows no person.
        """
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model
        from mlflow.pyfunc import save_model

        names = [f"{class_}" for class_ in _described(checkpoint)["classes"]]
        columns = [column for group in model_columns(_described(checkpoint)["features"]).values() for column in group]
        example = None
        if medians is not None:
            example = pd.DataFrame([np.concatenate(list(medians.values()))], columns=columns)
        found = self.client.get_run(run)
        logged = self.client.create_logged_model(
            found.info.experiment_id, name="model", source_run_id=run, model_type="classifier", params=found.data.params
        )
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            save_model(
                str(folder),
                mlflow_model=Model(
                    artifact_path=logged.artifact_location, run_id=run, model_uuid=logged.model_id, model_id=logged.model_id
                ),
                python_model=str(Path(__file__).with_name("pyfunc_model.py")),
                artifacts={"checkpoint": str(checkpoint)},
                signature=_signature(columns, names),
                input_example=example,
                pip_requirements=[f"m3col=={__version__}"],
            )
            self.client.log_model_artifacts(logged.model_id, str(folder))
        self.client.finalize_logged_model(logged.model_id, "READY")
        self.client.log_outputs(run, [LoggedModelOutput(logged.model_id, step)])
        return str(logged.model_uri)

    def log_training(self, result: "TrainResult", *, dataset: "Dataset", started: float) -> str | None:
        """Writes a finished training; returns the run's id, or None (with a warning) where the store let us down: the
        run is complete in its folder, and an answer that comes too late must not spoil it."""
        try:
            return self._log_training(result, dataset=dataset, started=started)
        except Exception as error:  # whatever MLflow raises
            warnings.warn(f"{result.folder}: not written to MLflow at {self.uri}: {error}", stacklevel=2)
            return None

    def _log_training(self, result: "TrainResult", *, dataset: "Dataset", started: float) -> str:
        from m3col import checkpoint

        config = result.config.to_dict()
        experiment = self.experiment(dataset.name)
        tags = {
            KIND: "training", RUN: result.folder.name, "m3col.folder": str(result.folder),
            **{f"m3col.version.{name}": value for name, value in checkpoint.versions().items()},
            **{f"m3col.digest.{name}": value for name, value in dataset.digests().items()}, NOTE: _training_note(result),
        }  # fmt: skip
        run = self.create(experiment, result.folder.name, tags=tags, started=started)
        ended = time.time()
        self.write(run, history_points(result.history.to_dict("records")), params=dict(flatten(config)))
        last = len(result.history)
        tested = {name: value for name, value in result.metrics.items() if name.startswith("test/")}
        self.write(run, [Point(name, value, last, ended) for name, value in tested.items()])
        self.dataset(run, dataset.name, dataset.digests(), {"features": {m: len(f) for m, f in dataset.features.items()}})
        self.artifacts(run, result.folder / "config.yaml")
        self.artifacts(run, result.checkpoint, "checkpoint")
        with tempfile.TemporaryDirectory() as folder:
            _draw(result, dataset, Path(folder))
            self.artifacts(run, Path(folder), "figures")
        self.model(run, result.checkpoint, medians=medians(dataset), step=last)
        self.close(run, FINISHED, ended)
        return run


def history_points(records: Iterable[Mapping[str, Any]]) -> list[Point]:
    """The metrics of epoch records: a record is flat, or has its metrics under "metrics"."""
    points = []
    for record in records:
        found = record["metrics"] if "metrics" in record else {k: v for k, v in record.items() if "/" in k}
        points += [
            Point(name, value, int(record["epoch"]), record["time"])
            for name, value in found.items()
            if value is not None and not math.isnan(value)
        ]
    return points


def medians(dataset: "Dataset") -> dict[str, np.ndarray]:
    """Per modality the column medians [D_m] of the training split; 0 for a column without any value."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's word on empty columns
        for name, values in dataset.train.inputs.items():
            found[name] = np.nan_to_num(np.nanmedian(values, axis=0))
    return found


def model_columns(features: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Per modality the columns that a logged model takes: `<modality>.<feature>`."""
    return {modality: [f"{modality}.{name}" for name in names] for modality, names in features.items()}


def serve(load: Callable[[Path], Callable[[pd.DataFrame], pd.DataFrame]]) -> None:
    """Called by a model's code file: `load` turns the checkpoint folder into a function from input to output."""
    import mlflow

    class CodeModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
        def load_context(self, context: Any) -> None:
            self._predict = load(Path(context.artifacts["checkpoint"]))

        # Without types: MLflow would try to read a signature from them, and say that it cannot.
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            return self._predict(model_input)

    mlflow.models.set_model(CodeModel())


def _described(checkpoint: Path) -> dict[str, Any]:
    from m3col.checkpoint import describe

    return describe(checkpoint, "model")


def _signature(columns: Sequence[str], classes: Sequence[str]) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    return ModelSignature(
        inputs=Schema([ColSpec(DataType.double, name) for name in columns]),
        outputs=Schema([ColSpec(DataType.double, name) for name in classes]),
    )


def _draw(result: "TrainResult", dataset: "Dataset", folder: Path) -> None:
    from m3col import figures

    figures.save(figures.learning_curves([result.history], metric=result.config.metric), folder / "learning_curves.png")
    if dataset.test is not None and dataset.test.labels is not None:
        probabilities = result.predict_proba(dataset.test.inputs)
        figures.save_test(folder, dataset.test.labels, probabilities, dataset.classes)


def _training_note(result: "TrainResult") -> str:
    tested = {name.removeprefix("test/"): value for name, value in result.metrics.items() if name.startswith("test/")}
    known = [name for name in metrics.names(2) if name in tested]
    lines = [f"**{result.config.method}** on **{result.config.data.name}**, {len(result.history)} epochs", ""]
    if known:
        lines += ["| test metric | value |", "|---|---|", *(f"| {name} | {tested[name]:.4f} |" for name in known), ""]
    return "\n".join([*lines, f"Checkpoint and log: `{result.folder}`"])


def _whole_epochs(numbers: list[Any]) -> list[list[Any]]:
    """Metrics in batches that MLflow takes, each with whole epochs: what the store has of an epoch it has in full."""
    batches: list[list[Any]] = []
    by_step: dict[int, list[Any]] = {}
    for number in numbers:
        by_step.setdefault(number.step, []).append(number)
    for group in by_step.values():
        if not batches or len(batches[-1]) + len(group) > _BATCH:
            batches.append([])
        batches[-1].extend(group[:_BATCH])
    return batches


def _cut(values: Mapping[str, Any], kind: str) -> dict[str, str]:
    return {key: _text(value)[: _LENGTHS[kind]] for key, value in values.items()}


def _text(value: Any) -> str:
    return yamlio.dump(value).strip() if isinstance(value, dict | list | tuple) else str(value)


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
