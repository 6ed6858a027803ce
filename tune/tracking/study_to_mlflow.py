"""MLflow as a projection of a study: one function writes what MLflow lacks, from the study's files alone.

In the data set's experiment: one run per study, found by the tag m3col.study (name and date of creation), and one
child per trial, found by m3col.run. Sending again adds nothing: a finished child is closed and its epochs are never
touched, of a running one the store itself says which epochs it has. Metrics carry the times that history.jsonl
recorded, so a gap that is filled later leaves no trace. A pruned trial is KILLED, a failed one FAILED. A study is
RUNNING while a search drives it, FINISHED with its results, FAILED or KILLED where it ended without them.
"""

import contextlib
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from m3col.config.keys import flatten, get
from m3col.data.dataset import Dataset
from m3col.metrics.spec import higher_is_better
from m3col.runtime import notices
from m3col.tracking import mlflow_store, payload
from m3col.tracking.mlflow_store import (
    FAILURE,
    KIND,
    LATEST_VIEW,
    NOTE,
    PARENT,
    RUN,
    RUN_NAME,
    SHARED_VIEW,
    STATE,
    STUDY,
    Stored,
    Tracker,
)
from m3col.tracking.payload import Point, history_points
from tune.config import search_space as spaces
from tune.study.record import StudyFolder
from tune.study.run_messages import COMPLETE, FAILED, PRUNED, RunOutcome
from tune.study.run_name import RunName
from tune.tracking import notes

SEARCH = "m3col.search"

STOPPED = "stopped"

TRIAL_KIND, STUDY_KIND, ASIDE_KIND = "trial", "study", "aside"

_STATUS = {COMPLETE: mlflow_store.FINISHED, PRUNED: mlflow_store.KILLED, FAILED: mlflow_store.FAILED}

# What a resumed study may change, or what says nothing about its numbers: no param, because those cannot be rewritten.
_NOT_PARAMS = ("data.dir", "checkpoint", "resources", "validation.seed")

# Drawn over epochs, beside the search's own metric; all others are written once, at a trial's end: a thousand trials
# of twenty curves would be a million rows, which MLflow's pages take badly.
_CURVES = ("train/loss", "val/loss", "val/accuracy")

_WORDS = {COMPLETE: "complete", PRUNED: "pruned", FAILED: "failed"}

_ENDS = {_WORDS[state]: status for state, status in _STATUS.items()}

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a thousand configs: the one in C is ten times as fast


@dataclass
class Child:
    """What MLflow has of one trial: epochs up to `sent`, and everything once `closed`; `running` in its words.

    `known`: this process has asked, or written, what is there.
    """

    id: str
    name: str
    sent: int = 0
    closed: bool = False
    running: bool = True
    known: bool = False
    ranked: bool = False


class StudyToMlflow:
    """One study in one store. Asks the store once what it has, then remembers what it sent: a new object after any
    error, because then nobody knows what arrived. `driven`: a search is running; what had stopped goes on."""

    def __init__(
        self, folder: StudyFolder, tracker: Tracker, *, dataset: Dataset | None = None, driven: bool = True,
        warn: Callable[[str], None] = notices.warn,
    ) -> None:  # fmt: skip
        self.folder, self.tracker, self.dataset = folder, tracker, dataset
        self.driven, self.warn = driven, warn
        self.described = folder.described()
        self.config = folder.config()
        self.metric = str(self.config.run.metric)
        self.maximize = higher_is_better(self.metric)
        self.key = f"{self.described['name']} {self.described['created']}".replace("'", "_")
        self.defaults = {path: spaces.default_value(self.config.run, path) for path in self.config.space}
        name = self.config.settings.tracking.experiment or self.described["dataset"]["name"]
        self.experiment = tracker.experiment(name)
        self.ended, self.running = False, True
        self.parent, self.parent_tags = self._adopt_parent()
        self.failure = "" if driven else self.parent_tags.get(FAILURE, "")
        self.children = self._adopt_children()
        self._curves = {self.metric, *_CURVES}
        self._outcomes: dict[int, RunOutcome] = {}
        self._bests = tracker.last_step(self.parent, notes.BEST)

    def _adopt_parent(self) -> tuple[str, dict[str, str]]:
        found = self.tracker.find(self.experiment, {STUDY: self.key, KIND: STUDY_KIND})
        if found and found[0].status == mlflow_store.FINISHED:
            self.ended, self.running = True, False
            return found[0].id, dict(found[0].tags)
        tags = {KIND: STUDY_KIND, **self._provenance()}
        parent = found[0].id if found else self.tracker.create(
            self.experiment, self.described["name"], tags=tags, started=_seconds(self.described["created"])
        )  # fmt: skip
        self.running = not found or found[0].status == mlflow_store.RUNNING
        if not self.running and self.driven:
            self.tracker.reopen(parent)
            self.running = True
        # Sent to a run that was found as well: its creator may have died right after creating it.
        self.tracker.write(parent, params=self._settings(), tags=tags)
        about = self.described["dataset"]
        digests = {k: v for k, v in self.described["digests"].items() if k in ("train", "validation", "test")}
        profile = {k: about[k] for k in ("train", "test", "features", "dropped") if k in about}
        self.tracker.dataset(parent, about["name"], digests, profile)
        self.set_view(finished=False)
        return parent, {**(found[0].tags if found else {}), **{key: str(value) for key, value in tags.items()}}

    def _adopt_children(self) -> dict[int, Child]:
        children: dict[int, Child] = {}
        some_aside = (self.folder.path / "aside").is_dir()
        for stored in self.tracker.find(self.experiment, {STUDY: self.key, KIND: TRIAL_KIND}):
            number = RunName.parse(stored.tags[RUN]).number
            state, is_running = stored.tags.get(STATE), stored.status == mlflow_store.RUNNING
            has_stopped = state == STOPPED and not self.folder.finished()
            # Whoever wrote the end of a trial that had stopped may have died before it closed its run.
            is_torn = state in _ENDS and stored.status != _ENDS[state]
            child = Child(
                stored.id, stored.name, closed=not (is_running or has_stopped or is_torn), running=is_running,
                ranked="rank" in stored.metrics,
            )  # fmt: skip
            if (some_aside or not child.closed) and self._is_other(number, stored, child):
                self._set_aside(number, child)
                continue
            if has_stopped and self.driven:
                self.tracker.reopen(child.id)
                self.tracker.write(child.id, tags={STATE: "running"})
                child.running = True
            children[number] = child
        return children

    def _is_other(self, number: int, stored: Stored, child: Child) -> bool:
        """Whether MLflow's run is of another trial of this number, which was set aside (an older copy of the database
        was put back): it has other settings, or has ended while this one runs."""
        if not (self.folder.path / str(RunName.trial(number)) / "config.yaml").exists():
            return False
        wanted = payload.cut(self._params(number), "param")
        differs = any(stored.params.get(key, value) != value for key, value in wanted.items())
        return differs or (child.closed and self.folder.run(RunName.trial(number)).outcome() is None)

    def _set_aside(self, number: int, child: Child) -> None:
        self.tracker.write(child.id, tags={KIND: ASIDE_KIND, STATE: STOPPED, RUN_NAME: f"trial {number} (set aside)"})
        if child.running:
            self.tracker.close(child.id, mlflow_store.KILLED, time.time())

    def close_stopped(self, ended: float) -> None:
        """Ends the runs of trials that have no result, as where the time budget cut them off; a later resume may go on
        with them."""
        for child in self.children.values():
            if child.running:
                self.tracker.write(child.id, tags={STATE: STOPPED})
                self.tracker.close(child.id, mlflow_store.KILLED, ended)
                child.running = False
            child.closed = True

    def stop(self, status: str, failure: str = "") -> None:
        """Ends what is running in MLflow, because nobody drives the study any more: the trials as KILLED, the study,
        unless it has its results, with this status. `failure`: why it failed."""
        ended = time.time()
        self.close_stopped(ended)
        if not self.running:
            return
        self.driven, self.failure = False, failure or self.failure
        self._write_note()
        self.tracker.close(self.parent, status, ended)
        self.running = False

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
        text = (self.folder.path / str(RunName.trial(number)) / "config.yaml").read_text(encoding="utf-8")
        raw = yaml.load(text, Loader=_Loader)
        return {path: get(raw, path) for path in self.config.space}

    def send(self) -> dict[str, str]:
        """One pass over all trials. Returns the parts that the store refused, with its reasons; all others are
        written."""
        left = [number for number in self._numbers() if not (child := self.children.get(number)) or not child.closed]
        steps = {f"trial {number}": functools.partial(self._send_trial, number) for number in left}
        return self.tracker.attempt(self.parent, {**steps, "progress": self._send_progress})

    def set_view(self, *, finished: bool) -> None:
        """Tells MLflow's table of runs which columns to show for this study."""
        state = notes.table_view(self.config, self.key, maximize=self.maximize, finished=finished)
        key = notes.view_key(self.described["name"])
        self.tracker.tag_experiment(self.experiment, {f"{SHARED_VIEW}{key}": state, LATEST_VIEW: key})

    def _numbers(self) -> list[int]:
        place = self.folder.path / "trials"
        return sorted(int(path.name) for path in place.iterdir() if path.name.isdigit()) if place.is_dir() else []

    def _send_trial(self, number: int) -> None:
        run, child = self.folder.run(RunName.trial(number)), self.children.get(number)
        if not (run.path / "config.yaml").exists():
            return
        outcome = run.outcome()  # before the history, which is then complete for it
        history = run.history()
        params = self._params(number) if child is None or not child.known else {}
        child = child or self._new_child(number, params, history, outcome)
        if not child.known:
            child.sent, child.known = self.tracker.last_step(child.id, notes.SO_FAR), True
        fresh = [record for record in history if record["epoch"] > child.sent]
        points = [point for point in history_points(fresh) if point.name in self._curves]
        points += [Point(notes.SO_FAR, r["value"], r["epoch"], r["time"]) for r in fresh if r["value"] is not None]
        tags: dict[str, Any] = {}
        if outcome is not None:
            tags[STATE] = _WORDS[outcome.state]
            points += [point for point in history_points(history[-1:]) if point.name not in self._curves]
            if outcome.is_complete and outcome.value is not None:
                points.append(Point(notes.SCORE, round(outcome.value, notes.DECIMALS), outcome.epochs, outcome.ended))
            if outcome.failure:
                tags |= {FAILURE: outcome.failure, NOTE: f"**Failed:** {outcome.failure}"}
        if points or tags or params:
            self.tracker.write(child.id, points, params=params, tags=tags)
        child.sent = max([child.sent, *(record["epoch"] for record in fresh)])
        if outcome is not None:
            self.tracker.close(child.id, _STATUS[outcome.state], outcome.ended)
            child.closed, child.running = True, False

    def _new_child(
        self, number: int, params: dict[str, Any], history: list[dict[str, Any]], outcome: RunOutcome | None
    ) -> Child:
        begun = 0.0 if outcome is None else outcome.started
        started = begun or (history[0]["time"] if history else time.time())
        name = f"trial {number}" + (" (default)" if params == self.defaults else "")
        tags = {
            PARENT: self.parent, STUDY: self.key, SEARCH: self.described["search_id"], KIND: TRIAL_KIND,
            RUN: str(RunName.trial(number)), STATE: "running",
            "m3col.again": f"m3col train {self.described['name']}#{number}",
        }  # fmt: skip
        child = Child(self.tracker.create(self.experiment, name, tags=tags, started=started), name)
        self.children[number] = child
        return child

    def _send_progress(self) -> None:
        """The study's own curve (best score after each finished trial) and, until there are results, a note."""
        for number, child in self.children.items():
            if child.closed and number not in self._outcomes:
                outcome = self.folder.run(RunName.trial(number)).outcome()
                if outcome is not None:
                    self._outcomes[number] = outcome
        ended = sorted(self._outcomes.values(), key=lambda outcome: outcome.ended)
        finished = [
            (outcome.value, outcome.ended) for outcome in ended if outcome.is_complete and outcome.value is not None
        ]
        if len(finished) > self._bests:
            pick = max if self.maximize else min
            points = [
                Point(notes.BEST, pick(value for value, _ in finished[:count]), count, finished[count - 1][1])
                for count in range(self._bests + 1, len(finished) + 1)
            ]
            self.tracker.write(self.parent, points)
            self._bests = len(finished)
        if not self.folder.finished():
            self._write_note()

    def _write_note(self) -> None:
        """The study's page until there are results."""
        tags = {
            STATE: "running" if self.driven else STOPPED, FAILURE: self.failure, RUN_NAME: self.described["name"],
            NOTE: notes.progress_note(
                self.folder.name, self.config, self._outcomes,
                maximize=self.maximize, running=self.driven, failure=self.failure,
            ),
        }  # fmt: skip
        if all(self.parent_tags.get(key) == value for key, value in tags.items()):
            return
        if self.ended:  # a finished study goes on
            self.tracker.reopen(self.parent)
            self.set_view(finished=False)
            self.ended, self.running = False, True
        self.tracker.write(self.parent, tags=tags)
        self.parent_tags |= tags


def _joined(found: dict[str, str], *, length: int = 40) -> str:
    return ", ".join(f"{name} {value[:length]}" for name, value in found.items())


def _seconds(created: str) -> float:
    with contextlib.suppress(ValueError):
        return time.mktime(time.strptime(created[:19], "%Y-%m-%dT%H:%M:%S"))
    return time.time()
