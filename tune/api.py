"""`tune.search`: validates everything first, then runs one study after the other."""

import contextlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3col.data import splits
from m3col.methods import registry
from m3col.metrics.spec import higher_is_better
from m3col.runtime import notices
from m3col.tracking import mlflow_store
from tune.checks import CheckedStudy, Options, validate
from tune.config.resources import Request
from tune.engine import ray_cluster
from tune.errors import SearchFailed
from tune.results import leaderboard as results_leaderboard
from tune.scheduling.coordinator import Coordinator, Event
from tune.scheduling.optuna_study import Trials, first_rung
from tune.scheduling.plan import Plan
from tune.search_result import SearchResult
from tune.study import directory, resume
from tune.study.partitions import partitions, partitions_digest
from tune.study.record import StudyFolder
from tune.study.remote_copy import RemoteCopy

if TYPE_CHECKING:
    from tune.results.report import Report


def search(
    config: str | Path | Mapping[str, Any] | None = "digits",
    *,
    data: Any = None,
    overrides: Mapping[str, Any] | None = None,
    name: str | None = None,
    resume: bool | str = False,
    runs: str | Path | None = None,
    tracking_uri: str | None = None,
    address: str | None = None,
    num_cpus: int | None = None,
    observe: Callable[[Event], None] | None = None,
    warn: Callable[[str], None] | None = None,
    options: Options | None = None,
) -> SearchResult:
    """Runs a hyperparameter search: trials, confirmation of the best, refits, one evaluation on the test split, report.

    Args:
        config: the search: name of a shipped config, path of a YAML file, or a mapping. None with `resume`: the config
            that the study stored.
        data: a data set in memory, as for `m3col.train`. Default: the data set that the config names.
        overrides: values by dotted key, of the search config ("search.trials") or of its base run config
            ("train.epochs").
        name: name of the study. Default: the config's name and a number.
        resume: name of the study to resume; True: the newest unfinished one of this config; "auto": the one called
            `name`, without a name the newest unfinished one, and a new one if there is none. Default: a new study.
        runs: folder of studies. Default: $M3COL_RUNS, else "runs".
        tracking_uri: MLflow tracking URI; "none" switches tracking off. Default: the config's, else SQLite below
            `runs`.
        address: Ray cluster to join. Default: $RAY_ADDRESS, else a local one that ends with the search.
        num_cpus: CPUs of that local cluster. Default: all.
        observe: called with each event: a run starts, reports or ends.
        warn: called with each warning, one line each. Default: `warnings.warn`.
        options: replaces all arguments from `name` on; has some more settings.

    Returns:
        The winner, all trials, the test table, and the folders of the studies.

    Raises:
        InputError: with every fault, of all studies, before Ray starts and before anything is written.
        SearchFailed: no trial of a study finished.

    Example:
        >>> import tempfile, tune
        >>> small = {"search.trials": 2, "search.replicates": 0, "search.confirm": None, "final.seeds": 1}
        >>> result = tune.search(
        ...     "digits", overrides={**small, "train.epochs": 3}, runs=tempfile.mkdtemp(), tracking_uri="none"
        ... )
        >>> len(result.trials), result.test_table["row"].tolist()[0]
        (2, 'winner')
    """
    if options is None:
        options = Options(
            name=name, resume=resume, runs=runs, tracking_uri=tracking_uri, address=address, num_cpus=num_cpus,
            observe=observe or (lambda event: None), warn=warn or notices.warn,
        )  # fmt: skip
    return run_checked(validate(config, data=data, overrides=overrides or {}, options=options), options)


def run_checked(ready: Sequence[CheckedStudy], options: Options) -> SearchResult:
    """Runs studies that `tune.checks.validate` has validated with the same options.

    Args:
        ready: the studies, in the order in which they run; at least one.
        options: how to run.

    Returns:
        The result of all studies.

    Raises:
        InputError: another process runs one of the studies, or a trial does not fit on the cluster.
        SearchFailed: no trial of a study finished.
    """
    runs = directory.runs_folder(options.runs)
    settings = ready[0].config.settings
    tracker = mlflow_store.connect(options.tracking_uri or settings.tracking.uri, runs, artifacts=settings.storage.uri)
    search_id = uuid.uuid4().hex[:12]
    with contextlib.ExitStack() as exit_stack:
        for item in ready:
            if item.folder is not None:
                options.on_study(item.folder)
        # Before Ray starts: a study to be resumed may be in use.
        mirrors = [
            None if item.folder is None else resume.acquire(item.folder, item.config, exit_stack, warn=options.warn)
            for item in ready
        ]
        from tune.engine import ray_tune  # imported late, because importing ray is slow

        started_ray = ray_cluster.start_ray(
            address=options.address,
            threads=max(item.config.run.resources.threads for item in ready),
            num_cpus=options.num_cpus,
            dashboard=any(item.config.request.workers > 1 for item in ready),
        )
        if started_ray:
            exit_stack.callback(ray_cluster.stop_ray)
        done: list[StudyFolder] = []
        reports: list[Report] = []
        for item, mirror in zip(ready, mirrors, strict=True):
            # Checked before anything is written.
            wait_s = 0.0 if started_ray else ray_cluster.WAIT_FOR_NODES_S
            request = ray_tune.check(item.config.request, config=item.config.run, wait_s=wait_s)
            name = options.name if len(ready) == 1 else None
            folder = item.folder or _create(item, runs, name, search_id, locked=True)
            with contextlib.ExitStack() as until_done:
                options.on_study(folder)
                mirror = mirror or resume.acquire(folder, item.config, until_done, warn=options.warn)
                reports.append(_tracked(item, folder, mirror, tracker, request, options))
            done.append(folder)
    return _result(done, reports, runs)


def _tracked(
    item: CheckedStudy, folder: StudyFolder, mirror: RemoteCopy, tracker: mlflow_store.Tracker | None, request: Request,
    options: Options,
) -> "Report":  # fmt: skip
    from tune.tracking.live_sync import Background

    with Background(folder, tracker, warn=options.warn, dataset=item.dataset) as tracking:
        tracking.report = _run(item, folder, mirror, request, options)
    return tracking.report


def _create(item: CheckedStudy, runs: Path, name: str | None, search_id: str, *, locked: bool = False) -> StudyFolder:
    folder = StudyFolder.create(
        runs,
        directory.new_name(runs, name, item.config, elsewhere=resume.is_taken(item.config.settings.storage)),
        item.config,
        item.dataset,
        partitions_digest=partitions_digest(item.config, item.dataset),
        search_id=search_id,
        locked=locked,
    )
    return folder


def _run(item: CheckedStudy, folder: StudyFolder, mirror: RemoteCopy, request: Request, options: Options) -> "Report":
    from tune.engine import ray_tune
    from tune.results import collect, failure_reasons, report

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
    try:
        ray_tune.run(coordinator, dataset, request, warn=options.warn)
    except Exception:
        if coordinator.stopped_by is not None:  # in place of the exception that Ray Tune wraps it in
            raise coordinator.stopped_by from None
        raise
    if not plan.scored():
        raise SearchFailed(failure_reasons.no_winner(plan))
    folder.retry_policy.call(lambda: collect.collect(folder, config, dataset))
    written = folder.retry_policy.call(lambda: report.write(folder))
    for warning in (
        failure_reasons.no_model(folder) or failure_reasons.failed_refits(folder),
        failure_reasons.budget_left_trials(plan),
    ):
        if warning is not None:
            options.warn(warning)
    mirror.finished()
    return written


def _result(done: Sequence[StudyFolder], reports: Sequence["Report"], runs: Path) -> SearchResult:
    first = reports[0]
    best = (done[0].results / "best_config.yaml").read_text(encoding="utf-8")
    from m3col.config import yaml_files

    board = None
    if len(done) > 1:
        board = results_leaderboard.leaderboard(done, reports)
        board.to_csv(runs / f"leaderboard-{done[0].described()['search_id']}.csv", index=False)
    return SearchResult(
        best_config=yaml_files.parse(best),
        best_metrics=first.best_metrics,
        trials=first.trials,
        test_table=first.test_table,
        summary="\n\n".join(item.summary for item in reports),
        studies=tuple(folder.path for folder in done),
        leaderboard=board,
    )
