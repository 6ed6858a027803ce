"""Ray Tune as the engine: reused trial actors, a searcher and a scheduler that only ask the conductor (PROTOCOL 8).

Tune's own checkpoints, loggers and restore are off: the study's folder is the record.
"""

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.tune
import torch
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.schedulers.trial_scheduler import TrialScheduler
from ray.tune.search import Searcher

from m3col import notices
from m3col.data.dataset import Dataset
from m3col.data.splits import read_csv
from m3col.distributed import Workers
from m3col.faults import BadInput
from m3col.judge import get
from m3col.patience import StorageRefused
from m3col.secrets import redacted, scrubbed
from tune import auth, joining, temporary, workers
from tune.attempts import Attempts
from tune.capacity import Watch, fitting, settled
from tune.conductor import Conductor, NoRoom
from tune.loopback import loopback
from tune.plan import Nothing
from tune.runs import Request, RunSpec
from tune.worker import Material, Worker

_ACTOR_DEATHS = 5  # restarts of one run that gets no further before it counts as failed
_PENDING = 100_000
WAIT_FOR_NODES_S = 20.0  # that are on their way to a cluster which somebody else started
_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_MAX_LEN_IDENTIFIER": "40",
    "TUNE_WARN_THRESHOLD_S": "5",
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def start_ray(*, address: str | None, threads: int, num_cpus: int | None = None, dashboard: bool = False) -> bool:
    """Connects to a cluster (`address` or $RAY_ADDRESS), or starts a local one; True if started.

    A cluster that the caller is already connected to is used as it is. `dashboard`: start the local one with its
    dashboard, on the loopback address. Raises BadInput within 60 s where there is no cluster that can be joined, or no
    folder for the files of a local one.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    wanted = joining.wanted(address)
    auth.settle(wanted is not None)
    if ray.is_initialized():
        return False
    environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
    common: dict[str, Any] = {
        "logging_level": "error",
        "log_to_driver": False,
        "runtime_env": {"env_vars": environment},
        "namespace": "m3col",
    }
    if wanted is not None:
        _join(*wanted, common)
        return False
    folder = temporary.folder(dashboard=dashboard)
    with loopback():
        # "local", because without an address Ray joins what its newest `ray start` on this machine left behind.
        place: dict[str, Any] = {"include_dashboard": dashboard, "dashboard_host": "127.0.0.1", "_temp_dir": folder}
        ray.init("local", num_cpus=num_cpus, **place, **common)
    return True


def _join(place: str, address: str, common: Mapping[str, Any]) -> None:
    joining.reach(place, address)
    try:
        ray.init(address=address, **common)
    except (ValueError, OSError, RuntimeError) as error:
        reason = " ".join(scrubbed(str(error)).split())[:200]
        raise BadInput([f"{place} {redacted(address)}: this Ray cluster cannot be joined ({reason})"]) from None


def stop_ray() -> None:
    """Ends the local cluster that `start_ray` started."""
    ray.shutdown()


def broken(name: str, error: BaseException) -> dict[str, Any]:
    """The result of a run that could not begin, or not go on. What Ray knows of its workers goes into its log."""
    refused = str(error) if isinstance(error, StorageRefused) else None
    return {
        "run": name, "epoch": 0, "records": [], "restart": False,
        "log": [] if error.__cause__ is None else [scrubbed(str(error.__cause__))], "refused": refused,
        "failure": None if refused else f"{type(error).__name__}: {error}", "done": True,
    }  # fmt: skip


def alone(request: Request, spec: RunSpec) -> Workers:
    """The place of a single worker. Ray lets a process see all GPUs of its machine where it has asked for none."""
    if request.gpus or get(spec.config, "train.device", "auto") != "auto":
        return Workers()
    return Workers(device=torch.device("cpu"))


class TrialActor(ray.tune.Trainable):
    """Serves one run after another. Every run opens its own folder, so that a fresh actor, a reused one and one on
    another node all go the same way."""

    def setup(self, config: dict[str, Any], **data: Any) -> None:
        self._data = data or getattr(self, "_data", {})
        self._open(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._open(new_config)
        return True

    def _open(self, config: Mapping[str, Any]) -> None:
        self._worker: Worker | None = None
        self._broken: dict[str, Any] | None = None
        spec = RunSpec.from_dict(config["run"])
        try:
            material = ray.get(self._data["material"][0])
            place = alone(self._data["request"], spec)
            self._worker = Worker(spec, material, probe=lambda: ray.get(self._data["probe"][0]), workers=place)
        except Exception as error:  # told as a result: an exception here would cost the actor and a retry
            self._broken = broken(spec.name, error)

    def step(self) -> dict[str, Any]:
        if self._worker is None:
            assert self._broken is not None
            return self._broken
        return self._worker.step()

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing: the worker found its own checkpoint when it opened its folder."""


def trial_of_workers(config: dict[str, Any], **data: Any) -> None:
    """A trial of several DDP workers: Ray Train inside the trial, as Ray documents it."""
    spec = RunSpec.from_dict(config["run"])
    device = str(get(spec.config, "train.device", "auto"))
    given = {**data, "run": config["run"], "device": device}
    study, uri = data["place"]
    attempts = Attempts(study, spec.name, uri=uri, config=spec.config)

    def reached() -> str | None:
        with contextlib.suppress(OSError):
            return attempts.newest()
        return None

    try:
        workers.fit(
            step_together, given, data["request"], device=device, name=spec.name, reached=reached,
            callbacks=[TuneReportCallback()], patience_s=data["patience_s"],
        )  # fmt: skip
    except ray.exceptions.RayError:  # a process of Ray Train died: Tune begins the trial anew, from its checkpoint
        raise
    except Exception as error:  # told as a result: it would happen again
        ray.tune.report(broken(spec.name, error))


def step_together(given: dict[str, Any]) -> None:
    """What each worker of a trial does."""
    place = workers.joined(given["device"])
    spec = RunSpec.from_dict(given["run"])
    worker = Worker(spec, ray.get(given["material"][0]), probe=lambda: ray.get(given["probe"][0]), workers=place)
    done = False
    while not done:
        result = worker.step()
        done = bool(result["done"])
        ray.train.report(result)


def check(request: Request, *, wait_s: float = 0.0) -> Request:
    """The request with its number of GPUs. Raises BadInput where the cluster cannot hold a single trial, also after
    `wait_s`, or cannot serve trials of several workers."""
    found = fitting(request, wait_s=wait_s)
    if request.workers > 1:
        workers.require_dashboard()
    return found


class _Ask(Searcher):
    """Tune's questions for the next trial, passed to the conductor."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles searcher and scheduler for a restore that is never asked for.
        return {}

    def __init__(self, conductor: Conductor, watch: Watch) -> None:
        super().__init__()
        self._conductor, self._watch = conductor, watch
        self._names: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        try:
            self._conductor.concurrency = self._watch.places()
        except NoRoom as error:
            self._conductor.stopped_by = error
            raise
        spec = self._conductor.next()
        if spec is Nothing.DONE:
            return Searcher.FINISHED
        if isinstance(spec, Nothing):
            return None
        self._names[trial_id] = spec.name
        return {"run": spec.to_dict()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if error:
            name = self._names[trial_id]
            self._conductor.failed(name, f"its process died more than {_ACTOR_DEATHS} times and got no further")

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study's folder is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study's folder is the record."""


class _Judge(FIFOScheduler):
    """Tune's results, passed to the conductor, and its verdict back."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __init__(self, conductor: Conductor) -> None:
        super().__init__()
        self._conductor = conductor
        self._reached: dict[str, int] = {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["epoch"] > self._reached.get(trial.trial_id, 0):
            # Machines that are taken away every hour end no run that gets further in between.
            self._reached[trial.trial_id] = result["epoch"]
            trial.run_metadata.num_failures = 0
        return TrialScheduler.STOP if self._conductor.result(result) else TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        # Tune calls on_trial_result no more once a result says "done".
        if result.get("done") and result.get("run") in self._conductor.busy:
            self._conductor.result(result)


class _QuietHandler(logging.FileHandler):
    """A log that cannot be written is lost: the disk may be what the search waits for."""

    def handleError(self, record: logging.LogRecord) -> None:
        return


@contextlib.contextmanager
def _log_of_tune(path: Path) -> Iterator[None]:
    """While it lasts, what Tune has to say of dead processes goes to a file instead of the terminal: the conductor says
    what it means."""
    logger, handler = logging.getLogger("ray.tune"), _QuietHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
        handler.close()


def run(
    conductor: Conductor, dataset: Dataset, request: Request, *, tell: Callable[[str], None] = notices.warn,
    actor: type[ray.tune.Trainable] | None = None,
) -> None:  # fmt: skip
    """Runs the plan to its end on the connected cluster, as many trials at a time as it holds.

    `dataset` may hold test inputs; labels of the test split are taken away before anything leaves this process.
    `tell`: hears when the cluster has no room left. `actor`: serves the runs in place of `TrialActor`;
    it gets the runs, and none of the data.
    """
    study, request, reused = conductor.plan.config, settled(request), request.workers == 1
    probe = None if dataset.test is None else dict(dataset.test.inputs)
    material = Material(
        study=str(conductor.folder.path),
        dataset=dataset.without_test(),
        folds=read_csv(conductor.folder.path / "splits.csv"),
        uri=study.settings.storage.of(conductor.folder.described()["name"]),
        patience_s=study.settings.storage.patience_s,
    )
    chosen: Any = TrialActor if reused else trial_of_workers
    # In lists: Tune would fetch them itself.
    shared: dict[str, Any] = {"material": [ray.put(material)], "probe": [ray.put(probe)]}
    if not reused:
        shared["patience_s"] = material.patience_s
    served = ray.tune.with_parameters(chosen, **shared, request=request, place=(material.study, material.uri))
    served = actor or served
    # A trial of several workers takes no CPU for itself: they have a placement group of their own. Tune wants it to ask
    # for something, and every node has a byte.
    served = ray.tune.with_resources(served, request.per_worker() if reused else {"CPU": 0, "memory": 1})
    # Tune starts one actor after the other by default; the conductor knows how many there is room for.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(_PENDING)
    watch = Watch(request, study.settings.search.concurrency, tell=tell)
    freed = contextlib.nullcontext() if reused else workers.orphans_freed()
    log = _log_of_tune(conductor.folder.path / "tune.log")
    with log, freed, tempfile.TemporaryDirectory(prefix="m3col-tune-") as scratch:
        ray.tune.Tuner(
            served,
            tune_config=ray.tune.TuneConfig(
                search_alg=_Ask(conductor, watch), scheduler=_Judge(conductor), num_samples=-1, reuse_actors=reused
            ),
            run_config=ray.tune.RunConfig(
                name="study",
                storage_path=scratch,
                verbose=0,
                failure_config=ray.tune.FailureConfig(max_failures=_ACTOR_DEATHS),
                checkpoint_config=ray.tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
    conductor.tidy()
