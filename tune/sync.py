"""MLflow as a projection of a study: one function writes what MLflow lacks, from the study's files alone.

In the data set's experiment: one run per study, found by the tag m3col.study (name and date of creation), and one
child per trial, found by m3col.run. Sending again adds nothing: a finished child is closed and its epochs are never
touched, of a running one the store itself says which epochs it has. Metrics carry the times that history.jsonl
recorded, so a gap that is filled later leaves no trace. A pruned trial is KILLED, a failed one FAILED; a study is
RUNNING until its results are written.
"""

import contextlib
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import yaml

from m3col import tracking
from m3col.data.dataset import Dataset
from m3col.judge import flatten, get
from m3col.secrets import scrubbed
from m3col.tracked import Point, history_points
from m3col.tracking import KIND, NOTE, PARENT, RUN, RUN_NAME, STATE, STUDY, Tracker
from m3col.training import higher_is_better
from tune import delivery
from tune import space as spaces
from tune.study import COMPLETE, FAILED, PRUNED, StudyFolder

SEARCH = "m3col.search"
STOPPED = "stopped"
TRIAL_KIND, STUDY_KIND = "trial", "study"
_STATUS = {COMPLETE: tracking.FINISHED, PRUNED: tracking.KILLED, FAILED: tracking.FAILED}
# What a resumed study may change, or what says nothing about its numbers: no param, because those cannot be rewritten.
_NOT_PARAMS = ("data.dir", "checkpoint", "resources", "validation.seed")
# Drawn over epochs, beside the search's own metric; all others are written once, at a trial's end: a thousand trials
# of twenty curves would be a million rows, which MLflow's pages take badly.
_CURVES = ("train/loss", "val/loss", "val/accuracy")
_LAST_S, _BETWEEN_LAST_S = 20.0, 2.0  # how long the end of a search is sent again
_MOST_PATIENT_S = 60.0  # between two attempts while the store is away
_WORDS = {COMPLETE: "complete", PRUNED: "pruned", FAILED: "failed"}
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a thousand configs: the one in C is ten times as fast


@dataclass
class Child:
    """What MLflow has of one trial: epochs up to `sent`, and everything once `closed`."""

    id: str
    name: str
    sent: int = 0
    closed: bool = False
    ranked: bool = False


def sync(folder: StudyFolder, tracker: Tracker, *, dataset: Dataset | None = None) -> None:
    """Writes everything of a study that MLflow lacks. `dataset`: for the input example of a study of in-memory data.

    Raises BadInput for a folder that is no study, and whatever MLflow raises.
    """
    Projection(folder, tracker, dataset=dataset).send(results=True)


class Projection:
    """One study in one store. Asks the store once what it has, then remembers what it sent: a new object after any
    error, because then nobody knows what arrived."""

    def __init__(self, folder: StudyFolder, tracker: Tracker, *, dataset: Dataset | None = None) -> None:
        self.folder, self.tracker, self.dataset = folder, tracker, dataset
        self.described = folder.described()
        self.config = folder.config()
        self.metric = str(self.config.run.metric)
        self.maximize = higher_is_better(self.metric)
        self.key = f"{self.described['name']} {self.described['created']}".replace("'", "_")
        self.defaults = {path: spaces.default_value(self.config.run, path) for path in self.config.space}
        name = self.config.settings.tracking.experiment or self.described["dataset"]["name"]
        self.experiment = tracker.experiment(name)
        self.ended = False
        self.parent, self.parent_tags = self._adopt_parent()
        self.children = self._adopt_children()
        self._curves = {self.metric, *_CURVES}
        self._results: dict[int, dict[str, Any]] = {}
        self._bests = tracker.last_step(self.parent, delivery.BEST)

    def _adopt_parent(self) -> tuple[str, dict[str, str]]:
        found = self.tracker.find(self.experiment, {STUDY: self.key, KIND: STUDY_KIND})
        if found and found[0].status == tracking.FINISHED:
            self.ended = True
            return found[0].id, dict(found[0].tags)
        tags = {KIND: STUDY_KIND, **self._provenance()}
        parent = found[0].id if found else self.tracker.create(
            self.experiment, self.described["name"], tags=tags, started=_seconds(self.described["created"])
        )  # fmt: skip
        # Sent to a run that was found as well: its creator may have died right after creating it.
        self.tracker.write(parent, params=self._settings(), tags=tags)
        about = self.described["dataset"]
        digests = {k: v for k, v in self.described["digests"].items() if k in ("train", "validation", "test")}
        profile = {k: about[k] for k in ("train", "test", "features", "dropped") if k in about}
        self.tracker.dataset(parent, about["name"], digests, profile)
        delivery.view(self, finished=False)
        return parent, dict(found[0].tags) if found else {}

    def _adopt_children(self) -> dict[int, Child]:
        children: dict[int, Child] = {}
        for stored in self.tracker.find(self.experiment, {STUDY: self.key, KIND: TRIAL_KIND}):
            number = int(stored.tags[RUN].rpartition("/")[2])
            child = Child(
                stored.id, stored.name, closed=stored.status != tracking.RUNNING, ranked="rank" in stored.metrics
            )
            if stored.tags.get(STATE) == STOPPED and not self.folder.finished():
                self.tracker.reopen(child.id)
                child.closed = False
            if not child.closed:
                child.sent = self.tracker.last_step(child.id, delivery.SO_FAR)
                self.tracker.write(child.id, params=self._params(number))
            children[number] = child
        return children

    def close_stopped(self, ended: float) -> None:
        """Trials that the time budget cut off have no result; a later resume may go on with them."""
        for child in self.children.values():
            if not child.closed:
                self.tracker.write(child.id, tags={STATE: STOPPED})
                self.tracker.close(child.id, tracking.KILLED, ended)
                child.closed = True

    def _provenance(self) -> dict[str, Any]:
        found = self.described
        shown = {
            STUDY: self.key, SEARCH: found["search_id"], "m3col.folder": self.folder.path,
            "m3col.method": self.config.run.method, "m3col.metric": self.metric,
            "m3col.host": found["host"],
            "m3col.threads": found["threads"], "m3col.trials": self.config.settings.search.trials,
            "mlflow.source.git.commit": found["git"]["commit"], "m3col.git.dirty": found["git"]["dirty"],
            "m3col.versions": _joined(found["versions"]), "m3col.digests": _joined(found["digests"], length=12),
        }  # fmt: skip
        return {key: value for key, value in shown.items() if value is not None}

    def _settings(self) -> dict[str, Any]:
        """The study's params: its base config without what is searched, which the children have."""
        kept = {
            path: value
            for path, value in flatten(self.config.run.to_dict())
            if path not in self.config.space and not any(path == no or path.startswith(f"{no}.") for no in _NOT_PARAMS)
        }
        search = self.config.settings.search
        return {**kept, "search.sampler": search.sampler, "search.pruner": search.pruner, "search.seed": search.seed}

    def _params(self, number: int) -> dict[str, Any]:
        """What the search chose for a trial: few, so that the table of runs can show them all."""
        text = (self.folder.path / f"trials/{number}/config.yaml").read_text(encoding="utf-8")
        raw = yaml.load(text, Loader=_Loader)
        return {path: get(raw, path) for path in self.config.space}

    def send(self, *, results: bool) -> None:
        """One pass over all trials; with `results`, the end of the study too, once it is there."""
        for number in self._numbers():
            child = self.children.get(number)
            if child is None or not child.closed:
                self._send_trial(number, child)
        self._send_progress()
        if results and self.folder.finished():
            delivery.send(self)

    def _numbers(self) -> list[int]:
        place = self.folder.path / "trials"
        return sorted(int(path.name) for path in place.iterdir() if path.name.isdigit()) if place.is_dir() else []

    def _send_trial(self, number: int, child: Child | None) -> None:
        run = self.folder.run(f"trials/{number}")
        if not (run.path / "config.yaml").exists():
            return
        result = run.result()  # before the history: what it ends is then complete in it
        history = run.history()
        params = self._params(number) if child is None or not child.sent else {}
        child = child or self._new_child(number, params, history, result)
        fresh = [record for record in history if record["epoch"] > child.sent]
        points = [point for point in history_points(fresh) if point.name in self._curves]
        points += [Point(delivery.SO_FAR, r["value"], r["epoch"], r["time"]) for r in fresh if r["value"] is not None]
        tags: dict[str, Any] = {}
        if result is not None:
            tags[STATE] = _WORDS[result["state"]]
            points += [point for point in history_points(history[-1:]) if point.name not in self._curves]
            if result["state"] == COMPLETE:
                points.append(
                    Point(delivery.SCORE, round(result["value"], delivery.DECIMALS), result["epochs"], result["ended"])
                )
            if result["failure"]:
                tags |= {"m3col.failure": result["failure"], NOTE: f"**Failed:** {result['failure']}"}
        if points or tags or params:
            self.tracker.write(child.id, points, params=params, tags=tags)
        child.sent = max([child.sent, *(record["epoch"] for record in fresh)])
        if result is not None:
            self.tracker.close(child.id, _STATUS[result["state"]], result["ended"])
            child.closed = True

    def _new_child(
        self, number: int, params: dict[str, Any], history: list[dict[str, Any]], result: dict[str, Any] | None
    ) -> Child:
        started = (result or {}).get("started") or (history[0]["time"] if history else time.time())
        name = f"trial {number}" + (" (default)" if params == self.defaults else "")
        tags = {
            PARENT: self.parent, STUDY: self.key, SEARCH: self.described["search_id"], KIND: TRIAL_KIND,
            RUN: f"trials/{number}", STATE: "running", "m3col.again": f"m3col train {self.described['name']}#{number}",
        }  # fmt: skip
        child = Child(self.tracker.create(self.experiment, name, tags=tags, started=started), name)
        self.children[number] = child
        return child

    def _send_progress(self) -> None:
        """The study's own curve (best score after each finished trial) and, until there are results, a note."""
        for number, child in self.children.items():
            if child.closed and number not in self._results:
                self._results[number] = self.folder.run(f"trials/{number}").result() or {}
        ended = sorted((r for r in self._results.values() if r), key=lambda result: float(result["ended"]))
        finished = [result for result in ended if result["state"] == COMPLETE]
        if len(finished) > self._bests:
            pick = max if self.maximize else min
            points = [
                Point(delivery.BEST, pick(r["value"] for r in finished[:count]), count, finished[count - 1]["ended"])
                for count in range(self._bests + 1, len(finished) + 1)
            ]
            self.tracker.write(self.parent, points)
            self._bests = len(finished)
        if not self.folder.finished():
            self._write_note(ended)

    def _write_note(self, ended: list[dict[str, Any]]) -> None:
        note = delivery.progress_note(self, self._results, ended)
        if note != self.parent_tags.get(NOTE):
            if self.ended:  # a finished study goes on
                self.tracker.reopen(self.parent)
                delivery.view(self, finished=False)
                self.ended = False
            self.tracker.write(self.parent, tags={NOTE: note, RUN_NAME: self.described["name"]})
            self.parent_tags |= {NOTE: note, RUN_NAME: self.described["name"]}


class Background:
    """Keeps MLflow up to date while a search runs, from a thread of its own.

    The store may die: the search goes on, attempts become rarer, and the gap is filled when it is back. On a good exit
    results are sent too, within `limit_s`; `warn` gets a line, with the command that helps, where that failed.
    """

    def __init__(
        self, folder: StudyFolder, tracker: Tracker | None, *, every_s: float = 5.0, limit_s: float = 120.0,
        warn: Callable[[str], None] = lambda line: None, dataset: Dataset | None = None,
    ) -> None:  # fmt: skip
        self._folder, self._tracker, self._dataset = folder, tracker, dataset
        self._every_s, self._limit_s, self._warn = every_s, limit_s, warn
        self._stop = threading.Event()
        self._with_results = False
        self._failure: str | None = None
        self._projection: Projection | None = None
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    def __enter__(self) -> "Background":
        if self._tracker is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tracker is None:
            return
        self._with_results = kind is None
        self._stop.set()
        # After an error or an interrupt nobody waits for MLflow.
        self._thread.join(self._limit_s if kind is None else 1.0)
        reason = f"no answer within {self._limit_s:.0f} s" if self._thread.is_alive() else self._failure
        if reason is not None and kind is None:
            self._warn(
                f"MLflow at {self._tracker.shown} lacks a part of this study ({reason}); nothing is lost: "
                f"{_command(self._folder, self._tracker)} writes it"
            )

    def _work(self) -> None:
        for _ in self._waits():
            before = self._failure
            self._attempt(results=False)
            if self._failure is not None and before is None:
                self._warn(f"MLflow cannot be written ({self._failure}); the search goes on, the gap is filled later")
        # The last word: a server that is just coming back, or a connection that died with it, gets another chance.
        until = time.monotonic() + _LAST_S
        self._attempt(results=self._with_results)
        while self._with_results and self._failure is not None and time.monotonic() < until:
            time.sleep(_BETWEEN_LAST_S)
            self._attempt(results=True)

    def _waits(self) -> Iterator[None]:
        """Yields after each pause until the search ends; pauses double while the store is away."""
        pause = self._every_s
        while not self._stop.wait(pause):
            yield
            pause = self._every_s if self._failure is None else min(2 * pause, _MOST_PATIENT_S)

    def _attempt(self, *, results: bool) -> None:
        assert self._tracker is not None
        try:
            if self._projection is None:
                self._projection = Projection(self._folder, self._tracker, dataset=self._dataset)
            self._projection.send(results=results)
            self._failure = None
        except Exception as error:  # whatever the store or the network raises: it must not reach the search
            self._projection = None
            self._failure = scrubbed(" ".join(str(error).split()))[:200] or type(error).__name__


def _command(folder: StudyFolder, tracker: Tracker) -> str:
    """What writes the rest, whatever the defaults are where it is called: a job's are not its reader's."""
    places = ["--runs-dir", str(folder.path.parent), "--tracking-uri", tracker.shown]
    return f"m3col {shlex.join(['sync', folder.name, *places])}"


def _joined(found: dict[str, str], *, length: int = 40) -> str:
    return ", ".join(f"{name} {value[:length]}" for name, value in found.items())


def _seconds(created: str) -> float:
    with contextlib.suppress(ValueError):
        return time.mktime(time.strptime(created[:19], "%Y-%m-%dT%H:%M:%S"))
    return time.time()
