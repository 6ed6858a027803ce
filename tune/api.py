"""`tune.search`: everything judged first, then one study after the other, each resumed where it stood."""

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from m3col import config as run_config
from m3col import tracking
from m3col.data import splits
from m3col.data.dataset import Dataset
from m3col.faults import BadInput, nearest
from m3col.prepare import Prepared, checkpoint_bytes, disk_faults, examine
from m3col.training import higher_is_better
from tune import config as search_config
from tune import study as studies
from tune.conductor import Conductor, Event
from tune.config import Sketch, StudyConfig
from tune.plan import CONFIRM_PARTITION, CONFIRM_SEED, SEARCH_PARTITION, Plan
from tune.sampling import Trials, first_rung
from tune.study import StudyFolder

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
    """How to run, as opposed to what: `name` of the study, `resume` (True: the newest unfinished one of this config, or
    a name), `runs` folder, MLflow `tracking_uri`, Ray `address`."""

    name: str | None = None
    resume: bool | str = False
    runs: str | Path | None = None
    tracking_uri: str | None = None
    address: str | None = None
    observe: Callable[[Event], None] = lambda event: None
    started: Callable[[StudyFolder, Conductor], None] = lambda folder, conductor: None
    num_cpus: int | None = None
    warn: Callable[[str], None] = field(default=lambda line: None)


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
    tracker = tracking.connect(options.tracking_uri or ready[0].config.settings.tracking.uri, runs)
    search_id = uuid.uuid4().hex[:12]
    from tune import engine, sync  # they import ray and mlflow, which a faulty config should not wait for

    threads = max(item.config.run.resources.threads for item in ready)
    started_ray = engine.start_ray(address=options.address, threads=threads, num_cpus=options.num_cpus)
    try:
        done: list[StudyFolder] = []
        reports: list[Report] = []
        for item in ready:
            settings = item.config.settings.resources
            cpus = settings.cpus_per_trial or float(item.config.run.resources.threads)
            places = engine.places(cpus, settings.gpus_per_trial)
            folder = item.folder or _create(item, runs, options.name if len(ready) == 1 else None, search_id)
            folder.lock()
            try:
                with sync.Background(folder, tracker, warn=options.warn, dataset=item.dataset):
                    found = _run(item, folder, places=places, cpus=cpus, gpus=settings.gpus_per_trial, options=options)
            finally:
                folder.unlock()
            done.append(folder)
            reports.append(found)
    finally:
        if started_ray:
            engine.stop_ray()
    return _result(done, reports, runs)


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
    if options.name is not None and options.resume:
        faults.append(f"--name {options.name}: a resumed study keeps its name; leave --name or --resume out")
    elif options.name is not None and len(sketches) > 1:
        faults.append("--name: this search makes several studies; leave the name out")
    if options.resume and len(ready) > 1 and not any(item.folder for item in ready):
        faults.append(f"--resume: {runs} has none of these studies; leave --resume out to begin them")
    if not ready:  # else this is a part of what _resolve looks at
        faults += disk_faults(runs, 0, what="a search")
    if faults:
        raise BadInput(list(dict.fromkeys(faults)))
    return ready


def _sketches(
    config: str | Path | Mapping[str, Any] | None, *, data: Any, overrides: Mapping[str, Any], options: Options
) -> tuple[list[Sketch], list[str]]:
    """The studies that are asked for, from a config or as a study stored it, and the faults of their configs."""
    if config is not None:
        return search_config.draft(config, overrides=overrides, in_memory=data is not None)
    if not isinstance(options.resume, str):
        raise BadInput(["search: name a config, or the study to go on with (--resume NAME)"])
    folder = studies.find(studies.runs_folder(options.runs), options.resume)
    study = search_config.stored(folder.described()["config"], overrides)
    place = str(folder.path / studies.DESCRIPTION)
    return [Sketch(study, frozenset(), lambda path: place, place)], []


def _resolve(sketch: Sketch, prepared: Prepared, runs: Path, options: Options, *, data: Any, alone: bool) -> Ready:
    """The study with its rows resolved like its base, and the folder that a resume goes on in."""
    study, run, dataset = sketch.study, prepared.config, prepared.dataset
    faults: list[str] = []
    rows = {}
    for name, row in study.rows.items():
        found, more = examine(row, data=data, where=f"{sketch.where}: final.rows.{name}")
        faults += more
        if found is not None:
            rows[name] = found.config
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
    try:
        folder, warnings = _resumable(resolved, dataset, runs, options, alone=alone)
        if folder is None:
            studies.new_name(runs, options.name, resolved)
    except BadInput as error:
        faults += error.faults
    folds = 1 if run.validation.kind in ("holdout", "given") else run.validation.folds
    needed = (
        2 * checkpoint_bytes(run, dataset, folds=folds) * (study.settings.search.concurrency or os.cpu_count() or 2)
    )
    faults += disk_faults(runs, needed, what="a search with two checkpoints for each running trial")
    if faults:
        raise BadInput(faults)
    return Ready(resolved, dataset, folder, warnings)


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
    if isinstance(options.resume, str):
        folder: StudyFolder | None = studies.find(runs, options.resume)
    else:
        folder = studies.newest(runs, study)
    if folder is None and not alone:
        return None, []
    if folder is None:
        raise BadInput([f"--resume: {runs} has no study of {study.name!r}; leave --resume out to begin one"])
    found = folder.described()
    lines = studies.differences(found["config"], study.to_dict())
    lines += studies.digest_differences(found["digests"], dataset, _partitions_digest(study, dataset))
    if lines:
        raise BadInput([f"{folder.path / studies.DESCRIPTION}: {line}" for line in lines])
    folder.lock()  # whether it is in use should be known before Ray starts
    folder.unlock()
    return folder, studies.version_warnings(found["versions"])


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


def _create(item: Ready, runs: Path, name: str | None, search_id: str) -> StudyFolder:
    folder = StudyFolder.create(
        runs,
        studies.new_name(runs, name, item.config),
        item.config,
        item.dataset,
        partitions_digest=_partitions_digest(item.config, item.dataset),
        search_id=search_id,
    )
    return folder


def _run(item: Ready, folder: StudyFolder, *, places: int, cpus: float, gpus: float, options: Options) -> "Report":
    from tune import engine, predictions, report

    config, dataset = item.config, item.dataset
    if not (folder.path / "splits.csv").exists():
        samples = splits.pool(dataset, str(config.run.validation.kind))
        splits.write_csv(folder.path / "splits.csv", samples.ids, partitions(config, dataset))
    if item.folder is not None:
        folder.reopen(config)
    for line in item.warnings:
        options.warn(line)
    trials = Trials(
        folder.storage(),
        name=folder.described()["name"],  # the folder may have been renamed since
        settings=config.settings.search,
        maximize=higher_is_better(str(config.run.metric)),
        space=config.space,
        rung=first_rung(config.run.objective.switch_point),
    )
    plan = Plan(folder, config, trials)
    concurrency = min(config.settings.search.concurrency or places, places)
    conductor = Conductor(plan, concurrency=concurrency, observe=options.observe)
    options.started(folder, conductor)
    engine.run(conductor, dataset, cpus_per_trial=cpus, gpus_per_trial=gpus)
    if not plan.scored():
        raise SearchFailed(f"{folder.path}: no trial finished; the reasons stand in trials/*/log.txt")
    predictions.collect(folder, config, dataset)
    return report.write(folder)


class SearchFailed(RuntimeError):
    """A search that ended without a single finished trial."""


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
