"""Writes to MLflow what it lacks of a study, from the study's files alone.

The data set's experiment has one run per study, identified by the tag m3col.study (name and date of creation), and one
child run per trial, identified by m3col.run. Sending twice adds nothing: finished child runs are never changed, and for
a running one the store is asked which epochs it has. Metrics have the times of history.jsonl, also if they are sent
later. Status: a pruned trial is KILLED, a failed one FAILED; a study is RUNNING while a search runs it, FINISHED with
results, FAILED or KILLED if it ended without results.
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
from tune.tracking import notes, tree_to_mlflow

SEARCH = "m3col.search"

STOPPED = "stopped"

TRIAL_KIND, STUDY_KIND, ASIDE_KIND = "trial", "study", "aside"

_STATUS = {COMPLETE: mlflow_store.FINISHED, PRUNED: mlflow_store.KILLED, FAILED: mlflow_store.FAILED}

# Not sent as params, which cannot be changed: settings that may change on resume, or that do not affect results.
_NOT_PARAMS = ("data.dir", "checkpoint", "resources", "validation.seed")

# Metrics sent for every epoch, in addition to the search metric. All others are sent once, at a trial's end: a thousand
# trials with twenty curves would be a million rows, and MLflow's pages become slow.
_CURVES = ("train/loss", "val/loss", "val/accuracy")

_WORDS = {COMPLETE: "complete", PRUNED: "pruned", FAILED: "failed"}

_ENDS = {_WORDS[state]: status for state, status in _STATUS.items()}

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the loader in C is ten times as fast


@dataclass
class Child:
    """The MLflow run of one trial.

    Attributes:
        id: id of the MLflow run.
        name: name of the MLflow run.
        sent: last epoch that MLflow has.
        closed: whether MLflow has everything.
        running: whether its status in MLflow is RUNNING.
        known: whether `sent` is up to date, because this process asked the store or wrote it.
        ranked: whether it has a rank.
    """

    id: str
    name: str
    sent: int = 0
    closed: bool = False
    running: bool = True
    known: bool = False
    ranked: bool = False


class StudyToMlflow:
    """One study in one store.

    Asks the store once what it has, then keeps track of what it sent. After an error create a new object, because it is
    unknown what the store received. `driven`: whether a search is running; then stopped runs are opened again.
    """

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
        runs = self.tracker.find(self.experiment, {STUDY: self.key, KIND: STUDY_KIND})
        if runs and runs[0].status == mlflow_store.FINISHED:
            self.ended, self.running = True, False
            return runs[0].id, dict(runs[0].tags)
        tags = {KIND: STUDY_KIND, **self._provenance()}
        parent = runs[0].id if runs else self.tracker.create(
            self.experiment, self.described["name"], tags=tags, started=_seconds(self.described["created"])
        )  # fmt: skip
        self.running = not runs or runs[0].status == mlflow_store.RUNNING
        if not self.running and self.driven:
            self.tracker.reopen(parent)
            self.running = True
        # Also sent to an existing run: its creator may have died right after creating it.
        self.tracker.write(parent, params=self._settings(), tags=tags)
        dataset = self.described["dataset"]
        digests = {k: v for k, v in self.described["digests"].items() if k in ("train", "validation", "test")}
        profile = {k: dataset[k] for k in ("train", "test", "features", "dropped") if k in dataset}
        self.tracker.dataset(parent, dataset["name"], digests, profile)
        self.set_view(finished=False)
        return parent, {**(runs[0].tags if runs else {}), **{key: str(value) for key, value in tags.items()}}

    def _adopt_children(self) -> dict[int, Child]:
        children: dict[int, Child] = {}
        some_aside = (self.folder.path / "aside").is_dir()
        for stored in self.tracker.find(self.experiment, {STUDY: self.key, KIND: TRIAL_KIND}):
            number = RunName.parse(stored.tags[RUN]).number
            state, is_running = stored.tags.get(STATE), stored.status == mlflow_store.RUNNING
            has_stopped = state == STOPPED and not self.folder.finished()
            # The process that wrote the state of an ended trial may have died before it closed the run.
            is_inconsistent = state in _ENDS and stored.status != _ENDS[state]
            child = Child(
                stored.id, stored.name, closed=not (is_running or has_stopped or is_inconsistent), running=is_running,
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
        """Whether the MLflow run belongs to another trial with this number.

        That trial was set aside when an older copy of the database was restored. Then the MLflow run has other
        settings, or has ended while this trial is running.
        """
        if not (self.folder.path / str(RunName.trial(number)) / "config.yaml").exists():
            return False
        params = payload.cut(self._params(number), "param")
        differs = any(stored.params.get(key, value) != value for key, value in params.items())
        return differs or (child.closed and self.folder.run(RunName.trial(number)).outcome() is None)

    def _set_aside(self, number: int, child: Child) -> None:
        self.tracker.write(child.id, tags={KIND: ASIDE_KIND, STATE: STOPPED, RUN_NAME: f"trial {number} (set aside)"})
        if child.running:
            self.tracker.close(child.id, mlflow_store.KILLED, time.time())

    def close_stopped(self, ended: float) -> None:
        """Closes the runs of trials without a result, e.g. after the time budget. A resume may continue them."""
        for child in self.children.values():
            if child.running:
                self.tracker.write(child.id, tags={STATE: STOPPED})
                self.tracker.close(child.id, mlflow_store.KILLED, ended)
                child.running = False
            child.closed = True

    def stop(self, status: str, failure: str = "") -> None:
        """Closes the running MLflow runs when the search has ended.

        Args:
            status: status of the study's run, if it has no results. Trials become KILLED.
            failure: why the search failed.
        """
        ended = time.time()
        self.close_stopped(ended)
        if not self.running:
            return
        self.driven, self.failure = False, failure or self.failure
        self._write_note()
        self.tracker.close(self.parent, status, ended)
        self.running = False

    def _provenance(self) -> dict[str, Any]:
        described = self.described
        values = {
            STUDY: self.key, SEARCH: described["search_id"], "m3col.folder": self.folder.path,
            "m3col.method": self.config.run.method, "m3col.metric": self.metric,
            "m3col.host": described["host"],
            "m3col.threads": described["threads"], "m3col.trials": self.config.settings.search.trials,
            "mlflow.source.git.commit": described["git"]["commit"], "m3col.git.dirty": described["git"]["dirty"],
            "m3col.versions": _joined(described["versions"]), "m3col.digests": _joined(described["digests"], length=12),
        }  # fmt: skip
        if self.folder.tree is not None:
            values |= {PARENT: tree_to_mlflow.run_of(self.folder.tree, self.tracker)}
        return {key: value for key, value in values.items() if value is not None}

    def _settings(self) -> dict[str, Any]:
        """Returns the study's params: the base config without searched keys, which the child runs have."""
        kept = {
            path: value
            for path, value in flatten(self.config.run.to_dict())
            if path not in self.config.space
            and not any(path == key or path.startswith(f"{key}.") for key in _NOT_PARAMS)
        }
        search = self.config.settings.search
        return {**kept, "search.sampler": search.sampler, "search.pruner": search.pruner, "search.seed": search.seed}

    def _params(self, number: int) -> dict[str, Any]:
        """Returns the searched values of a trial: only these, so that the table of runs can show them all."""
        text = (self.folder.path / str(RunName.trial(number)) / "config.yaml").read_text(encoding="utf-8")
        raw = yaml.load(text, Loader=_Loader)
        return {path: get(raw, path) for path in self.config.space}

    def send(self) -> dict[str, str]:
        """Sends what MLflow lacks of all trials. Returns the parts that the store rejected, with the reasons."""
        numbers = [number for number in self._numbers() if not (child := self.children.get(number)) or not child.closed]
        steps = {f"trial {number}": functools.partial(self._send_trial, number) for number in numbers}
        return self.tracker.attempt(self.parent, {**steps, "progress": self._send_progress})

    def set_view(self, *, finished: bool) -> None:
        """Stores the view of MLflow's table of runs for this study."""
        state = notes.table_view(self.config, self.key, maximize=self.maximize, finished=finished)
        key = notes.view_key(self.described["name"])
        self.tracker.tag_experiment(self.experiment, {f"{SHARED_VIEW}{key}": state, LATEST_VIEW: key})

    def _numbers(self) -> list[int]:
        """Returns the numbers of the trials that have a folder."""
        trials = self.folder.path / "trials"
        return sorted(int(path.name) for path in trials.iterdir() if path.name.isdigit()) if trials.is_dir() else []

    def _send_trial(self, number: int) -> None:
        run, child = self.folder.run(RunName.trial(number)), self.children.get(number)
        if not (run.path / "config.yaml").exists():
            return
        outcome = run.outcome()  # read before the history, so that the history is complete if there is an outcome
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
        """Sends the best score after each finished trial and, until there are results, the note."""
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
        """Writes the study's note until there are results."""
        tags = {
            STATE: "running" if self.driven else STOPPED, FAILURE: self.failure, RUN_NAME: self.described["name"],
            NOTE: notes.progress_note(
                self.folder.resume_name, self.config, self._outcomes,
                maximize=self.maximize, running=self.driven, failure=self.failure,
            ),
        }  # fmt: skip
        if all(self.parent_tags.get(key) == value for key, value in tags.items()):
            return
        if self.ended:  # a finished study is being extended
            self.tracker.reopen(self.parent)
            self.set_view(finished=False)
            self.ended, self.running = False, True
        self.tracker.write(self.parent, tags=tags)
        self.parent_tags |= tags


def _joined(values: dict[str, str], *, length: int = 40) -> str:
    return ", ".join(f"{name} {value[:length]}" for name, value in values.items())


def _seconds(created: str) -> float:
    with contextlib.suppress(ValueError):
        return time.mktime(time.strptime(created[:19], "%Y-%m-%dT%H:%M:%S"))
    return time.time()
