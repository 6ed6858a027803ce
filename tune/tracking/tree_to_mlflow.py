"""A tree of studies in MLflow: one run with the table over the splits, and the runs of its studies below it.

The run of a tree is identified by the tag m3col.tree (name and date of creation). The run of each of its studies names
it as its parent.
"""

import contextlib
import hashlib
import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from m3col.runtime import exit_hooks, notices
from m3col.tracking import mlflow_store
from m3col.tracking.mlflow_store import FAILURE, KIND, NOTE, RUN_NAME, STATE, Tracker
from m3col.tracking.payload import Point, reason_of
from tune.outer import tree_report
from tune.outer.tree_folder import TreeFolder
from tune.outer.tree_report import TreeReport
from tune.study.record import TREE as DESCRIPTION

TREE, TREE_KIND = "m3col.tree", "tree"

_NOTE_LENGTH = 7900

_REASON = 1000  # characters of a failure reason

_SENT = "m3col.results"


def key_of(described: dict[str, Any]) -> str:
    """Returns the value of the tag `TREE`."""
    return f"{described['name']} {described['created']}".replace("'", "_")


def run_of(tree: Path, tracker: Tracker) -> str:
    """Returns the MLflow run of a tree. Creates it where there is none.

    Args:
        tree: the tree's folder.
        tracker: the store.
    """
    described = json.loads((tree / DESCRIPTION).read_text(encoding="utf-8"))
    tracking = described["config"].get("tracking", {})
    experiment = tracker.experiment(tracking.get("experiment") or described["dataset"]["name"])
    runs = tracker.find(experiment, {TREE: key_of(described), KIND: TREE_KIND})
    if runs:
        return runs[0].id
    tags = {
        TREE: key_of(described), KIND: TREE_KIND, STATE: "running", "m3col.folder": str(tree),
        RUN_NAME: described["name"], "m3col.method": described["config"]["run"]["method"],
    }  # fmt: skip
    started = time.time()
    with contextlib.suppress(ValueError):
        started = time.mktime(time.strptime(described["created"][:19], "%Y-%m-%dT%H:%M:%S"))
    return tracker.create(experiment, described["name"], tags=tags, started=started)


def send(folder: TreeFolder, tracker: Tracker, report: TreeReport) -> None:
    """Writes the results of a tree to its MLflow run, unless MLflow has the same already.

    Args:
        folder: the tree.
        tracker: the store.
        report: its results.

    Raises:
        Exception: whatever MLflow raises.
    """
    run = run_of(folder.path, tracker)
    digest = hashlib.sha256((report.summary + report.table.to_csv() + report.page).encode()).hexdigest()
    stored = tracker.client.get_run(run)
    finished = folder.finished()
    if stored.data.tags.get(_SENT) == digest and (stored.info.status == mlflow_store.FINISHED) == finished:
        return
    written = (folder.results / "summary.md").stat().st_mtime  # a fixed time, so that sending again adds no points
    described = folder.described()
    kept = {f"outer.{key}": described["outer"][key] for key in ("kind", "folds", "seed", "groups")}
    verdict = report.summary.partition("\n")[2].strip()
    tags = {NOTE: verdict[:_NOTE_LENGTH], "m3col.splits": str(report.scores["split"].nunique()), FAILURE: ""}
    tags |= {STATE: "complete" if finished else "stopped"}
    tracker.write(run, _points(report, written), params=kept, tags=tags)
    for path in (folder.path / DESCRIPTION, *sorted(folder.results.glob("*.*"))):
        if not path.name.startswith("."):
            tracker.artifacts(run, path)
    tracker.close(run, mlflow_store.FINISHED if finished else mlflow_store.KILLED, written)
    tracker.write(run, tags={_SENT: digest})


def sync(folder: TreeFolder, tracker: Tracker) -> None:
    """Writes what MLflow lacks of a tree, without its studies, and closes its run. The caller must have its lock.

    Args:
        folder: the tree.
        tracker: the store.

    Raises:
        Exception: whatever MLflow raises.
    """
    if tree_report.results(folder):
        send(folder, tracker, tree_report.write(folder))
    else:
        _stop(folder, tracker, mlflow_store.KILLED)


def _stop(folder: TreeFolder, tracker: Tracker, status: str, failure: str = "") -> None:
    """Closes the run of a tree without results."""
    run = run_of(folder.path, tracker)
    head = f"**The search failed:** {failure}." if failure else "**The search has stopped.**"
    note = f"{head}\n\n`m3col search --resume {folder.name}` resumes it."
    tracker.write(run, tags={STATE: "stopped", FAILURE: failure, NOTE: note})
    tracker.close(run, status, time.time())


def _points(report: TreeReport, written: float) -> list[Point]:
    """The mean of the reference row in every metric; of every row the mean and difference in the declared metric."""
    lines = report.table
    points: dict[str, float] = {}
    for _, line in lines[lines["row"] == lines["reference"]].iterrows():
        points |= {f"test/{line['metric']}": line["mean"], f"test_sd/{line['metric']}": line["sd"]}
    for _, line in report.declared.iterrows():
        points |= {f"mean/{line['row']}": line["mean"], f"difference/{line['row']}": line["difference"]}
    return [Point(name, float(value), 0, written) for name, value in points.items() if np.isfinite(value)]


class TreeInMlflow:
    """Opens the run of a tree while the `with` block runs, and closes it with the results, or with why there are none.

    A store that fails stops nothing: `warn` gets a line with the command that sends what is missing.

    Args:
        folder: the tree.
        tracker: the store; None: nothing is sent.
        warn: called with each warning.

    Attributes:
        report: the results; set it when they exist.
    """

    def __init__(
        self, folder: TreeFolder, tracker: Tracker | None, *, warn: Callable[[str], None] = notices.warn
    ) -> None:
        self._folder, self._tracker, self._warn = folder, tracker, warn
        self.report: TreeReport | None = None
        self._registered = contextlib.ExitStack()

    def __enter__(self) -> "TreeInMlflow":
        if self._tracker is not None:
            self._registered.enter_context(exit_hooks.before_exit(lambda: self._close(mlflow_store.KILLED)))
            self._attempt(self._open)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tracker is None:
            return
        tracker, report = self._tracker, self.report
        if error is None and report is not None:
            self._attempt(lambda: send(self._folder, tracker, report))
        elif isinstance(error, Exception):
            self._attempt(lambda: self._close(mlflow_store.FAILED, reason_of(error, length=_REASON)))
        else:
            self._attempt(lambda: self._close(mlflow_store.KILLED))
        self._registered.close()

    def _open(self) -> None:
        assert self._tracker is not None
        run = run_of(self._folder.path, self._tracker)
        if self._tracker.client.get_run(run).info.status != mlflow_store.RUNNING:
            self._tracker.reopen(run)
        resume = f"`m3col search --resume {self._folder.name}` resumes it if it stops."
        note = f"**The studies of its outer splits are running.** Their runs are below this one.\n\n{resume}"
        self._tracker.write(run, tags={STATE: "running", FAILURE: "", NOTE: note})

    def _close(self, status: str, failure: str = "") -> None:
        assert self._tracker is not None
        _stop(self._folder, self._tracker, status, failure)

    def _attempt(self, function: Callable[[], None]) -> None:
        assert self._tracker is not None
        try:
            function()
        except Exception as error:  # whatever the store or the network raises: it must not reach the search
            places = ["--runs-dir", str(self._folder.path.parent), "--tracking-uri", self._tracker.shown]
            self._warn(
                f"MLflow at {self._tracker.shown} lacks a part of this tree ({reason_of(error)}); nothing is lost: "
                f"m3col {shlex.join(['sync', self._folder.name, *places])} writes it"
            )
