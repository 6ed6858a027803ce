"""Validates a search config against data, disk and study folders, before anything is written."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3col.checks.limits import checkpoint_bytes, disk_faults
from m3col.checks.resolve import ResolvedRun, check_against_data
from m3col.config.loading import with_shards
from m3col.data import splits
from m3col.data.dataset import Dataset
from m3col.errors import InputError, nearest
from m3col.runtime import notices
from m3col.storage import sqlite_urls
from m3col.storage.object_store import uri_faults
from m3col.tasks.base import Task
from tune.config import loading as search_config
from tune.config import outer_section
from tune.config.loading import PartialStudy
from tune.config.resources import encoder_faults
from tune.config.schema import StorageConfig, StudyConfig
from tune.outer import tree_checks, tree_folder
from tune.outer.tree_checks import CheckedTree
from tune.scheduling.coordinator import Coordinator, Event
from tune.study import database, directory, resume
from tune.study import record as studies
from tune.study import remote_copy as mirrors
from tune.study.directory import AUTO
from tune.study.partitions import partitions, partitions_digest
from tune.study.record import StudyFolder


@dataclass(frozen=True)
class CheckedStudy:
    """A study, or a tree of them, that passed every check.

    Attributes:
        config: its config, resolved against the data; of a tree that of the study of the first outer split.
        dataset: its data.
        folder: its folder; None for a new study, and for a tree.
        warnings: about the data and the versions of packages.
        tree: the tree; None for a study of its own.
    """

    config: StudyConfig
    dataset: Dataset
    folder: StudyFolder | None
    warnings: Sequence[str] = ()
    tree: CheckedTree | None = None


@dataclass(frozen=True)
class Options:
    """How to run a search.

    Attributes:
        name: the study's name.
        resume: the name of the study to resume; True: the newest unfinished one of this config; "auto": the one called
            `name`, without a name the newest unfinished one, and a new one if there is none.
        runs: folder of studies.
        tracking_uri: MLflow tracking URI.
        address: address of a Ray cluster.
        observe: called with each `Event`.
        on_study: called with each study's folder as soon as it is known, before locking or Ray can fail.
        started: called when a study's first runs are about to start.
        num_cpus: CPUs of a local Ray cluster.
        warn: called with each warning, one line each. Default: `warnings.warn`.
        parsed: called with the configs of the studies when they have no fault, before data are read.
    """

    name: str | None = None
    resume: bool | str = False
    runs: str | Path | None = None
    tracking_uri: str | None = None
    address: str | None = None
    observe: Callable[[Event], None] = lambda event: None
    on_study: Callable[[StudyFolder], None] = lambda folder: None
    started: Callable[[StudyFolder, Coordinator], None] = lambda folder, coordinator: None
    num_cpus: int | None = None
    warn: Callable[[str], None] = notices.warn
    parsed: Callable[[Sequence[StudyConfig]], None] = lambda studies: None


def validate(
    config: str | Path | Mapping[str, Any] | None, *, data: Any, overrides: Mapping[str, Any], options: Options
) -> list[CheckedStudy]:
    """Validates every study of a search against data, folder and disk. Raises one InputError with all faults."""
    runs = directory.runs_folder(options.runs)
    partials, faults = _partial_studies(config, data=data, overrides=overrides, options=options)
    if partials and not faults:
        options.parsed([partial.study for partial in partials])
    ready: list[CheckedStudy] = []
    for partial in partials:
        study = partial.study
        outer = study.settings.outer
        resolved_run, data_faults = check_against_data(study.run, data=data, where=partial.place, faulty=partial.faulty)
        if resolved_run is not None and outer is not None:
            data_faults += tree_checks.division_faults(resolved_run.config, outer, data=data, where=partial.where)
        faults += data_faults if outer is None else map(outer_section.worded, data_faults)
        if resolved_run is not None:
            try:
                ready.append(_resolve(partial, resolved_run, runs, options, data=data, alone=len(partials) == 1))
            except InputError as error:
                faults += error.faults
    if options.name is not None and options.resume not in (False, AUTO):
        faults.append(f"--name {options.name}: a resumed study keeps its name; leave --name or --resume out")
    elif options.name is not None and len(partials) > 1:
        faults.append("--name: this search makes several studies; leave the name out")
    if options.resume not in (False, AUTO) and len(ready) > 1 and not any(map(_begun, ready)):
        faults.append(f"--resume: {runs} has none of these studies; leave --resume out to begin them")
    if not ready:  # else _resolve has checked it
        faults += disk_faults(runs, 0, what="a search")
    faults += sqlite_urls.faults(runs)
    if faults:
        raise InputError(list(dict.fromkeys(faults)))
    return ready


def _begun(item: CheckedStudy) -> bool:
    """Whether there is a study or tree to resume."""
    return item.folder is not None or (item.tree is not None and item.tree.folder is not None)


def _partial_studies(
    config: str | Path | Mapping[str, Any] | None, *, data: Any, overrides: Mapping[str, Any], options: Options
) -> tuple[list[PartialStudy], list[str]]:
    """Returns the studies of a config, or of the study to resume, and the faults of their configs."""
    if config is not None:
        return search_config.parse(config, overrides=overrides, in_memory=data is not None)
    if not isinstance(options.resume, str) or options.resume == AUTO:
        raise InputError(["search: name a config, or the study to resume (--resume NAME)"])
    uri = overrides.get("storage.uri")
    tree = tree_folder.find(directory.runs_folder(options.runs), options.resume)
    if tree is not None:
        place = str(tree.path / studies.TREE)
        return [PartialStudy(tree_checks.stored(tree, overrides), frozenset(), lambda path: place, place)], []
    storage = StorageConfig(uri=uri if isinstance(uri, str) and not uri_faults(uri, "storage.uri") else None)
    folder = resume.find(directory.runs_folder(options.runs), options.resume, storage)
    if overrides.get("search.null"):
        text = (
            "search.null: a study of its own cannot get studies of permuted labels; begin a new search with search.null"
        )
        raise InputError([text])
    study = search_config.stored(folder.described()["config"], overrides)
    place = str(folder.path / studies.DESCRIPTION)
    return [PartialStudy(study, frozenset(), lambda path: place, place)], []


def _stacking_faults(study: StudyConfig, dataset: Dataset, task: Task) -> list[str]:
    """Classes with too few samples in a fold for `objective.decision: stacked`, where the space has it."""
    key = "objective.decision"
    if "stacked" not in getattr(study.space.get(key), "choices", ()):
        return []
    pool = splits.pool(dataset, str(study.run.validation.kind))
    folds = [fold for drawn in partitions(study, dataset).values() for fold in drawn]
    lines = [line for fold in folds for line in splits.held_out_faults(pool.take(fold.train), task, where=key)]
    return [f"space.{line}" for line in dict.fromkeys(lines)]


def _resolve(
    partial: PartialStudy, resolved_run: ResolvedRun, runs: Path, options: Options, *, data: Any, alone: bool
) -> CheckedStudy:
    """Resolves a study's rows against the data, checks storage and disk, and finds the folder to resume."""
    study, dataset = partial.study, resolved_run.dataset
    workers = study.settings.resources.workers_per_trial
    run = with_shards(resolved_run.config, workers)
    faults = [f"{partial.where}: {line}" for line in encoder_faults(resolved_run, workers)]
    rows = {}
    for name, row in study.rows.items():
        resolved_row, row_faults = check_against_data(row, data=data, where=f"{partial.where}: final.rows.{name}")
        faults += row_faults
        if resolved_row is not None:
            rows[name] = with_shards(resolved_row.config, workers)
            faults += [f"{partial.where}: final.rows.{name}: {line}" for line in encoder_faults(resolved_row, workers)]
    final = study.settings.final
    if final.refit == "given" and dataset.validation is None:
        faults.append(
            f"{partial.where}: final.refit 'given' needs a validation split, but {dataset.name} has none; use 'full'"
        )
    metrics = resolved_run.task.metrics
    faults += [
        f"{partial.where}: final.published: metric {name!r} is never reported{nearest(name, metrics)}"
        for name in final.published
        if name not in metrics
    ]
    resolved = StudyConfig(study.name, run, study.space, study.raw_space, rows, study.settings)
    faults += [f"{partial.where}: {line}" for line in _stacking_faults(resolved, dataset, resolved_run.task)]
    folder: StudyFolder | None = None
    tree: CheckedTree | None = None
    warnings: list[str] = []
    storage = study.settings.storage
    unreachable = mirrors.connection_faults(storage.uri) if storage.uri is not None else []
    unreachable += database.connection_faults(storage.database) if storage.database is not None else []
    faults += [f"{partial.where}: {line}" for line in unreachable]
    try:
        if not unreachable and study.settings.outer is not None:
            known, warnings = tree_checks.folder_for(runs, resolved, dataset, resumed=options.resume, name=options.name)
            tree = CheckedTree(study.settings.outer, known, data)
        elif not unreachable:
            folder, warnings = _resumable(resolved, dataset, runs, options, alone=alone)
        if folder is None and tree is None and not unreachable:
            directory.new_name(runs, options.name, resolved, elsewhere=resume.is_taken(storage))
    except InputError as error:
        faults += error.faults
    folds = 1 if run.validation.kind in ("holdout", "given") else run.validation.folds
    needed = (
        2 * checkpoint_bytes(run, dataset, folds=folds) * (study.settings.search.concurrency or os.cpu_count() or 2)
    )
    faults += disk_faults(runs, needed, what="a search with two checkpoints for each running trial")
    if faults:
        raise InputError(faults)
    return CheckedStudy(resolved, dataset, folder, [*dataset.warnings, *warnings], tree)


def _resumable(
    study: StudyConfig, dataset: Dataset, runs: Path, options: Options, *, alone: bool
) -> tuple[StudyFolder | None, list[str]]:
    """Returns the folder to resume in, None for a new study, and warnings.

    When a search over several data sets or methods is resumed, the studies that had not begun yet are new.

    Raises:
        InputError: the study to resume does not exist, or began with another config or other data.
    """
    if not options.resume:
        return None, []
    folder = resume.folder_for(runs, study, options.resume, options.name)
    if folder is None and (options.resume == AUTO or not alone):
        return None, []
    if folder is None:
        raise InputError([f"--resume: {runs} has no study of {study.name!r}; leave --resume out to begin one"])
    return folder, resume.warnings(folder, study, dataset, splits=partitions_digest(study, dataset))
