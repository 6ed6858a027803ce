"""`tune.search`: validates everything first, then runs one study after the other."""

import contextlib
import dataclasses
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3col.runtime import notices, phases
from m3col.tracking import mlflow_store
from tune.checks import CheckedStudy, Options, validate
from tune.engine import ray_cluster
from tune.engine.early_start import EarlyStart
from tune.outer import tree_result, tree_run
from tune.outer.tree_result import TreeResult
from tune.results import leaderboard as results_leaderboard
from tune.scheduling.coordinator import Event
from tune.search_result import SearchResult
from tune.study import directory, resume
from tune.study.record import StudyFolder
from tune.study_run import create, run_tracked

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
        InputError: with every fault, of all studies, before anything is written.
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
    with EarlyStart(options.address, options.num_cpus) as cluster:
        options = dataclasses.replace(options, parsed=cluster.begin)
        return run_checked(validate(config, data=data, overrides=overrides or {}, options=options), options, cluster)


def _start_ray(ready: Sequence[CheckedStudy], options: Options, exit_stack: contextlib.ExitStack) -> bool:
    """Starts or joins the cluster. Returns whether it was started here; then the end of the stack ends it."""
    started = ray_cluster.start_ray(
        address=options.address,
        threads=max(item.config.run.resources.threads for item in ready),
        num_cpus=options.num_cpus,
        dashboard=any(item.config.request.workers > 1 for item in ready),
    )
    if started:
        exit_stack.callback(ray_cluster.stop_ray)
    return started


def run_checked(ready: Sequence[CheckedStudy], options: Options, cluster: EarlyStart) -> SearchResult:
    """Runs studies that `tune.checks.validate` has validated with the same options.

    Args:
        ready: the studies, in the order in which they run; at least one.
        options: how to run.
        cluster: a local cluster that may have been started meanwhile.

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
        # Before the search uses Ray: a study to be resumed may be in use.
        mirrors = [
            None if item.folder is None else resume.acquire(item.folder, item.config, exit_stack, warn=options.warn)
            for item in ready
        ]
        from tune.engine import ray_tune  # imported late, because importing ray is slow

        started_ray = cluster.started() or _start_ray(ready, options, exit_stack)
        phases.ended("Ray started")
        done: list[StudyFolder] = []
        reports: list[Report] = []
        trees: list[TreeResult] = []
        for item, mirror in zip(ready, mirrors, strict=True):
            # Checked before anything is written.
            wait_s = 0.0 if started_ray else ray_cluster.WAIT_FOR_NODES_S
            request = ray_tune.check(item.config.request, config=item.config.run, wait_s=wait_s)
            name = options.name if len(ready) == 1 else None
            if item.tree is not None:
                tree = tree_run.open_folder(item, runs, name, search_id, options)
                exit_stack.callback(tree.unlock)
                report = tree_run.run_tree(tree_run.TreeRun(item, tree, tracker, request, options, search_id))
                trees.append(TreeResult(tree, report))
                continue
            folder = item.folder or create(item, runs, name, search_id, locked=True)
            with contextlib.ExitStack() as until_done:
                options.on_study(folder)
                mirror = mirror or resume.acquire(folder, item.config, until_done, warn=options.warn)
                reports.append(run_tracked(item, folder, mirror, tracker, request, options))
            done.append(folder)
    return tree_result.of(trees) if trees else _result(done, reports, runs)


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
