"""Runs one study that has passed every check: its runs on the cluster, its results, and its page in MLflow."""

from pathlib import Path
from typing import TYPE_CHECKING

from m3col.data import splits
from m3col.methods import registry
from m3col.metrics.spec import higher_is_better
from m3col.tracking import mlflow_store
from tune.checks import CheckedStudy, Options
from tune.config.resources import Request
from tune.errors import SearchFailed
from tune.scheduling.coordinator import Coordinator
from tune.scheduling.optuna_study import Trials, first_rung
from tune.scheduling.plan import Plan
from tune.study import directory, resume
from tune.study.partitions import partitions, partitions_digest
from tune.study.record import StudyFolder
from tune.study.remote_copy import RemoteCopy

if TYPE_CHECKING:
    from tune.results.report import Report


def run_tracked(
    item: CheckedStudy, folder: StudyFolder, mirror: RemoteCopy, tracker: mlflow_store.Tracker | None, request: Request,
    options: Options,
) -> "Report":  # fmt: skip
    """Runs a study whose folder this process has acquired.

    Args:
        item: the study and its data.
        folder: its folder; with `item.folder` it is resumed.
        mirror: its copy in a storage.
        tracker: the MLflow store; None: it has no page.
        request: the resources of one run.
        options: how to run.

    Returns:
        The results.

    Raises:
        SearchFailed: no trial finished.
    """
    from tune.tracking.live_sync import Background

    with Background(folder, tracker, warn=options.warn, dataset=item.dataset) as tracking:
        tracking.report = _run(item, folder, mirror, request, options)
    return tracking.report


def create(item: CheckedStudy, runs: Path, name: str | None, search_id: str, *, locked: bool = False) -> StudyFolder:
    """Creates the folder of a study under a free name, see `directory.new_name` and `StudyFolder.create`."""
    return StudyFolder.create(
        runs,
        directory.new_name(runs, name, item.config, elsewhere=resume.is_taken(item.config.settings.storage)),
        item.config,
        item.dataset,
        partitions_digest=partitions_digest(item.config, item.dataset),
        search_id=search_id,
        locked=locked,
    )


def _run(item: CheckedStudy, folder: StudyFolder, mirror: RemoteCopy, request: Request, options: Options) -> "Report":
    from tune.engine import ray_tune
    from tune.results import baseline_process, collect, failure_reasons, report

    config, dataset = item.config, item.dataset
    if not (folder.path / "splits.csv").exists():
        samples = splits.pool(dataset, str(config.run.validation.kind))
        drawn = partitions(config, dataset)
        folder.retry_policy.call(lambda: splits.write_csv(folder.path / "splits.csv", samples.ids, drawn))
    if item.folder is not None:
        folder.reopen(config)
    for line in item.warnings:
        options.warn(line)
    trials = Trials(
        folder.storage(),
        name=folder.database_name(),
        settings=config.settings.search,
        maximize=higher_is_better(str(config.run.metric)),
        metric=str(config.run.metric),
        space=config.space,
        rung=first_rung(registry.find(config.run.method).share_before_pruning(config.run.objective)),
        retry_policy=folder.retry_policy,
    )
    mirror.begin()
    plan = Plan(folder, config, trials)
    coordinator = Coordinator(plan, observe=options.observe, mirror=mirror, warn=options.warn)
    options.started(folder, coordinator)
    with baseline_process.beside(config, dataset, splits.read_csv(folder.path / "splits.csv")) as baselines:
        try:
            ray_tune.run(coordinator, dataset, request, warn=options.warn)
        except Exception:
            if coordinator.stopped_by is not None:  # in place of the exception that Ray Tune wraps it in
                raise coordinator.stopped_by from None
            raise
        if not plan.scored():
            raise SearchFailed(failure_reasons.no_winner(plan))
        fitted = baselines()
    folder.retry_policy.call(lambda: collect.collect(folder, config, dataset, fitted))
    written = folder.retry_policy.call(lambda: report.write(folder))
    for warning in (
        failure_reasons.no_model(folder) or failure_reasons.failed_refits(folder),
        failure_reasons.budget_left_trials(plan),
    ):
        if warning is not None:
            options.warn(warning)
    mirror.finished()
    return written
