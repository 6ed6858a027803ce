"""Client of an MLflow store. Only this module imports mlflow, and only when something is logged.

A `Tracker` writes runs through `MlflowClient` with explicit ids. It uses no active run and no other global state, so
that it may run in any thread. Every write can be repeated: callers (tune.tracking.study_to_mlflow) first read what the
store already has.
"""

import contextlib
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from m3col.data import modality_kinds
from m3col.errors import InputError
from m3col.runtime import exit_hooks
from m3col.storage import atomic_files, sqlite_urls
from m3col.storage.redaction import redacted
from m3col.tasks import registry as tasks
from m3col.tracking import connection, mlflow_names, payload
from m3col.tracking.payload import Point, cut, model_columns, stored_kinds, whole_epochs
from m3col.version import __version__

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


OFF = "none"

NOTE = "mlflow.note.content"

PARENT, RUN_NAME = "mlflow.parentRunId", "mlflow.runName"

SHARED_VIEW = "mlflow.sharedViewState."  # experiment tags that MLflow's pages read: columns, order and filter

LATEST_VIEW = "m3col.view"

STUDY, RUN, KIND, STATE = "m3col.study", "m3col.run", "m3col.kind", "m3col.state"

FAILURE, LACKS = "m3col.failure", "m3col.lacks"

GIVEN = "m3col.name."  # prefix of tags that hold the original of a name that MLflow does not accept

RUNNING, FINISHED, KILLED, FAILED = "RUNNING", "FINISHED", "KILLED", "FAILED"

_CHECK_S = 12.0  # for the first request to a server

_LOCAL_S = 300.0  # for creating or opening a SQLite file

_PAIRS = 100  # params or tags per call, MLflow's limit

_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}

# MLflow's defaults would wait four minutes per call for a dead server.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
             "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """A run as the store returns it."""

    id: str
    name: str
    status: str
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def connect(uri: str | None, runs: Path, *, artifacts: str | None = None) -> "Tracker | None":
    """Connects to an MLflow store. Returns None where the address is "none".

    Args:
        uri: address of the store; None for $MLFLOW_TRACKING_URI or, where that is not set, a SQLite file in `runs`.
        runs: the runs folder.
        artifacts: URI of a storage. If it is on S3, a SQLite store keeps the artifacts of new experiments there,
            otherwise in `runs`. A server decides this itself.

    Raises InputError where the store cannot be reached (a server within 15 s) or written, or a package is missing.
    """
    address = uri or os.environ.get("MLFLOW_TRACKING_URI") or sqlite_urls.url(runs.absolute() / "mlflow.db")
    if address == OFF:
        return None
    local = address.startswith("sqlite:")
    if local:
        if faults := sqlite_urls.url_faults(address, "tracking.uri"):
            raise InputError(faults)
        try:
            runs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError([f"{runs}: cannot be written ({error.strerror or error})"]) from None
    artifact_root = connection.artifact_root(artifacts, runs) if local else None
    for key, value in {**_QUIET, **({} if local else _PATIENCE)}.items():
        os.environ.setdefault(key, value)
    from mlflow.tracking import MlflowClient  # imported here, because it takes seconds

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Models of images and texts have no input example (see payload.medians).
    warnings.filterwarnings("ignore", message=".*An input example was not provided")
    warnings.filterwarnings("ignore", message=".*Any type hint is inferred")  # MLflow has no column type for images
    # Deprecation warnings between MLflow's own libraries: with `python -W error` they would be errors.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="(mlflow|sqlalchemy|alembic|pydantic)")
    clients: list[MlflowClient] = []

    def reach() -> None:
        clients.append(MlflowClient(tracking_uri=address, registry_uri=address))  # creates the folder of a SQLite file
        connection.first_request(clients[0])

    # Creating a SQLite file is slow on a busy machine, and hangs while another process that creates it is suspended.
    with sqlite_urls.no_stray_folder(address):
        connection.within(_LOCAL_S if local else _CHECK_S, reach, store=redacted(address))
    return Tracker(clients[0], uri=address, artifacts=artifact_root)


class Tracker:
    """Reads and writes runs of one MLflow store. `shown` is its address without a password.

    Callers pass the original names of metrics, params and tags; `mlflow_names` converts them. Methods raise whatever
    MLflow raises; only `log_training` turns that into a warning.
    """

    def __init__(self, client: "MlflowClient", *, uri: str, artifacts: str | None) -> None:
        self.client, self.uri, self._artifacts = client, uri, artifacts
        self.shown = redacted(uri)
        self._named: set[tuple[str, str]] = set()  # (run, tag) pairs whose GIVEN tag is written

    def experiment(self, name: str, *, note: str | None = None) -> str:
        """The id of the experiment of that name. Creates it, or restores a deleted one."""
        name = mlflow_names.experiment(name)
        existing = self.client.get_experiment_by_name(name)
        if existing is not None:
            if existing.lifecycle_stage == "deleted":
                self.client.restore_experiment(existing.experiment_id)
            return str(existing.experiment_id)
        location = None if self._artifacts is None else f"{self._artifacts}/{quote(mlflow_names.folder(name))}"
        # Without this tag MLflow opens the experiment on its page for language-model traces.
        tags = {"mlflow.experimentKind": "custom_model_development", **({NOTE: note} if note else {})}
        try:
            return str(self.client.create_experiment(name, artifact_location=location, tags=tags))
        except Exception:  # an MlflowException, whose import takes a second
            if self.client.get_experiment_by_name(name) is None:
                raise
            return self.experiment(name)  # another process has just created it

    def find(self, experiment: str, tags: Mapping[str, str]) -> list[Stored]:
        """All runs of an experiment that carry these tags, oldest first."""
        tags = cut(tags, "tag")
        # Quotes cannot be escaped in MLflow's filters: values with quotes are compared below.
        filterable = {key: value for key, value in tags.items() if not set(value) & set("'\"`\\")}
        filter_string = " and ".join(f"tags.`{key}` = '{value}'" for key, value in filterable.items())
        stored: list[Stored] = []
        token: str | None = None
        while True:
            page = self.client.search_runs(
                [experiment], filter_string, max_results=1000, order_by=["attributes.start_time ASC"], page_token=token
            )
            for run in page:
                info, data = run.info, run.data
                if all(data.tags.get(key) == value for key, value in tags.items()):
                    stored.append(Stored(info.run_id, info.run_name, info.status, data.tags, data.params, data.metrics))
            token = page.token
            if not token:
                return stored

    def create(self, experiment: str, name: str, *, tags: Mapping[str, str], started: float) -> str:
        """Creates a run with the status RUNNING and the start time `started` (Unix seconds). Returns its id."""
        tags = cut({"mlflow.user": atomic_files.user(), "mlflow.source.name": "m3col", **tags}, "tag")
        run = self.client.create_run(experiment, start_time=_ms(started), tags=tags, run_name=mlflow_names.run(name))
        return str(run.info.run_id)

    def write(
        self, run: str, points: Iterable[Point] = (), *, params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Logs metrics, params and tags in as few calls as MLflow allows. All metrics of an epoch go into one call."""
        from mlflow.entities import Metric, Param, RunTag

        points, params = [point for point in points if point.value is not None], params or {}
        numbers = [Metric(mlflow_names.key(p.name), float(p.value), _ms(p.time), p.step) for p in points]
        settings = [Param(key, value) for key, value in cut(params, "param").items()]
        originals = self._original_names(run, [*(point.name for point in points), *params])
        labels = [RunTag(key, value) for key, value in cut({**originals, **(tags or {})}, "tag").items()]
        batches = whole_epochs(numbers)
        while batches or settings or labels:
            self.client.log_batch(
                run, metrics=batches.pop(0) if batches else [], params=settings[:_PAIRS], tags=labels[:_PAIRS]
            )
            settings, labels = settings[_PAIRS:], labels[_PAIRS:]
        self._named.update((run, key) for key in originals)

    def _original_names(self, run: str, names: Iterable[str]) -> dict[str, str]:
        """Tags with the original names of converted metrics and params, without those already written to the run."""
        converted = [name for name in dict.fromkeys(names) if mlflow_names.key(name) != name]
        tags = {f"{GIVEN}{mlflow_names.mark_of(name)}": name for name in converted}
        return {key: name for key, name in tags.items() if (run, key) not in self._named}

    def last_step(self, run: str, metric: str) -> int:
        """The last epoch for which the store has this metric; 0 where it has none."""
        return max((point.step for point in self.client.get_metric_history(run, mlflow_names.key(metric))), default=0)

    def close(self, run: str, status: str, ended: float) -> None:
        self.client.set_terminated(run, status=status, end_time=_ms(ended))

    def reopen(self, run: str) -> None:
        """Sets the status of an ended run to RUNNING again."""
        self.client.update_run(run, status=RUNNING)

    def tag_experiment(self, experiment: str, tags: Mapping[str, str]) -> None:
        """Sets tags of an experiment whose values differ. `NOTE` is the Markdown at the top of its page."""
        current = self.client.get_experiment(experiment).tags
        for name, value in tags.items():
            key, value = mlflow_names.key(name), mlflow_names.text(value)
            if current.get(key) != value:
                self.client.set_experiment_tag(experiment, key, value)

    def landing(self) -> tuple[str, str | None] | None:
        """The id of the last used experiment and its view (see `link`); None where the store has no experiment yet."""
        experiments = self.client.search_experiments(order_by=["last_update_time DESC"])
        used = [item for item in experiments if str(item.experiment_id) != "0"]
        return (str(used[0].experiment_id), used[0].tags.get(LATEST_VIEW)) if used else None

    def artifacts(self, run: str, path: Path, folder: str | None = None) -> None:
        """Uploads a file, or all files of a folder, to `folder` of the run's artifacts."""
        upload = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        upload(run, str(path), folder)

    def dataset(self, run: str, name: str, digests: Mapping[str, str], profile: Mapping[str, Any]) -> None:
        """Logs the data set as input of the run, one entry per split with its digest."""
        import json

        from mlflow.entities import Dataset, DatasetInput, InputTag

        name = mlflow_names.experiment(name)  # it has the same limit
        inputs = [
            DatasetInput(
                Dataset(name, digest[:32], "local", json.dumps({"name": name}), profile=json.dumps(dict(profile))),
                [InputTag("mlflow.data.context", split)],
            )
            for split, digest in digests.items()
        ]
        self.client.log_inputs(run, datasets=inputs)

    def answers(self, run: str) -> bool:
        """Whether the store answers a request for a run."""
        try:
            self.client.get_run(run)
        except Exception:  # whatever the client library raises
            return False
        return True

    def attempt(self, run: str, steps: Mapping[str, Callable[[], object]]) -> dict[str, str]:
        """Executes all steps, also after one that fails. Returns the reasons of failures by the name of the step.

        Skips the remaining steps where the store does not answer any more, because each would wait for a timeout.
        """
        failed: dict[str, str] = {}
        for name, step in steps.items():
            try:
                step()
            except Exception as error:  # whatever MLflow or the step raises
                failed[name] = payload.reason_of(error)
                if not self.answers(run):
                    break
        return failed

    def model(
        self, run: str, checkpoint: Path, *, example: Mapping[str, np.ndarray] | None, listed: bool = True
    ) -> str:
        """Logs a model checkpoint as an MLflow model of the run; returns its URI, `models:/...`.

        The model takes a DataFrame with the columns of `payload.model_columns` and returns one column per output.

        `example`: values per modality [D_m] for the input example: medians, as a row of the data may be a person's.
        `listed`: list the model among the run's outputs. MLflow's page of a run with outputs shows its note last.
        """
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model
        from mlflow.pyfunc import save_model

        from m3col.training.checkpoint import describe  # it needs torch

        described = describe(checkpoint, "model")
        kinds = stored_kinds(described)
        groups = model_columns(described["features"], kinds)
        columns = [column for group in groups.values() for column in group]
        row = None if example is None else [np.concatenate(list(example.values()))]
        input_example = None if row is None else pd.DataFrame(row, columns=columns)
        stored_run = self.client.get_run(run)
        logged = self.client.create_logged_model(
            stored_run.info.experiment_id,
            name="model",
            source_run_id=run,
            model_type=tasks.load(described["config"].get("task", tasks.DEFAULT)).model_type,
            params=stored_run.data.params,
            tags={"m3col.notice": described["notice"]} if described.get("notice") else None,
        )
        try:
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
                        {column: kinds[name] for name, group in groups.items() for column in group},
                        described["classes"],
                    ),
                    input_example=input_example,
                    pip_requirements=[f"m3col=={__version__}"],
                )
                self.client.log_model_artifacts(logged.model_id, str(folder))
            self.client.finalize_logged_model(logged.model_id, "READY")
        except BaseException:
            with contextlib.suppress(Exception):  # without this call the model would stay pending
                self.client.finalize_logged_model(logged.model_id, "FAILED")
            raise
        if listed:
            self.client.log_outputs(run, [LoggedModelOutput(logged.model_id, 0)])
        return str(logged.model_uri)

    @contextlib.contextmanager
    def running(self, experiment: str, name: str, *, tags: Mapping[str, str], started: float) -> Iterator[str]:
        """Context manager of a new run. Its final status is FINISHED, FAILED (an error) or KILLED (an interrupt)."""
        run = self.create(self.experiment(experiment), name, tags=tags, started=started)
        try:
            with exit_hooks.before_exit(lambda: self.close(run, KILLED, time.time())):
                yield run
        except BaseException as error:
            with contextlib.suppress(Exception):  # the store may be what failed
                self.close(run, FAILED if isinstance(error, Exception) else KILLED, time.time())
            raise
        self.close(run, FINISHED, time.time())

    def log_files(
        self, paths: Iterable[Path], *, experiment: str, name: str, tags: Mapping[str, str], under: str
    ) -> str:
        """Creates a finished run with these files in the folder `under` of its artifacts. Returns its id."""
        with self.running(experiment, name, tags=tags, started=time.time()) as run:
            for path in paths:
                self.artifacts(run, path, under)
        return run


def link(base: str, experiment: str, view: str | None = None) -> str:
    """The URL of an experiment's table of runs. `view`: key of a SHARED_VIEW tag of that experiment."""
    shared = f"&viewStateShareKey={view}" if view else ""
    return f"{base.rstrip('/')}/#/experiments/{experiment}/runs?workflowType=machine_learning{shared}"


def serve(load: Callable[[Path], Callable[[pd.DataFrame], pd.DataFrame]]) -> None:
    """Registers a model with MLflow. `load` takes the checkpoint folder and returns the prediction function."""
    import mlflow

    # MLflow warns that it cannot infer the signature from type hints, although the signature is set explicitly. It
    # sets the warning filters itself, so that only recording silences the warning.
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")  # also under `python -W error`

        class CodeModel(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
            def load_context(self, context: Any) -> None:
                self._predict = load(Path(context.artifacts["checkpoint"]))

            def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
                return self._predict(model_input)

    mlflow.models.set_model(CodeModel())


def _signature(columns: Mapping[str, str], classes: Sequence[str]) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Schema

    steps = Array(Array(DataType.double))
    types: dict[str, Any] = {"double": DataType.double, "string": DataType.string, "any": AnyType(), "sequence": steps}
    return ModelSignature(
        inputs=Schema([ColSpec(types[modality_kinds.of(kind).mlflow_type], name) for name, kind in columns.items()]),
        outputs=Schema([ColSpec(DataType.double, name) for name in classes]),
    )


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
