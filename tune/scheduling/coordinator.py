"""Coordinates a study: schedules runs, persists their reports and outcomes, applies pruning decisions.

Does not import Ray: `tune.engine.ray_tune` calls it from Ray Tune, tests call it directly.
"""

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from m3col.errors import InputError
from m3col.runtime import notices
from m3col.storage.redaction import scrubbed
from m3col.storage.retry import StorageUnavailable
from tune.errors import NoCapacity, StudyTakenOver
from tune.scheduling.plan import NextRun, Plan
from tune.study.attempts import training_config
from tune.study.remote_copy import RemoteCopy
from tune.study.run_folder import RunFolder
from tune.study.run_messages import (
    COMPLETE,
    FAILED,
    PRUNED,
    EpochRecord,
    FinishedAttempt,
    RunOutcome,
    RunReport,
)
from tune.study.run_name import RunName
from tune.study.run_spec import RunSpec, report_steps


@dataclass(frozen=True)
class Event:
    """Progress of one run, for the terminal.

    Args:
        what: kind of event: started, progress, complete, pruned, failed or stopped.
        name: the run's name.
        value: the search metric so far; None if there is none.
        epoch: number of epochs trained.
        epochs: number of epochs of the whole run.
        detail: why the run failed, else "".
    """

    what: str
    name: str
    value: float | None = None
    epoch: int = 0
    epochs: int = 0
    detail: str = ""


@dataclass
class _Busy:
    """A running run. `steps`: progress in percent by report epoch; `started`: Unix seconds."""

    spec: RunSpec
    run: RunName
    epochs: int
    steps: Mapping[int, int]
    started: float


P = ParamSpec("P")

T = TypeVar("T")


# Errors that stop a search which can be resumed.
STOPS = (StorageUnavailable, StudyTakenOver, NoCapacity)


def _remembering(method: Callable[Concatenate["Coordinator", P], T]) -> Callable[Concatenate["Coordinator", P], T]:
    """Decorator: keeps in `stopped_by` why the search must stop, because Ray Tune raises another exception."""

    @functools.wraps(method)
    def remembering(self: "Coordinator", *args: P.args, **named: P.kwargs) -> T:
        if self.stopped_by is not None:  # Tune may have suppressed it, as it does at the end of a run
            raise self.stopped_by
        try:
            return method(self, *args, **named)
        except (StorageUnavailable, StudyTakenOver) as error:
            self.stopped_by = error
            raise

    return remembering


class Coordinator:
    """Schedules the runs of one study and keeps its record. All methods must be called from one thread.

    Args:
        plan: decides which run is next.
        concurrency: number of runs at a time, default 1; the engine changes it as nodes join and leave.
        observe: called with each `Event`.
        mirror: copies the record to the study's storage; default: no copy.
        warn: called with a line about runs that no longer count.

    Attributes:
        stopped_by: why the search must stop (`STOPS`), else None. Unfinished runs keep their state "running" in the
            study.

    Raises:
        InputError: the study has lost its database.
        StorageUnavailable: the storage refused a write for longer than `storage.patience_s`. Every method may raise it.
    """

    def __init__(
        self, plan: Plan, *, concurrency: int = 1, observe: Callable[[Event], None] = lambda event: None,
        mirror: RemoteCopy | None = None, warn: Callable[[str], None] = notices.warn,
    ) -> None:  # fmt: skip
        self.plan, self.folder, self.trials = plan, plan.folder, plan.trials
        self.concurrency, self._observe = concurrency, observe
        self.mirror, self._warn = mirror or RemoteCopy(), warn
        self.stopped_by: RuntimeError | None = None
        self._busy: dict[str, _Busy] = {}
        self._cut_off: list[str] = []  # runs that were stopped before their last epoch
        self._clock = time.monotonic()
        self._prepare()

    def _prepare(self) -> None:
        """Makes folder and database consistent after a crash. Finished runs are recorded and not trained again."""
        numbers = {trial.number for trial in self.trials.all()}
        faults = self.folder.lost_database(numbers.__contains__)
        if faults:
            raise InputError(faults)
        self.trials.requeue_incomplete()
        self.plan.prepare()
        self._quarantine_unknown_runs()
        for number in self.trials.pruned_but_unrecorded():
            self._record_pruned(RunName.trial(number))
            self.mirror.ended(str(RunName.trial(number)))
        for name, run in list(self.folder.runs()):
            if run.outcome() is not None:
                run.drop_checkpoints()  # the driver may have died before it removed them
                continue
            self.mirror.fetch_outcome(name)
            attempt = run.finished_attempt()
            if attempt is not None:
                self._recover_finished_run(RunName.parse(name), attempt)
                self.mirror.ended(name)
        for trial in self.trials.all():
            run = self.folder.run(RunName.trial(trial.number))
            outcome = run.outcome()
            if outcome is not None and not trial.state.is_finished():
                # A fetched copy of the database may be older than the run's files.
                self._report_values(trial.number, report_steps(run.config()["train"]["epochs"]), run.history())
                self._end_trial(trial.number, outcome)

    def _quarantine_unknown_runs(self) -> None:
        """Moves folders of trials away that the database does not have, or has with other parameters."""
        trials = {trial.number: trial for trial in self.trials.all()}
        for name, run in list(self.folder.runs()):
            parsed = RunName.parse(name)
            if not parsed.is_trial:
                continue
            trial = trials.get(parsed.number)
            if trial is not None and trial.state.is_finished():
                continue
            if trial is None or not self._is_of(run, trial.params):
                target = run.set_aside().relative_to(self.folder.path)
                self._warn(
                    f"{self.folder.path}: the database does not know {name} as it is here, so it may be an older copy; "
                    f"the run was moved to {target} and does not count"
                )

    def _is_of(self, run: RunFolder, params: Mapping[str, Any]) -> bool:
        """Whether a run's folder belongs to the trial with these parameters."""
        try:
            return training_config(run.config()) == training_config(self.plan.config.point(dict(params)).to_dict())
        except InputError:  # an unreadable config, or an invalid point
            return False

    def _recover_finished_run(self, run: RunName, attempt: FinishedAttempt) -> None:
        """Records a run that trained its last epoch, but whose driver died before it received the report."""
        self.folder.run(run).append(attempt.history, restart=True)
        if run.is_trial and self._report_values(run.number, report_steps(attempt.epochs), attempt.history):
            self._record_pruned(run)
            return
        self._complete(run, attempt, started=None)

    @property
    def busy(self) -> dict[str, RunSpec]:
        """The runs that are running now, by name."""
        return {name: item.spec for name, item in self._busy.items()}

    @_remembering
    def next(self) -> RunSpec | NextRun:
        """Returns the next run, which the caller must start, or why there is none."""
        self._count_time()
        if len(self._busy) >= self.concurrency:
            return NextRun.WAIT
        spec = self.plan.next(self._busy.keys())
        if isinstance(spec, NextRun):
            return spec
        # The config is derived from a validated one, so it is not validated again.
        epochs = int(spec.config["train"]["epochs"])
        run = self.folder.run(spec.name)
        run.create(spec.config)
        run.log("started")
        self.mirror.started(spec.name)
        self._busy[spec.name] = _Busy(spec, RunName.parse(spec.name), epochs, report_steps(epochs), time.time())
        self._observe(Event("started", spec.name, epochs=epochs))
        return spec

    @_remembering
    def on_report(self, report: RunReport) -> bool:
        """Stores what a run reports. Returns whether the run must stop now."""
        item = self._busy.get(report.run)
        if item is None:
            return True
        if report.refused:
            raise StorageUnavailable(report.refused)
        self._count_time()
        run = self.folder.run(report.run)
        for line in report.log:
            run.log(line)
        if report.records:
            run.append(report.records, restart=report.restart)
        if report.failure is not None:
            self.failed(report.run, report.failure)
            return True
        if item.run.is_trial and self._report_values(item.run.number, item.steps, report.records):
            # Even if the run has finished in the meantime, as runs with several ranks may: they report less often.
            self._record_pruned(item.run)
            self._end(report.run, "pruned")
            return True
        if report.done:
            self._finish(item)
            return True
        value = report.records[-1]["value"] if report.records else None
        self._observe(Event("progress", report.run, value, report.epoch, item.epochs))
        if item.run.is_trial and self.plan.out_of_time:
            run.log("the time budget is spent")
            self._end(report.run, "stopped")
            return True
        return False

    def _report_values(self, number: int, steps: Mapping[int, int], records: Sequence[EpochRecord]) -> bool:
        """Reports a trial's values at its report steps to Optuna. Returns whether the pruner stops the trial."""
        for record in records:
            step = steps.get(record["epoch"])
            # A method without labels is validated at some of these epochs only.
            if step is not None and record["value"] is not None:
                self.trials.report(number, step, record["value"])
                if step < 100 and self.trials.should_prune(number):
                    return True
        return False

    def _finish(self, item: _Busy) -> None:
        """Records a run that reported its last epoch."""
        name = item.spec.name
        self.mirror.fetch_outcome(name)
        attempt = self.folder.run(name).finished_attempt()
        if attempt is None:
            self.failed(name, "the run ended without an outcome")
            return
        self._complete(item.run, attempt, started=item.started)
        self._end(name, "complete", value=attempt.value)

    def _complete(self, run: RunName, attempt: FinishedAttempt, *, started: float | None) -> None:
        ended = time.time()
        outcome = RunOutcome.of_finished(attempt, started=started or ended, ended=ended)
        self.folder.run(run).write_outcome(outcome)
        if run.is_trial:
            self._end_trial(run.number, outcome)

    def _end_trial(self, number: int, outcome: RunOutcome) -> None:
        """Ends a trial in Optuna's study as its run ended."""
        if outcome.state == COMPLETE:
            assert outcome.value is not None, "a trial has validation samples"
            self.trials.complete(number, outcome.value, outcome.loss)
        elif outcome.state == PRUNED:
            self.trials.prune(number)
        else:
            self.trials.fail(number, outcome.failure or "no reason is recorded")

    def _record_pruned(self, run: RunName) -> None:
        self._write_cut_off(run, PRUNED, None)
        self.trials.prune(run.number)

    def _write_cut_off(self, name: RunName, state: str, failure: str | None) -> None:
        run, item = self.folder.run(name), self._busy.get(str(name))
        run.write_outcome(
            RunOutcome.of_cut_off(
                state,
                run.history(),
                started=None if item is None else item.started,
                ended=time.time(),
                failure=failure,
            )
        )
        # A thread of the run's process may be writing one: that process removes it, or `tidy`.
        run.drop_checkpoints(incomplete=False)

    @_remembering
    def failed(self, name: str, reason: str) -> None:
        """Records a run that cannot be finished; the study continues."""
        item = self._busy.get(name)
        if item is None:
            return
        reason = scrubbed(reason)  # it goes to MLflow and into the results
        self._write_cut_off(item.run, FAILED, reason)
        if item.run.is_trial:
            self.trials.fail(item.run.number, reason)
        self._end(name, "failed", detail=reason)

    def _end(self, name: str, what: str, *, value: float | None = None, detail: str = "") -> None:
        """Removes a run from the running ones; logs it and reports the event `what`."""
        item = self._busy.pop(name)
        if what != "complete":
            self._cut_off.append(name)
        self.folder.run(name).log(f"{what}{f': {detail}' if detail else ''}")
        self.mirror.ended(name)
        history = self.folder.run(name).history()
        last: dict[str, Any] = history[-1] if history else {"epoch": 0, "value": None}
        shown = value if value is not None else last["value"]
        self._observe(Event(what, name, shown, last["epoch"], item.epochs, detail))

    @_remembering
    def tidy(self) -> None:
        """Removes the checkpoints of runs that were stopped.

        Call it when their processes have ended: with several ranks, rank 0 keeps training and writing for some seconds
        after the decision to stop.
        """
        runs = [name for name in self._cut_off if self.folder.run(name).outcome() is not None]
        for name in runs:
            self.folder.run(name).drop_checkpoints()
        self.mirror.tidy(runs)

    def _count_time(self) -> None:
        """Adds up the time spent searching, for the time budget, and stores it so that a resumed search keeps it."""
        now = time.monotonic()
        spent = now - self._clock
        if spent >= 1 or not math.isfinite(spent):
            self._clock = now
            if self.plan.config.settings.search.time_budget_s is not None and self.plan.searching():
                self.trials.add_seconds(spent)
