"""`tune.search`: everything judged first, then one study after the other, each resumed where it stood."""

import contextlib
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from m3col import config as run_config
from m3col import notices, sqlite_paths, tracking
from m3col.config import with_shards
from m3col.data import splits
from m3col.data.dataset import Dataset
from m3col.faults import BadInput, nearest
from m3col.prepare import Prepared, checkpoint_bytes, disk_faults, examine
from m3col.storage import uri_faults
from m3col.training import higher_is_better
from tune import config as search_config
from tune import database, resume
from tune import mirror as mirrors
from tune import study as studies
from tune.conductor import Conductor, Event
from tune.config import Sketch, StorageConfig, StudyConfig
from tune.mirror import Mirror
from tune.plan import CONFIRM_PARTITION, CONFIRM_SEED, SEARCH_PARTITION, Plan
from tune.resources import encoder_faults
from tune.runs import Request
from tune.sampling import Trials, first_rung
from tune.study import AUTO, StudyFolder

if TYPE_CHECKING:
    from tune.report import Report


@dataclass(frozen=True)
class SearchResult:
    """`best_config`: what `m3col.train` takes; `best_metrics`: the winner's scores, CV and test; `trials` and
    `test_table`: one row per trial, per row of the comparison; `studies`: folders, one per pair of data set and method;
    `leaderboard`: all of them in one table, None for a single study. Of several studies, the first four fields are
    those of the first."""

    best_config: dict[str, Any]
    best_metrics: dict[str, float]
    trials: pd.DataFrame
    test_table: pd.DataFrame
    summary: str
    studies: tuple[Path, ...]
    leaderboard: pd.DataFrame | None = None


@dataclass(frozen=True)
class Ready:
    """A study that passed every check: its config resolved against its data, and where its folder is or will be."""

    config: StudyConfig
    dataset: Dataset
    folder: StudyFolder | None
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Options:
    """How to run, as opposed to what: `name` of the study, `runs` folder, MLflow `tracking_uri`, Ray `address`.

    `resume`: the name of the study to go on with; True: the newest unfinished one of this config; "auto": the one
    called `name` (without a name: the newest unfinished one), which begins where there is none.
    `held`: called with a study that there is to go on with, before anything can stop it half-way; `started`: when its
    first runs are about to start. `warn`: gets every warning, one line each, by default as a UserWarning.
    """

    name: str | None = None
    resume: bool | str = False
    runs: str | Path | None = None
    tracking_uri: str | None = None
    address: str | None = None
    observe: Callable[[Event], None] = lambda event: None
    held: Callable[[StudyFolder], None] = lambda folder: None
    started: Callable[[StudyFolder, Conductor], None] = lambda folder, conductor: None
    num_cpus: int | None = None
    warn: Callable[[str], None] = notices.warn


def search(
    config: str | Path | Mapping[str, Any] | None = "digits",
    *,
    data: Any = None,
    overrides: Mapping[str, Any] | None = None,
    options: Options | None = None,
    **named: Any,
) -> SearchResult:
    """Searches, confirms, refits, tests once and reports.

    `config`: a shipped name, a YAML file or a mapping; None with `resume`: as the study stored it. `data`: arrays or
    DataFrames in memory. `overrides`: dotted keys of the search config or of its base run config. Further keywords are
    those of `Options`.
    Raises BadInput with every fault, of all studies, before Ray starts and before anything is written.
    """
    options = options or Options(**named)
    runs = studies.runs_folder(options.runs)
    ready = judge(config, data=data, overrides=overrides or {}, options=options)
    settings = ready[0].config.settings
    tracker = tracking.connect(options.tracking_uri or settings.tracking.uri, runs, artifacts=settings.storage.uri)
    search_id = uuid.uuid4().hex[:12]
    with contextlib.ExitStack() as held:
        for item in ready:
            if item.folder is not None:
                options.held(item.folder)
        # Before Ray starts: a study that is to go on may be in use.
        holds = [
            None if item.folder is None else resume.hold(item.folder, item.config, held, warn=options.warn)
            for item in ready
        ]
        from tune import engine  # it imports ray, which a faulty config should not wait for

        started_ray = engine.start_ray(
            address=options.address,
            threads=max(item.config.run.resources.threads for item in ready),
            num_cpus=options.num_cpus,
            dashboard=any(item.config.request.workers > 1 for item in ready),
        )
        if started_ray:
            held.callback(engine.stop_ray)
        done: list[StudyFolder] = []
        reports: list[Report] = []
        for item, mirror in zip(ready, holds, strict=True):
            # Before anything is written.
            request = engine.check(item.config.request, wait_s=0.0 if started_ray else engine.WAIT_FOR_NODES_S)
            name = options.name if len(ready) == 1 else None
            folder = item.folder or _create(item, runs, name, search_id, locked=True)
            with contextlib.ExitStack() as until_done:
                options.held(folder)
                mirror = mirror or resume.hold(folder, item.config, until_done, warn=options.warn)
                reports.append(_tracked(item, folder, mirror, tracker, request, options))
            done.append(folder)
    return _result(done, reports, runs)


def _tracked(
    item: Ready, folder: StudyFolder, mirror: Mirror, tracker: tracking.Tracker | None, request: Request,
    options: Options,
) -> "Report":  # fmt: skip
    from tune.background import Background

    with Background(folder, tracker, warn=options.warn, dataset=item.dataset):
        return _run(item, folder, mirror, request, options)


def judge(
    config: str | Path | Mapping[str, Any] | None, *, data: Any, overrides: Mapping[str, Any], options: Options
) -> list[Ready]:
    """Every study of the search against its data, its folder and the disk; all faults in one BadInput."""
    runs = studies.runs_folder(options.runs)
    sketches, faults = _sketches(config, data=data, overrides=overrides, options=options)
    ready: list[Ready] = []
    for sketch in sketches:
        study = sketch.study
        prepared, more = examine(study.run, data=data, where=sketch.place, faulty=sketch.faulty)
        faults += more
        if prepared is not None:
            try:
                ready.append(_resolve(sketch, prepared, runs, options, data=data, alone=len(sketches) == 1))
            except BadInput as error:
                faults += error.faults
    if options.name is not None and options.resume not in (False, AUTO):
        faults.append(f"--name {options.name}: a resumed study keeps its name; leave --name or --resume out")
    elif options.name is not None and len(sketches) > 1:
        faults.append("--name: this search makes several studies; leave the name out")
    if options.resume not in (False, AUTO) and len(ready) > 1 and not any(item.folder for item in ready):
        faults.append(f"--resume: {runs} has none of these studies; leave --resume out to begin them")
    if not ready:  # else this is a part of what _resolve looks at
        faults += disk_faults(runs, 0, what="a search")
    faults += sqlite_paths.faults(runs)
    if faults:
        raise BadInput(list(dict.fromkeys(faults)))
    return ready


def _sketches(
    config: str | Path | Mapping[str, Any] | None, *, data: Any, overrides: Mapping[str, Any], options: Options
) -> tuple[list[Sketch], list[str]]:
    """The studies that are asked for, from a config or as a study stored it, and the faults of their configs."""
    if config is not None:
        return search_config.draft(config, overrides=overrides, in_memory=data is not None)
    if not isinstance(options.resume, str) or options.resume == AUTO:
        raise BadInput(["search: name a config, or the study to go on with (--resume NAME)"])
    uri = overrides.get("storage.uri")
    storage = StorageConfig(uri=uri if isinstance(uri, str) and not uri_faults(uri, "storage.uri") else None)
    folder = resume.find(studies.runs_folder(options.runs), options.resume, storage)
    study = search_config.stored(folder.described()["config"], overrides)
    place = str(folder.path / studies.DESCRIPTION)
    return [Sketch(study, frozenset(), lambda path: place, place)], []


def _resolve(sketch: Sketch, prepared: Prepared, runs: Path, options: Options, *, data: Any, alone: bool) -> Ready:
    """The study with its rows resolved like its base, and the folder that a resume goes on in."""
    study, dataset = sketch.study, prepared.dataset
    workers = study.settings.resources.workers_per_trial
    run = with_shards(prepared.config, workers)
    faults = [f"{sketch.where}: {line}" for line in encoder_faults(prepared, workers)]
    rows = {}
    for name, row in study.rows.items():
        found, more = examine(row, data=data, where=f"{sketch.where}: final.rows.{name}")
        faults += more
        if found is not None:
            rows[name] = with_shards(found.config, workers)
            faults += [f"{sketch.where}: final.rows.{name}: {line}" for line in encoder_faults(found, workers)]
    final = study.settings.final
    if final.refit == "given" and dataset.validation is None:
        faults.append(
            f"{sketch.where}: final.refit 'given' needs a validation split, but {dataset.name} has none; use 'full'"
        )
    known = _known_metrics(dataset)
    faults += [
        f"{sketch.where}: final.published: metric {name!r} is never reported{nearest(name, known)}"
        for name in final.published
        if name not in known
    ]
    resolved = StudyConfig(study.name, run, study.space, study.raw_space, rows, study.settings)
    folder: StudyFolder | None = None
    warnings: list[str] = []
    storage = study.settings.storage
    unreachable = mirrors.reach(storage.uri) if storage.uri is not None else []
    unreachable += database.reach(storage.database) if storage.database is not None else []
    faults += [f"{sketch.where}: {line}" for line in unreachable]
    try:
        if not unreachable:
            folder, warnings = _resumable(resolved, dataset, runs, options, alone=alone)
        if folder is None and not unreachable:
            studies.new_name(runs, options.name, resolved, elsewhere=resume.is_taken(storage))
    except BadInput as error:
        faults += error.faults
    folds = 1 if run.validation.kind in ("holdout", "given") else run.validation.folds
    needed = (
        2 * checkpoint_bytes(run, dataset, folds=folds) * (study.settings.search.concurrency or os.cpu_count() or 2)
    )
    faults += disk_faults(runs, needed, what="a search with two checkpoints for each running trial")
    if faults:
        raise BadInput(faults)
    return Ready(resolved, dataset, folder, [*dataset.warnings, *warnings])


def _known_metrics(dataset: Dataset) -> tuple[str, ...]:
    from m3col import metrics

    return metrics.names(dataset.num_classes)


def _resumable(
    study: StudyConfig, dataset: Dataset, runs: Path, options: Options, *, alone: bool
) -> tuple[StudyFolder | None, list[str]]:
    """The folder to go on in, and what is worth a warning. Raises BadInput where the study began differently.

    Of a search over several data sets or methods, the studies that had not begun yet begin now.
    """
    if not options.resume:
        return None, []
    folder = resume.folder_for(runs, study, options.resume, options.name)
    if folder is None and (options.resume == AUTO or not alone):
        return None, []
    if folder is None:
        raise BadInput([f"--resume: {runs} has no study of {study.name!r}; leave --resume out to begin one"])
    return folder, resume.warnings(folder, study, dataset, splits=_partitions_digest(study, dataset))


def partitions(study: StudyConfig, dataset: Dataset) -> dict[str, list[splits.Fold]]:
    """The folds of the search and of the confirmation, drawn from the study's seed alone."""
    validation = study.run.validation
    assert validation.kind is not None

    def drawn(seed: int) -> list[splits.Fold]:
        return splits.draw(
            dataset, kind=str(validation.kind), folds=validation.folds, fraction=validation.fraction, seed=seed
        )

    return {SEARCH_PARTITION: drawn(validation.seed), CONFIRM_PARTITION: drawn(validation.seed + CONFIRM_SEED)}


def _partitions_digest(study: StudyConfig, dataset: Dataset) -> str:
    drawn = partitions(study, dataset)
    return run_config.digest({name: [fold.validation.tolist() for fold in folds] for name, folds in drawn.items()})


def _create(item: Ready, runs: Path, name: str | None, search_id: str, *, locked: bool = False) -> StudyFolder:
    folder = StudyFolder.create(
        runs,
        studies.new_name(runs, name, item.config, elsewhere=resume.is_taken(item.config.settings.storage)),
        item.config,
        item.dataset,
        partitions_digest=_partitions_digest(item.config, item.dataset),
        search_id=search_id,
        locked=locked,
    )
    return folder


def _run(item: Ready, folder: StudyFolder, mirror: Mirror, request: Request, options: Options) -> "Report":
    from tune import engine, predictions, reasons, report

    config, dataset = item.config, item.dataset
    if not (folder.path / "splits.csv").exists():
        samples = splits.pool(dataset, str(config.run.validation.kind))
        drawn = partitions(config, dataset)
        folder.patience.call(lambda: splits.write_csv(folder.path / "splits.csv", samples.ids, drawn))
    if item.folder is not None:
        folder.reopen(config)
    for line in item.warnings:
        options.warn(line)
    trials = Trials(
        folder.storage(),
        name=folder.database_name(),
        settings=config.settings.search,
        maximize=higher_is_better(str(config.run.metric)),
        space=config.space,
        rung=first_rung(config.run.objective.switch_point),
        patience=folder.patience,
    )
    mirror.begin()
    plan = Plan(folder, config, trials)
    conductor = Conductor(plan, observe=options.observe, mirror=mirror, warn=options.warn)
    options.started(folder, conductor)
    try:
        engine.run(conductor, dataset, request, tell=options.warn)
    except Exception:
        if conductor.stopped_by is not None:  # the engine makes a long text of it
            raise conductor.stopped_by from None
        raise
    if not plan.scored():
        raise SearchFailed(reasons.no_winner(plan))
    folder.patience.call(lambda: predictions.collect(folder, config, dataset))
    found = folder.patience.call(lambda: report.write(folder))
    for told in (reasons.no_model(folder) or reasons.failed_refits(folder), reasons.budget_left_trials(plan)):
        if told is not None:
            options.warn(told)
    mirror.finished()
    return found


class SearchFailed(RuntimeError):
    """A search that ended without a single finished trial; the message says why, and which value to change."""


def _result(done: Sequence[StudyFolder], reports: Sequence["Report"], runs: Path) -> SearchResult:
    first = reports[0]
    best = (done[0].results / "best_config.yaml").read_text(encoding="utf-8")
    from m3col import yamlio

    board = None
    if len(done) > 1:
        from tune import tables

        board = tables.leaderboard(done)
        board.to_csv(runs / f"leaderboard-{done[0].described()['search_id']}.csv", index=False)
    return SearchResult(
        best_config=yamlio.parse(best),
        best_metrics=first.best_metrics,
        trials=first.trials,
        test_table=first.test_table,
        summary="\n\n".join(item.summary for item in reports),
        studies=tuple(folder.path for folder in done),
        leaderboard=board,
    )
