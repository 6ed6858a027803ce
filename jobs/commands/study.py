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
    from tune.study.record import StudyFolder


_REASON = 500  # largest length of an MLflow error in a message


def report(arguments: argparse.Namespace) -> int:
    from tune.results import report as reports

    folder = directory.find(runs_of(arguments), arguments.study)
    screen = console()
    folder.lock()
    try:
        summary = reports.write(folder).summary
    finally:
        folder.unlock()
    screen.print(Markdown(summary) if screen.is_terminal else summary, soft_wrap=True)
    screen.print(f"results {folder.results}", soft_wrap=True)
    return 0


def ui(arguments: argparse.Namespace) -> int:
    from jobs.terminal.mlflow_ui import serve

    return serve(
        runs_of(arguments), uri=arguments.tracking_uri, port=arguments.port, open_browser=not arguments.no_browser
    )


def _studies(runs: Path, names: Sequence[str]) -> "tuple[list[StudyFolder], list[str]]":
    """The named studies (all if none is named), and a fault for each that does not exist."""
    from tune.study import record

    if not names:
        paths = sorted(runs.glob(f"*/{record.DESCRIPTION}"), key=lambda path: path.stat().st_mtime)
        return [record.StudyFolder(path.parent.absolute()) for path in paths], []
    folders: list[StudyFolder] = []
    faults: list[str] = []
    for name in names:
        try:
            folders.append(directory.find(runs, name))
        except InputError as error:
            faults += error.faults
    return folders, faults


def sync(arguments: argparse.Namespace) -> int:
    from m3col.tracking import mlflow_store

    runs = runs_of(arguments)
    folders, faults = _studies(runs, arguments.study)
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


def _sync_one(folder: "StudyFolder", arguments: argparse.Namespace, runs: Path) -> bool:
    """Writes one study to MLflow. Returns False if that failed, after one line with the reason."""
    from m3col.tracking import mlflow_store
    from m3col.tracking.payload import reason_of
    from tune.study.record import InUse

    try:
        storage = folder.config().settings.storage.uri
        tracker = mlflow_store.connect(arguments.tracking_uri, runs, artifacts=storage)
        assert tracker is not None, "the caller refuses the URI none"
        folder.lock()  # the driver of a running search writes to MLflow itself
        try:
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
