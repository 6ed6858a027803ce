"""MLflow, and nothing but MLflow: the only module that imports it, and only when something is tracked.

A `Tracker` writes runs through `MlflowClient` and explicit ids: no active run, no global state, so that a thread can
use it beside anything else. Every write can be repeated; what calls it (tune.sync) looks up first what is there.
"""

import importlib.util
import logging
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from m3col import __version__, files
from m3col.faults import BadInput
from m3col.judge import flatten
from m3col.secrets import redacted, scrubbed
from m3col.tracked import (
    Point,
    cut,
    draw_training,
    history_points,
    medians,
    model_columns,
    records,
    stored_kinds,
    training_note,
    whole_epochs,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from m3col.api import TrainResult
    from m3col.data.dataset import Dataset

OFF = "none"
NOTE = "mlflow.note.content"
PARENT = "mlflow.parentRunId"
RUN_NAME = "mlflow.runName"
SHARED_VIEW = "mlflow.sharedViewState."  # experiment tags that MLflow's pages read: columns, order and filter
LATEST_VIEW = "m3col.view"
STUDY, RUN, KIND, STATE = "m3col.study", "m3col.run", "m3col.kind", "m3col.state"
RUNNING, FINISHED, KILLED, FAILED = "RUNNING", "FINISHED", "KILLED", "FAILED"

_CHECK_S = 12.0  # for the first word with a store
_PAIRS = 100  # params or tags per call, MLflow's limit
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
# Cut short: MLflow's own patience with a dead server is four minutes per call.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
             "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}  # fmt: skip
_AT_FIRST = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}


@dataclass(frozen=True)
class Stored:
    """What a store knows of a run."""

    id: str
    name: str
    status: str
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def connect(uri: str | None, runs: Path, *, artifacts: str | None = None) -> "Tracker | None":
    """The store to write to: `uri`, $MLFLOW_TRACKING_URI, or SQLite in the folder `runs`; None for "none".

    `artifacts`: a storage, below which new experiments keep their files if it is S3; by default in `runs`. A server
    decides that itself. Raises BadInput within 15 s where the store cannot be reached or written, or where a package
    is missing.
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
    place = _artifact_place(artifacts, runs) if local else None
    for key, value in {**_QUIET, **({} if local else _PATIENCE)}.items():
        os.environ.setdefault(key, value)
    from mlflow.tracking import MlflowClient  # here, because this alone takes seconds, on a busy machine many

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Pictures and texts have no medians to make an example of.
    warnings.filterwarnings("ignore", message=".*An input example was not provided")
    made: list[MlflowClient] = []

    def first_word() -> None:
        made.append(MlflowClient(tracking_uri=wanted, registry_uri=wanted))  # it makes the folder of an SQLite file
        _first_word(made[0])

    # Making a new SQLite file is slow on a busy machine, but it cannot hang.
    _within(None if local else _CHECK_S, first_word, what=redacted(wanted))
    return Tracker(made[0], uri=wanted, artifacts=place)


def _artifact_place(artifacts: str | None, runs: Path) -> str:
    """The URI below which our own store keeps the files of experiments."""
    if artifacts is None or not artifacts.startswith("s3://"):
        return (runs.absolute() / "mlartifacts").as_uri()
    if importlib.util.find_spec("boto3") is None:
        raise BadInput(
            [f"storage.uri {artifacts}: MLflow needs the package boto3 to keep artifacts there, which is not "
             "installed; pip install 'm3col[s3]', or switch tracking off with --tracking-uri none"]
        )  # fmt: skip
    return f"{artifacts.rstrip('/')}/mlartifacts"


def _first_word(client: "MlflowClient") -> None:
    kept = {key: os.environ.get(key) for key in _AT_FIRST}
    os.environ.update(_AT_FIRST)
    try:
        client.search_experiments(max_results=1)
    finally:
        for key, value in kept.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _within(seconds: float | None, call: Callable[[], None], *, what: str) -> None:
    """BadInput where the call fails or takes longer: a look-up of a name can hang longer than any request's timeout."""
    errors: list[Exception] = []

    def attempt() -> None:
        try:
            call()
        except Exception as error:  # whatever the client library raises
            errors.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if not errors and not thread.is_alive():
        return
    reason = scrubbed(" ".join(str(errors[0]).split()))[:200] if errors else f"no answer within {seconds:.0f} s"
    raise BadInput(
        [f"tracking.uri {what}: the MLflow store cannot be reached ({reason}); start it, or leave it out: SQLite needs "
         "no server, 'none' switches tracking off"]
    )  # fmt: skip


class Tracker:
    """Runs in one MLflow store; `shown` is its address without a password.

    Methods raise whatever MLflow raises; only `log_training` turns that into a warning.
    """

    def __init__(self, client: "MlflowClient", *, uri: str, artifacts: str | None) -> None:
        self.client, self.uri, self._artifacts = client, uri, artifacts
        self.shown = redacted(uri)

    def experiment(self, name: str, *, note: str | None = None) -> str:
        """The id of the experiment of that name, made or brought back from the bin where needed."""
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        location = None if self._artifacts is None else f"{self._artifacts}/{quote(_file_name(name))}"
        # Else MLflow opens an experiment on its page for language-model traces.
        tags = {"mlflow.experimentKind": "custom_model_development", **({NOTE: note} if note else {})}
        try:
            return str(self.client.create_experiment(name, artifact_location=location, tags=tags))
        except Exception:  # MLflow's, whose import costs a second
            if self.client.get_experiment_by_name(name) is None:
                raise
            return self.experiment(name)  # somebody else has just made it

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
        tags = {"mlflow.user": files.user(), "mlflow.source.name": "m3col", **cut(tags, "tag")}
        run = self.client.create_run(experiment, start_time=_ms(started), tags=tags, run_name=name)
        return str(run.info.run_id)

    def write(
        self, run: str, points: Iterable[Point] = (), *, params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Adds metrics, params and tags in as few calls as MLflow allows; an epoch is never torn over two calls."""
        from mlflow.entities import Metric, Param, RunTag

        numbers = [Metric(p.name, float(p.value), _ms(p.time), p.step) for p in points if p.value is not None]
        settings = [Param(key, value) for key, value in cut(params or {}, "param").items()]
        labels = [RunTag(key, value) for key, value in cut(tags or {}, "tag").items()]
        batches = whole_epochs(numbers)
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

    def reopen(self, run: str) -> None:
        """Makes an ended run running again."""
        self.client.update_run(run, status=RUNNING)

    def tag_experiment(self, experiment: str, tags: Mapping[str, str]) -> None:
        """Sets those tags that differ. `NOTE` is the Markdown at the top of the experiment's page."""
        there = self.client.get_experiment(experiment).tags
        for key, value in tags.items():
            if there.get(key) != value:
                self.client.set_experiment_tag(experiment, key, value)

    def landing(self) -> tuple[str, str | None] | None:
        """The experiment that was used last and its view, see `link`; None where nothing is tracked yet."""
        found = self.client.search_experiments(order_by=["last_update_time DESC"])
        ours = [item for item in found if str(item.experiment_id) != "0"]
        return (str(ours[0].experiment_id), ours[0].tags.get(LATEST_VIEW)) if ours else None

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

    def model(
        self, run: str, checkpoint: Path, *, example: Mapping[str, np.ndarray] | None, listed: bool = True
    ) -> str:
        """Logs a model checkpoint as an MLflow model of the run; returns its URI, `models:/...`.

        Input: a DataFrame with the columns of `tracked.model_columns`; output: one column per class.
        `example`: values per modality [D_m] for the input example: medians of the training columns, never a person's.
        `listed`: named among the run's outputs; MLflow's page of such a run puts its note below everything else.
        """
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model
        from mlflow.pyfunc import save_model

        from m3col.checkpoint import describe  # it needs torch

        described = describe(checkpoint, "model")
        kinds = stored_kinds(described)
        groups = model_columns(described["features"], kinds)
        columns = [column for group in groups.values() for column in group]
        shown = None if example is None else pd.DataFrame([np.concatenate(list(example.values()))], columns=columns)
        found = self.client.get_run(run)
        logged = self.client.create_logged_model(
            found.info.experiment_id, name="model", source_run_id=run, model_type="classifier", params=found.data.params
        )
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            save_model(
                str(folder),
                mlflow_model=Model(
                    artifact_path=logged.artifact_location,
                    run_id=run,
                    model_uuid=logged.model_id,
                    model_id=logged.model_id,
                ),
                python_model=str(Path(__file__).with_name("pyfunc_model.py")),
                artifacts={"checkpoint": str(checkpoint)},
                signature=_signature(
                    {column: kinds[name] for name, group in groups.items() for column in group}, described["classes"]
                ),
                input_example=shown,
                pip_requirements=[f"m3col=={__version__}"],
            )
            self.client.log_model_artifacts(logged.model_id, str(folder))
        self.client.finalize_logged_model(logged.model_id, "READY")
        if listed:
            self.client.log_outputs(run, [LoggedModelOutput(logged.model_id, 0)])
        return str(logged.model_uri)

    def log_files(
        self, paths: Iterable[Path], *, experiment: str, name: str, tags: Mapping[str, str], under: str
    ) -> str:
        """A finished run of that name in the named experiment, with these files below `under` of its artifacts."""
        started = time.time()
        run = self.create(self.experiment(experiment), name, tags=tags, started=started)
        for path in paths:
            self.artifacts(run, path, under)
        self.close(run, FINISHED, time.time())
        return run

    def log_training(self, result: "TrainResult", *, dataset: "Dataset", started: float) -> str | None:
        """Writes a finished training; returns the run's id, or None (with a warning) where the store let us down: the
        run is complete in its folder, and an answer that comes too late must not spoil it."""
        try:
            return self._log_training(result, dataset=dataset, started=started)
        except Exception as error:  # whatever MLflow raises
            why = scrubbed(str(error))
            warnings.warn(f"{result.folder}: not written to MLflow at {self.shown}: {why}", stacklevel=2)
            return None

    def _log_training(self, result: "TrainResult", *, dataset: "Dataset", started: float) -> str:
        from m3col import checkpoint

        config = result.config.to_dict()
        experiment = self.experiment(dataset.name)
        tags = {
            KIND: "training", RUN: result.folder.name, "m3col.folder": str(result.folder),
            "m3col.versions": ", ".join(f"{name} {value}" for name, value in checkpoint.versions().items()),
            "m3col.digests": ", ".join(f"{name} {value[:12]}" for name, value in dataset.digests().items()),
            NOTE: training_note(result),
        }  # fmt: skip
        run = self.create(experiment, result.folder.name, tags=tags, started=started)
        ended = time.time()
        self.write(run, history_points(records(result.history)), params=dict(flatten(config)))
        last = len(result.history)
        tested = {name: value for name, value in result.metrics.items() if name.startswith("test/")}
        self.write(run, [Point(name, value, last, ended) for name, value in tested.items()])
        features = {name: len(columns) for name, columns in dataset.features.items()}
        self.dataset(run, dataset.name, dataset.digests(), {"features": features, "dropped": dataset.dropped})
        self.artifacts(run, result.folder / "config.yaml")
        self.artifacts(run, result.checkpoint, "checkpoint")
        with tempfile.TemporaryDirectory() as folder:
            draw_training(result, dataset, Path(folder))
            self.artifacts(run, Path(folder), "figures")
        self.model(run, result.checkpoint, example=medians(dataset))
        self.close(run, FINISHED, ended)
        return run


def link(base: str, experiment: str, view: str | None = None) -> str:
    """The address of an experiment's table of runs; `view`: key of a SHARED_VIEW tag of that experiment."""
    shared = f"&viewStateShareKey={view}" if view else ""
    return f"{base.rstrip('/')}/#/experiments/{experiment}/runs?workflowType=machine_learning{shared}"


def serve(load: Callable[[Path], Callable[[pd.DataFrame], pd.DataFrame]]) -> None:
    """Called by a model's code file: `load` turns the checkpoint folder into a function from input to output."""
    import mlflow

    # Caught, because MLflow sets the filters itself: it would rather read the signature, which is given, from types.
    with warnings.catch_warnings(record=True):

        class CodeModel(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
            def load_context(self, context: Any) -> None:
                self._predict = load(Path(context.artifacts["checkpoint"]))

            def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
                return self._predict(model_input)

    mlflow.models.set_model(CodeModel())


def _signature(columns: Mapping[str, str], classes: Sequence[str]) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType

    # A picture is a path or the bytes of a file: MLflow has no type for one or the other.
    kinds: dict[str, Any] = {"numeric": DataType.double, "text": DataType.string, "image": AnyType()}
    return ModelSignature(
        inputs=Schema([ColSpec(kinds[kind], name) for name, kind in columns.items()]),
        outputs=Schema([ColSpec(DataType.double, name) for name in classes]),
    )


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name).lstrip(".") or "_"


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
