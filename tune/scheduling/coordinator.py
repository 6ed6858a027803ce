"""Between the engine and the record: hands out runs, stores what they report, says when one must stop.

Knows nothing of ray: `engine.py` feeds it from Tune, tests feed it by hand.
"""

import functools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from m3col.config.loading import load as load_config
from m3col.config.schema import RunConfig
from m3col.errors import InputError
from m3col.runtime import notices
from m3col.storage.redaction import scrubbed
from m3col.storage.retry import StorageUnavailable
from tune.errors import NoCapacity, StudyTakenOver
from tune.scheduling.plan import NextRun, Plan
from tune.study.attempts import training_config
from tune.study.record import COMPLETE, FAILED, PRUNED
from tune.study.remote_copy import RemoteCopy
from tune.study.run_folder import RunFolder
from tune.study.run_spec import TRIAL, RunSpec, report_steps


@dataclass(frozen=True)
class Event:
    """Something a person may want to see: `what` is started, progress, complete, pruned, failed or stopped."""

    what: str
    name: str
    value: float | None = None
    epoch: int = 0
    epochs: int = 0
    detail: str = ""


@dataclass
class _Busy:
    spec: RunSpec
    config: RunConfig
    steps: Mapping[int, int]
    started: float


P = ParamSpec("P")

T = TypeVar("T")


# What stops a search where it can be gone on with.
STOPS = (StorageUnavailable, StudyTakenOver, NoCapacity)


def _remembering(method: Callable[Concatenate["Coordinator", P], T]) -> Callable[Concatenate["Coordinator", P], T]:
    """A method that notes why the search must stop: the engine in between makes another exception of it."""

    @functools.wraps(method)
    def remembering(self: "Coordinator", *args: P.args, **named: P.kwargs) -> T:
        if self.stopped_by is not None:  # Tune may have swallowed it, as it does at the end of a run
            raise self.stopped_by
        try:
            return method(self, *args, **named)
        except (StorageUnavailable, StudyTakenOver) as error:
            self.stopped_by = error
            raise

    return remembering


class Coordinator:
    """`concurrency`: runs at a time; the engine changes it as nodes come and go. `mirror`: keeps a copy of the record.
    `warn` hears of runs that no longer count. Raises InputError for a study that has lost its database.
    All methods are called from one thread. Where the storage refuses for too long they raise StorageUnavailable, and
    `stopped_by` holds it, or what the engine has to stop for; what runs stays running in the study."""

    def __init__(
        self, plan: Plan, *, concurrency: int = 1, observe: Callable[[Event], None] = lambda event: None,
        mirror: RemoteCopy | None = None, warn: Callable[[str], None] = notices.warn,
    ) -> None:  # fmt: skip
        self.plan, self.folder, self.trials = plan, plan.folder, plan.trials
        self.concurrency, self._observe = concurrency, observe
        self.mirror, self._warn = mirror or RemoteCopy(), warn
        self.stopped_by: RuntimeError | None = None
        self._busy: dict[str, _Busy] = {}
        self._cut_off: list[str] = []  # runs that were told to end before their last epoch
        self._clock = time.monotonic()
        self._prepare()

    def _prepare(self) -> None:
        """Brings the record in order after a crash: finished work is told, not trained again."""
        known = {trial.number for trial in self.trials.all()}
        lost = self.folder.lost_database(known.__contains__)
        if lost:
            raise InputError(lost)
        self.trials.requeue_incomplete()
        self.plan.prepare()
        self._quarantine_unknown_runs()
        for number in self.trials.pruned_but_unrecorded():
            self._record_pruned(f"trials/{number}", number)
            self.mirror.ended(f"trials/{number}")
        for name, run in list(self.folder.runs()):
            if run.result() is not None:
                run.drop_checkpoints()  # its driver may have died before it did
                continue
            self.mirror.fetch_outcome(name)
            done = run.outcome()
            if done is not None:
                self._recover_finished_run(name, json.loads((done / "outcome.json").read_text(encoding="utf-8")))
                self.mirror.ended(name)
        for trial in self.trials.all():
            run = self.folder.run(f"trials/{trial.number}")
            result = run.result()
            if result is not None and not trial.state.is_finished():
                # A fetched copy of the database may be older than the run's files.
                self._report(trial.number, report_steps(run.config()["train"]["epochs"]), run.history())
                self._tell(trial.number, result)

    def _quarantine_unknown_runs(self) -> None:
        """Run folders of trials that the database does not know, or knows with other parameters."""
        trials = {trial.number: trial for trial in self.trials.all()}
        for name, run in list(self.folder.runs()):
            if not name.startswith("trials/"):
                continue
            trial = trials.get(int(name.removeprefix("trials/")))
            if trial is not None and trial.state.is_finished():
                continue
            if trial is None or not self._is_of(run, trial.params):
                target = run.set_aside().relative_to(self.folder.path)
                self._warn(
                    f"{self.folder.path}: the database does not know {name} as it is here, so it may be an older copy; "
                    f"the run lies in {target} and does not count"
                )

    def _is_of(self, run: RunFolder, params: Mapping[str, Any]) -> bool:
        try:
            return training_config(run.config()) == training_config(self.plan.config.point(dict(params)).to_dict())
        except InputError:  # a config that cannot be read, or a point that cannot be run
            return False

    def _recover_finished_run(self, name: str, outcome: Mapping[str, Any]) -> None:
        """Takes over a run that trained its last epoch but whose driver died before it heard of it."""
        run = self.folder.run(name)
        run.append(outcome["history"], restart=True)
        if name.startswith("trials/"):
            number = int(name.removeprefix("trials/"))
            if self._report(number, report_steps(outcome["epochs"]), outcome["history"]):
                self._record_pruned(name, number)
                return
        self._complete(name, outcome, started=None)

    @property
    def busy(self) -> dict[str, RunSpec]:
        return {name: item.spec for name, item in self._busy.items()}

    @_remembering
    def next(self) -> RunSpec | NextRun:
        """The next run, or why there is none. The caller starts what it gets."""
        self._count_time()
        if len(self._busy) >= self.concurrency:
            return NextRun.WAIT
        spec = self.plan.next(self._busy.keys())
        if isinstance(spec, NextRun):
            return spec
        config = load_config(spec.config, where=spec.name)
        run = self.folder.run(spec.name)
        run.create(config.to_dict())
        run.log("started")
        self.mirror.started(spec.name)
        self._busy[spec.name] = _Busy(spec, config, report_steps(config.train.epochs), time.time())
        self._observe(Event("started", spec.name, epochs=config.train.epochs))
        return spec

    @_remembering
    def result(self, result: Mapping[str, Any]) -> bool:
        """Stores what a run reports. True: it must stop now."""
        name = result["run"]
        item = self._busy.get(name)
        if item is None:
            return True
        if result.get("refused"):
            raise StorageUnavailable(result["refused"])
        self._count_time()
        run = self.folder.run(name)
        for line in result["log"]:
            run.log(line)
        records = result["records"]
        if records:
            run.append(records, restart=result["restart"])
        if result["failure"] is not None:
            self.failed(name, result["failure"])
            return True
        number = int(name.removeprefix("trials/")) if item.spec.kind == TRIAL else -1
        if item.spec.kind == TRIAL and self._report(number, item.steps, records):
            # Also where it went on to its end meanwhile, as workers of several that report from time to time may.
            self._record_pruned(name, number)
            self._end(name, "pruned")
            return True
        if result["done"]:
            self._finish(name)
            return True
        value = records[-1]["value"] if records else None
        self._observe(Event("progress", name, value, result["epoch"], item.config.train.epochs))
        if item.spec.kind == TRIAL and self.plan.out_of_time:
            run.log("the time budget is spent")
            self._end(name, "stopped")
            return True
        return False

    def _report(self, number: int, steps: Mapping[int, int], records: Sequence[Mapping[str, Any]]) -> bool:
        """Tells the study the values at report steps; True where the pruner turns the trial down."""
        for record in records:
            step = steps.get(record["epoch"])
            if step is not None:
                self.trials.report(number, step, record["value"])
                if step < 100 and self.trials.should_prune(number):
                    return True
        return False

    def _finish(self, name: str) -> None:
        self.mirror.fetch_outcome(name)
        done = self.folder.run(name).outcome()
        if done is None:
            self.failed(name, "the run ended without an outcome")
            return
        outcome = json.loads((done / "outcome.json").read_text(encoding="utf-8"))
        self._complete(name, outcome, started=self._busy[name].started)
        self._end(name, "complete", value=outcome["value"])

    def _complete(self, name: str, outcome: Mapping[str, Any], *, started: float | None) -> None:
        ended = time.time()
        outcome = {key: value for key, value in outcome.items() if key != "history"}
        result = {"state": COMPLETE, **outcome, "failure": None, "started": started or ended, "ended": ended}
        self.folder.run(name).write_result(result)
        if name.startswith("trials/"):
            self._tell(int(name.removeprefix("trials/")), result)

    def _tell(self, number: int, result: Mapping[str, Any]) -> None:
        if result["state"] == COMPLETE:
            self.trials.complete(number, result["value"], result["loss"])
        elif result["state"] == PRUNED:
            self.trials.prune(number)
        else:
            self.trials.fail(number, result["failure"])

    def _record_pruned(self, name: str, number: int) -> None:
        self._write_unfinished(name, PRUNED, None)
        self.trials.prune(number)

    def _write_unfinished(self, name: str, state: str, failure: str | None) -> None:
        run = self.folder.run(name)
        history = run.history()
        last = history[-1] if history else {"epoch": 0, "value": None, "metrics": {}, "time": time.time()}
        item = self._busy.get(name)
        started = item.started if item is not None else last["time"]
        run.write_result(
            {"state": state, "value": last["value"], "loss": last["metrics"].get("val/loss"),
             "metrics": last["metrics"], "epochs": last["epoch"], "seconds": last["time"] - started,
             "failure": failure, "started": started, "ended": time.time()}
        )  # fmt: skip
        run.drop_checkpoints()

    @_remembering
    def failed(self, name: str, reason: str) -> None:
        """Records a run that cannot be finished; the study goes on."""
        if name not in self._busy:
            return
        reason = scrubbed(reason)  # it goes to MLflow and into the results
        self._write_unfinished(name, FAILED, reason)
        if name.startswith("trials/"):
            self.trials.fail(int(name.removeprefix("trials/")), reason)
        self._end(name, "failed", detail=reason)

    def _end(self, name: str, what: str, *, value: float | None = None, detail: str = "") -> None:
        item = self._busy.pop(name)
        if what != "complete":
            self._cut_off.append(name)
        self.folder.run(name).log(f"{what}{f': {detail}' if detail else ''}")
        self.mirror.ended(name)
        history = self.folder.run(name).history()
        last: dict[str, Any] = history[-1] if history else {"epoch": 0, "value": None}
        shown = value if value is not None else last["value"]
        self._observe(Event(what, name, shown, last["epoch"], item.config.train.epochs, detail))

    @_remembering
    def tidy(self) -> None:
        """Frees once more what runs that were cut off have left. Call it when their processes are gone: of several
        workers the first one trains on for some seconds after the verdict, and writes."""
        runs = [name for name in self._cut_off if self.folder.run(name).result() is not None]
        for name in runs:
            self.folder.run(name).drop_checkpoints()
        self.mirror.tidy(runs)

    def _count_time(self) -> None:
        """Time spent searching, for the budget; written to the study now and then, so that restarts keep it."""
        now = time.monotonic()
        spent = now - self._clock
        if spent >= 1 or not math.isfinite(spent):
            self._clock = now
            if self.plan.config.settings.search.time_budget_s is not None and self.plan.searching():
                self.trials.add_seconds(spent)
