"""`m3col report`, `ui`, `sync` and `runs`: commands on stored studies."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markdown import Markdown

from jobs.terminal.console import console, runs_of
from m3col.errors import InputError
from m3col.storage.redaction import scrubbed
from tune.study import directory
from tune.tracking import sync as tracking_sync

if TYPE_CHECKING:
    from tune.outer.tree_folder import TreeFolder
    from tune.study.record import StudyFolder


_REASON = 500  # largest length of an MLflow error in a message


def report(arguments: argparse.Namespace) -> int:
    from tune.outer import tree_folder, tree_report
    from tune.outer.tree_folder import TreeFolder
    from tune.results import report as reports
    from tune.study.record import InUse

    tree = tree_folder.find(runs_of(arguments), arguments.study)
    folder = directory.find(runs_of(arguments), arguments.study) if tree is None else tree
    screen = console()
    try:
        folder.lock()
    except InUse:
        if folder.finished():
            raise
        screen.print(f"{folder.name} is still running", soft_wrap=True)
        screen.print(f"page {_page(folder, running=True)}", soft_wrap=True)
        return 0
    try:
        summary = tree_report.write(folder).summary if isinstance(folder, TreeFolder) else reports.write(folder).summary
    except InputError:
        if not folder.finished():
            screen.print(f"page {_page(folder, running=False)}", soft_wrap=True)
        raise
    finally:
        folder.unlock()
    screen.print(Markdown(summary) if screen.is_terminal else summary, soft_wrap=True)
    screen.print(f"results {folder.results}", soft_wrap=True)
    return 0


def _page(folder: "StudyFolder | TreeFolder", *, running: bool) -> Path:
    """Writes the page of a study or tree that has not ended, and returns its path."""
    from tune.outer import tree_report
    from tune.outer.tree_folder import TreeFolder
    from tune.results import report as reports

    if isinstance(folder, TreeFolder):
        return tree_report.write_page(folder, running=running)
    return reports.write_unfinished(folder, running=running)


def ui(arguments: argparse.Namespace) -> int:
    from jobs.terminal.mlflow_ui import serve

    return serve(
        runs_of(arguments), uri=arguments.tracking_uri, port=arguments.port, open_browser=not arguments.no_browser
    )


def _chosen(runs: Path, names: Sequence[str]) -> "tuple[list[StudyFolder | TreeFolder], list[str]]":
    """The named studies and trees (all if none is named), and a fault for each that does not exist.

    The studies of a tree stand before it.
    """
    from tune.outer import tree_folder
    from tune.study import record

    folders: list[StudyFolder | TreeFolder] = []
    faults: list[str] = []
    if not names:
        paths = [path for pattern in (record.DESCRIPTION, record.TREE) for path in runs.glob(f"*/{pattern}")]
        names = [str(path.parent) for path in sorted(paths, key=lambda path: path.stat().st_mtime)]
    for name in names:
        tree = tree_folder.find(runs, name)
        try:
            folders += [directory.find(runs, name)] if tree is None else [*tree.studies(), tree]
        except InputError as error:
            faults += error.faults
    return folders, faults


def sync(arguments: argparse.Namespace) -> int:
    from m3col.tracking import mlflow_store

    runs = runs_of(arguments)
    folders, faults = _chosen(runs, arguments.study)
    uri = arguments.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri == mlflow_store.OFF:
        source = "--tracking-uri none" if arguments.tracking_uri else "MLFLOW_TRACKING_URI is none"
        faults.append(f"{source}: there is nothing to write to; give --tracking-uri an MLflow store")
    if faults:
        raise InputError(faults)
    if not folders:
        print(f"no studies in {runs}")
        return 0
    mlflow_store.connect(arguments.tracking_uri, runs)  # an unreachable store is one error, not one per study
    failed = [folder for folder in folders if not _sync_one(folder, arguments, runs)]
    return 1 if failed else 0


def _sync_one(folder: "StudyFolder | TreeFolder", arguments: argparse.Namespace, runs: Path) -> bool:
    """Writes one study or tree to MLflow. Returns False if that failed, after one line with the reason."""
    from m3col.tracking import mlflow_store
    from m3col.tracking.payload import reason_of
    from tune.outer.tree_folder import TreeFolder
    from tune.study.record import InUse
    from tune.tracking import tree_to_mlflow

    try:
        storage = folder.config().settings.storage.uri
        tracker = mlflow_store.connect(arguments.tracking_uri, runs, artifacts=storage)
        assert tracker is not None, "the caller refuses the URI none"
        folder.lock()  # the driver of a running search writes to MLflow itself
        try:
            if isinstance(folder, TreeFolder):
                tree_to_mlflow.sync(folder, tracker)
            else:
                tracking_sync.sync(folder, tracker)
        finally:
            folder.unlock()
    except InUse as error:
        if not arguments.study:
            print(f"left out: {error}")
            return True
        sys.stderr.write(f"failed: {scrubbed(' '.join(error.faults))}\n")
    except InputError as error:
        sys.stderr.write(f"failed: {scrubbed('; '.join(error.faults))}\n")
    except Exception as error:  # whatever MLflow raises
        sys.stderr.write(f"failed: {folder.path}: not all of it is in MLflow: {reason_of(error, length=_REASON)}\n")
    else:
        print(f"{folder.name} is in {tracker.shown}")
        return True
    return False


def runs(arguments: argparse.Namespace) -> int:
    from jobs.terminal import runs_table

    folder = runs_of(arguments)
    if arguments.action == "list":
        return runs_table.list_runs(folder)
    return runs_table.remove_runs(folder, arguments.name, ask=not arguments.yes)
