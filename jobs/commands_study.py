"""`m3col report`, `ui`, `sync` and `runs`: what is there already."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markdown import Markdown

from jobs.words import console, runs_of
from m3col.faults import BadInput

if TYPE_CHECKING:
    from tune.study import StudyFolder


def report(arguments: argparse.Namespace) -> int:
    from tune import report as reports
    from tune import study

    folder = study.find(runs_of(arguments), arguments.study)
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
    from jobs.ui import serve

    return serve(
        runs_of(arguments), uri=arguments.tracking_uri, port=arguments.port, open_browser=not arguments.no_browser
    )


def _studies(runs: Path, names: Sequence[str]) -> "tuple[list[StudyFolder], list[str]]":
    """The named studies (all of them where none is named), and a fault for each that is not there."""
    from tune import study

    if not names:
        return list(study.all_studies(runs)), []
    found: list[StudyFolder] = []
    faults: list[str] = []
    for name in names:
        try:
            found.append(study.find(runs, name))
        except BadInput as error:
            faults += error.faults
    return found, faults


def sync(arguments: argparse.Namespace) -> int:
    from m3col import tracking
    from tune import sync as syncing

    runs = runs_of(arguments)
    folders, faults = _studies(runs, arguments.study)
    if arguments.tracking_uri == tracking.OFF:
        faults.append("--tracking-uri none: there is nothing to write to")
    if faults:
        raise BadInput(faults)
    for folder in folders:
        tracker = tracking.connect(arguments.tracking_uri, runs, artifacts=folder.config().settings.storage.uri)
        if tracker is None:
            raise BadInput(["MLFLOW_TRACKING_URI is none: there is nothing to write to; give --tracking-uri"])
        try:
            folder.lock()  # the driver of a running search writes to MLflow itself
        except BadInput as error:
            if arguments.study:
                raise
            print(f"left out: {error}")
            continue
        try:
            syncing.sync(folder, tracker)
        finally:
            folder.unlock()
        print(f"{folder.name} is in {tracker.shown}")
    return 0


def runs(arguments: argparse.Namespace) -> int:
    from jobs import housekeeping

    folder = runs_of(arguments)
    if arguments.action == "list":
        return housekeeping.list_runs(folder)
    return housekeeping.remove_runs(folder, arguments.name, ask=not arguments.yes)
