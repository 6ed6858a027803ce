"""Runs a study with Ray Tune: reused trial actors; searcher and scheduler delegate to the coordinator (PROTOCOL 8).

Tune's own checkpoints, loggers and restore are off: the study's folder is the record.
"""

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.schedulers.trial_scheduler import TrialScheduler
from ray.tune.search import Searcher

from m3col.config.schema import RunConfig
from m3col.data.dataset import Dataset
from m3col.data.splits import read_csv
from m3col.errors import reason_of
from m3col.methods import registry
from m3col.runtime import notices
from tune.config.resources import Request
from tune.engine import ray_train
from tune.engine.capacity import Watch, check_device, fitting, with_gpus
from tune.engine.run_executor import SharedStudyData
from tune.engine.trials import TrialActor, trial_of_workers
from tune.errors import NoCapacity
from tune.scheduling.coordinator import Coordinator
from tune.scheduling.plan import NextRun
from tune.study.run_messages import RunReport

_ACTOR_DEATHS = 5  # restarts of one run without progress before it counts as failed

_PENDING = 100_000

_RAISED = re.compile(r"[\w.]+(Error|Exception): ")  # the last line of a traceback


def check(request: Request, *, config: RunConfig | None = None, wait_s: float = 0.0) -> Request:
    """Checks that the connected cluster can run a trial.

    Args:
        request: what one trial asks for.
        config: of the trials; None (default): their device and precision are not checked.
        wait_s: seconds to wait for nodes that are still joining, default 0.

    Returns:
        The request with its number of GPUs.

    Raises:
        InputError: the cluster cannot hold a single trial, has no dashboard for trials of several workers, or has GPUs
            that the trials cannot use.
    """
    fitted = fitting(request, wait_s=wait_s)
    if request.workers > 1:
        ray_train.require_dashboard()
    if config is not None:
        check_device(config, fitted)
    return fitted


class CoordinatorSearcher(Searcher):
    """Ray Tune's searcher: asks the coordinator for the next run. `errors`: the last error of each of Tune's trials."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles searcher and scheduler for a restore, which is never used.
        return {}

    def __init__(self, coordinator: Coordinator, watch: Watch, errors: Mapping[str, str]) -> None:
        super().__init__()
        self._coordinator, self._watch, self._errors = coordinator, watch, errors
        self._names: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        try:
            self._coordinator.concurrency = self._watch.places()
        except NoCapacity as error:
            self._coordinator.stopped_by = error
            raise
        spec = self._coordinator.next()
        if spec is NextRun.DONE:
            return Searcher.FINISHED
        if isinstance(spec, NextRun):
            return None
        self._names[trial_id] = spec.name
        return {"run": spec.to_dict()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if error:
            last = self._errors.get(trial_id, "")
            reason = f"its process died more than {_ACTOR_DEATHS} times and got no further"
            self._coordinator.failed(self._names[trial_id], f"{reason}; its last error: {last}" if last else reason)

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return True

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the study's folder is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing: the study's folder is the record."""


class CoordinatorScheduler(FIFOScheduler):
    """Ray Tune's scheduler: passes reports to the coordinator and returns its decision to stop or continue."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __init__(self, coordinator: Coordinator, errors: dict[str, str]) -> None:
        super().__init__()
        self._coordinator, self._errors = coordinator, errors
        self._reached: dict[str, int] = {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        report = RunReport.from_dict(result)
        if report.epoch > self._reached.get(trial.trial_id, 0):
            # A run that makes progress between the deaths of its process is not counted as failed.
            self._reached[trial.trial_id] = report.epoch
            trial.run_metadata.num_failures = 0
        return TrialScheduler.STOP if self._coordinator.on_report(report) else TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Notes why a process of a trial ended; Tune calls it each time, also where it starts the trial anew."""
        with contextlib.suppress(OSError):
            lines = Path(trial.error_file).read_text(encoding="utf-8", errors="replace").splitlines()
            raised = [line for line in lines if _RAISED.match(line)]
            self._errors[trial.trial_id] = reason_of(raised[-1]) if raised else ""

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        # Tune does not call on_trial_result for a result with "done".
        if result.get("done") and result.get("run") in self._coordinator.busy:
            self._coordinator.on_report(RunReport.from_dict(result))


class _QuietHandler(logging.FileHandler):
    """A log file that ignores write errors: the search may be waiting for the disk."""

    def handleError(self, record: logging.LogRecord) -> None:
        return


@contextlib.contextmanager
def _log_of_tune(path: Path) -> Iterator[None]:
    """Sends Tune's messages about dead processes to a file instead of the terminal; the coordinator reports what they
    mean."""
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
    coordinator: Coordinator, dataset: Dataset, request: Request, *, warn: Callable[[str], None] = notices.warn,
    actor: type[ray.tune.Trainable] | None = None,
) -> None:  # fmt: skip
    """Runs all runs of a study on the connected cluster, as many at a time as fit.

    Args:
        coordinator: schedules the runs and records their reports.
        dataset: the data. Test labels stay in this process; only the test inputs are sent to the workers.
        request: the resources of one run.
        warn: called with a line when not a single run fits on the cluster any more.
        actor: replaces `TrialActor`, for tests; it receives no data.
    """
    study, request, reused = coordinator.plan.config, with_gpus(request), request.workers == 1
    test_inputs = None if dataset.test is None else dict(dataset.test.inputs)
    shared_data = SharedStudyData(
        study=str(coordinator.folder.path),
        dataset=dataset.without_test(),
        folds=read_csv(coordinator.folder.path / "splits.csv"),
        uri=study.settings.storage.of(coordinator.folder.described()["name"]),
        patience_s=study.settings.storage.patience_s,
        import_folders=registry.import_folders(),
    )
    trainable: Any = TrialActor if reused else trial_of_workers
    # In lists, because Tune would replace bare object references with their values.
    shared: dict[str, Any] = {"shared_data": [ray.put(shared_data)], "test_inputs": [ray.put(test_inputs)]}
    if not reused:
        shared["patience_s"] = shared_data.patience_s
    trainable = ray.tune.with_parameters(
        trainable, **shared, request=request, place=(shared_data.study, shared_data.uri)
    )
    trainable = actor or trainable
    # With several workers the trial's own process needs no CPU: the workers have their own placement group. Tune
    # requires a request that is not empty, so it is one byte of memory.
    trainable = ray.tune.with_resources(trainable, request.per_worker() if reused else {"CPU": 0, "memory": 1})
    # By default Tune starts actors one after the other; here the coordinator limits their number.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(_PENDING)
    errors: dict[str, str] = {}
    watch = Watch(request, study.settings.search.concurrency, warn=warn)
    cleanup = contextlib.nullcontext() if reused else ray_train.orphans_freed()
    log = _log_of_tune(coordinator.folder.path / "tune.log")
    with log, cleanup, tempfile.TemporaryDirectory(prefix="m3col-tune-") as scratch:
        ray.tune.Tuner(
            trainable,
            tune_config=ray.tune.TuneConfig(
                search_alg=CoordinatorSearcher(coordinator, watch, errors),
                scheduler=CoordinatorScheduler(coordinator, errors),
                num_samples=-1,
                reuse_actors=reused,
            ),
            run_config=ray.tune.RunConfig(
                name="study",
                storage_path=scratch,
                verbose=0,
                failure_config=ray.tune.FailureConfig(max_failures=_ACTOR_DEATHS),
                checkpoint_config=ray.tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
    coordinator.tidy()
