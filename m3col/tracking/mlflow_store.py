"""MLflow, and nothing but MLflow: the only module that imports it, and only when something is tracked.

A `Tracker` writes runs through `MlflowClient` and explicit ids: no active run, no global state, so that a thread can
use it beside anything else. Every write can be repeated; what calls it (tune.tracking.study_to_mlflow) looks up
first what is there.
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
from m3col.tracking import connection, mlflow_names, payload
from m3col.tracking.payload import Point, cut, model_columns, stored_kinds, whole_epochs
from m3col.version import __version__

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


OFF = "none"

NOTE = "mlflow.note.content"

PARENT = "mlflow.parentRunId"

RUN_NAME = "mlflow.runName"

SHARED_VIEW = "mlflow.sharedViewState."  # experiment tags that MLflow's pages read: columns, order and filter

LATEST_VIEW = "m3col.view"

STUDY, RUN, KIND, STATE = "m3col.study", "m3col.run", "m3col.kind", "m3col.state"

FAILURE, LACKS = "m3col.failure", "m3col.lacks"

GIVEN = "m3col.name."  # tags with names as they were given, where MLflow does not take those

RUNNING, FINISHED, KILLED, FAILED = "RUNNING", "FINISHED", "KILLED", "FAILED"


_CHECK_S = 12.0  # for the first word with a store

_LOCAL_S = 300.0  # for making or opening a SQLite file

_PAIRS = 100  # params or tags per call, MLflow's limit

_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}

# Cut short: MLflow's own patience with a dead server is four minutes per call.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
             "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}  # fmt: skip


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
    decides that itself. Raises InputError within 15 s where the store cannot be reached or written, or where a package
    is missing.
    """
    wanted = uri or os.environ.get("MLFLOW_TRACKING_URI") or sqlite_urls.url(runs.absolute() / "mlflow.db")
    if wanted == OFF:
        return None
    local = wanted.startswith("sqlite:")
    if local:
        if faults := sqlite_urls.url_faults(wanted, "tracking.uri"):
            raise InputError(faults)
        try:
            runs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError([f"{runs}: cannot be written ({error.strerror or error})"]) from None
    place = connection.artifact_place(artifacts, runs) if local else None
    for key, value in {**_QUIET, **({} if local else _PATIENCE)}.items():
        os.environ.setdefault(key, value)
    from mlflow.tracking import MlflowClient  # here, because this alone takes seconds, on a busy machine many

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Images and texts have no medians to make an example of.
    warnings.filterwarnings("ignore", message=".*An input example was not provided")
    warnings.filterwarnings("ignore", message=".*Any type hint is inferred")  # an image has no type there
    # MLflow's libraries on each other: with `python -W error` they would keep it from working.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="(mlflow|sqlalchemy|alembic|pydantic)")
    made: list[MlflowClient] = []

    def reach() -> None:
        made.append(MlflowClient(tracking_uri=wanted, registry_uri=wanted))  # it makes the folder of an SQLite file
        connection.first_word(made[0])

    # Making a new SQLite file is slow on a busy machine; it hangs where another process that makes it is stopped.
    with sqlite_urls.no_stray_folder(wanted):
        connection.within(_LOCAL_S if local else _CHECK_S, reach, what=redacted(wanted))
    return Tracker(made[0], uri=wanted, artifacts=place)


class Tracker:
    """Runs in one MLflow store; `shown` is its address without a password.

    Names of metrics, params and tags are given as they are; `mlflow_names` says how MLflow calls them. Methods raise
    whatever MLflow raises; only `log_training` turns that into a warning.
    """

    def __init__(self, client: "MlflowClient", *, uri: str, artifacts: str | None) -> None:
        self.client, self.uri, self._artifacts = client, uri, artifacts
        self.shown = redacted(uri)
        self._told: set[tuple[str, str]] = set()  # runs and names that have a GIVEN tag

    def experiment(self, name: str, *, note: str | None = None) -> str:
        """The id of the experiment of that name, made or brought back from the bin where needed."""
        name = mlflow_names.experiment(name)
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        location = None if self._artifacts is None else f"{self._artifacts}/{quote(mlflow_names.folder(name))}"
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
        tags = cut(tags, "tag")
        # A quote cannot be escaped in MLflow's filters: such a value is looked for below.
        asked = {key: value for key, value in tags.items() if not set(value) & set("'\"`\\")}
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in asked.items())
        stored: list[Stored] = []
        token: str | None = None
        while True:
            page = self.client.search_runs(
                [experiment], wanted, max_results=1000, order_by=["attributes.start_time ASC"], page_token=token
            )
            for run in page:
                info, data = run.info, run.data
                if all(data.tags.get(key) == value for key, value in tags.items()):
                    stored.append(Stored(info.run_id, info.run_name, info.status, data.tags, data.params, data.metrics))
            token = page.token
            if not token:
                return stored

    def create(self, experiment: str, name: str, *, tags: Mapping[str, str], started: float) -> str:
        """A new run, running since `started`; its id."""
        tags = cut({"mlflow.user": atomic_files.user(), "mlflow.source.name": "m3col", **tags}, "tag")
        run = self.client.create_run(experiment, start_time=_ms(started), tags=tags, run_name=mlflow_names.run(name))
        return str(run.info.run_id)

    def write(
        self, run: str, points: Iterable[Point] = (), *, params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Adds metrics, params and tags in as few calls as MLflow allows; an epoch is never torn over two calls."""
        from mlflow.entities import Metric, Param, RunTag

        points, params = [point for point in points if point.value is not None], params or {}
        numbers = [Metric(mlflow_names.key(p.name), float(p.value), _ms(p.time), p.step) for p in points]
        settings = [Param(key, value) for key, value in cut(params, "param").items()]
        given = self._as_given(run, [*(point.name for point in points), *params])
        labels = [RunTag(key, value) for key, value in cut({**given, **(tags or {})}, "tag").items()]
        batches = whole_epochs(numbers)
        while batches or settings or labels:
            self.client.log_batch(
                run, metrics=batches.pop(0) if batches else [], params=settings[:_PAIRS], tags=labels[:_PAIRS]
            )
            settings, labels = settings[_PAIRS:], labels[_PAIRS:]
        self._told.update((run, key) for key in given)

    def _as_given(self, run: str, names: Iterable[str]) -> dict[str, str]:
        """Tags that say how the names are written that MLflow knows by others, each told once to a run."""
        changed = [name for name in dict.fromkeys(names) if mlflow_names.key(name) != name]
        found = {f"{GIVEN}{mlflow_names.mark_of(name)}": name for name in changed}
        return {key: name for key, name in found.items() if (run, key) not in self._told}

    def last_step(self, run: str, metric: str) -> int:
        """The last epoch of which the store has this metric, 0 where it has none."""
        return max((point.step for point in self.client.get_metric_history(run, mlflow_names.key(metric))), default=0)

    def close(self, run: str, status: str, ended: float) -> None:
        self.client.set_terminated(run, status=status, end_time=_ms(ended))

    def reopen(self, run: str) -> None:
        """Makes an ended run running again."""
        self.client.update_run(run, status=RUNNING)

    def tag_experiment(self, experiment: str, tags: Mapping[str, str]) -> None:
        """Sets those tags that differ. `NOTE` is the Markdown at the top of the experiment's page."""
        there = self.client.get_experiment(experiment).tags
        for name, value in tags.items():
            key, value = mlflow_names.key(name), mlflow_names.text(value)
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
        """Whether the store tells anything of a run."""
        try:
            self.client.get_run(run)
        except Exception:  # whatever the client library raises
            return False
        return True

    def attempt(self, run: str, steps: Mapping[str, Callable[[], object]]) -> dict[str, str]:
        """Does every step, also after one that fails; names and reasons of those that failed. Where the store does not
        answer at all, the steps that are left are not tried, as each would wait for it again."""
        failed: dict[str, str] = {}
        for name, step in steps.items():
            try:
                step()
            except Exception as error:  # whatever MLflow, or a step of ours, raises
                failed[name] = payload.reason_of(error)
                if not self.answers(run):
                    break
        return failed

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

        from m3col.training.checkpoint import describe  # it needs torch

        described = describe(checkpoint, "model")
        kinds = stored_kinds(described)
        groups = model_columns(described["features"], kinds)
        columns = [column for group in groups.values() for column in group]
        shown = None if example is None else pd.DataFrame([np.concatenate(list(example.values()))], columns=columns)
        found = self.client.get_run(run)
        logged = self.client.create_logged_model(
            found.info.experiment_id, name="model", source_run_id=run, model_type="classifier", params=found.data.params
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
                    input_example=shown,
                    pip_requirements=[f"m3col=={__version__}"],
                )
                self.client.log_model_artifacts(logged.model_id, str(folder))
            self.client.finalize_logged_model(logged.model_id, "READY")
        except BaseException:
            with contextlib.suppress(Exception):  # else it would stay pending
                self.client.finalize_logged_model(logged.model_id, "FAILED")
            raise
        if listed:
            self.client.log_outputs(run, [LoggedModelOutput(logged.model_id, 0)])
        return str(logged.model_uri)

    @contextlib.contextmanager
    def running(self, experiment: str, name: str, *, tags: Mapping[str, str], started: float) -> Iterator[str]:
        """A new run while it lasts: FINISHED after it, FAILED after an error, KILLED after an interrupt."""
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
        """A finished run of that name in the named experiment, with these files below `under` of its artifacts."""
        with self.running(experiment, name, tags=tags, started=time.time()) as run:
            for path in paths:
                self.artifacts(run, path, under)
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
        warnings.simplefilter("always")  # and not as an error

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

    types: dict[str, Any] = {"double": DataType.double, "string": DataType.string, "any": AnyType()}
    return ModelSignature(
        inputs=Schema([ColSpec(types[modality_kinds.of(kind).mlflow_type], name) for name, kind in columns.items()]),
        outputs=Schema([ColSpec(DataType.double, name) for name in classes]),
    )


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
