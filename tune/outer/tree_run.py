"""Runs a tree: one study after the other, then the table over the splits."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from m3col.checks.resolve import check_against_data
from m3col.errors import InputError
from m3col.tracking import mlflow_store
from tune.checks import CheckedStudy, Options
from tune.config import outer_section
from tune.config.resources import Request
from tune.outer import tree_checks, tree_folder, tree_report
from tune.outer.tree_folder import TreeFolder
from tune.outer.tree_report import TreeReport
from tune.study import resume
from tune.study.partitions import partitions_digest
from tune.study.record import DESCRIPTION, StudyFolder
from tune.study_run import run_tracked
from tune.tracking.tree_to_mlflow import TreeInMlflow


@dataclass(frozen=True)
class TreeRun:
    """What all studies of a tree run with.

    Attributes:
        item: the tree, as checked.
        folder: its folder, which this process has locked.
        tracker: the MLflow store; None: no pages.
        request: the resources of one run.
        options: how to run.
        search_id: id of the search.
    """

    item: CheckedStudy
    folder: TreeFolder
    tracker: mlflow_store.Tracker | None
    request: Request
    options: Options
    search_id: str


def open_folder(item: CheckedStudy, runs: Path, name: str | None, search_id: str, options: Options) -> TreeFolder:
    """Returns the folder of a tree, created or reopened, and locked by this process."""
    assert item.tree is not None
    if item.tree.folder is not None:
        item.tree.folder.lock()
        item.tree.folder.reopen(item.config)
        return item.tree.folder
    chosen = tree_checks.new_name(runs, name, item.config, resumed=options.resume)
    return TreeFolder.create(runs, chosen, item.config, item.dataset, search_id=search_id)


def run_tree(run: TreeRun) -> TreeReport:
    """Runs the studies of a tree that have not ended, and writes its results.

    One study runs at a time, with as many of its runs at a time as fit on the cluster: Ray Tune cannot drive two
    studies from one process.

    Returns:
        The results over all splits.

    Raises:
        InputError: the data of a split has a fault, or has changed.
        SearchFailed: no trial of a study finished.
    """
    with TreeInMlflow(run.folder, run.tracker, warn=run.options.warn) as tracking:
        for name in tree_folder.study_names(run.item.config):
            study = tree_folder.study_of(run.item.config, name)
            if not run.folder.has_ended(name, study):
                _run_study(run, name)
                run.folder.end(name, study)
        tracking.report = tree_report.write(run.folder)
    return tracking.report


def _run_study(run: TreeRun, name: str) -> None:
    """Runs or resumes one study of the tree."""
    with contextlib.ExitStack() as until_done:
        checked = _checked(run, name)
        folder = checked.folder or StudyFolder.create(
            run.folder.path.parent, f"{run.folder.name}/{name}", checked.config, checked.dataset,
            partitions_digest=partitions_digest(checked.config, checked.dataset), search_id=run.search_id, locked=True,
        )  # fmt: skip
        until_done.callback(folder.unlock)
        run.options.on_study(folder)
        mirror = resume.acquire(folder, checked.config, until_done, warn=run.options.warn)
        run_tracked(checked, folder, mirror, run.tracker, run.request, run.options)


def _checked(run: TreeRun, name: str) -> CheckedStudy:
    """Returns a study of the tree with its data, to be resumed if its folder exists.

    Raises:
        InputError: with every fault; or the study began with another config or other data.
    """
    assert run.item.tree is not None
    study = tree_folder.study_of(run.item.config, name)
    where = f"{run.folder.path / name}"
    resolved, faults = check_against_data(study.run, data=run.item.tree.data, where=where)
    if resolved is None:
        raise InputError([outer_section.worded(line) for line in faults])
    folder: StudyFolder | None = run.folder.study(name)
    assert folder is not None
    if not (folder.path / DESCRIPTION).exists():
        folder = resume.fetched(run.folder.path.parent, f"{run.folder.name}/{name}", study.settings.storage)
    warnings = list(resolved.dataset.warnings)
    if folder is not None:
        digest = partitions_digest(study, resolved.dataset)
        warnings += resume.warnings(folder, study, resolved.dataset, splits=digest)
    return CheckedStudy(study, resolved.dataset, folder, warnings)
