"""Progress of a running search: a live table on a terminal, plain lines elsewhere."""

import statistics
import sys
import time
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jobs.terminal.console import console
from tune.scheduling.coordinator import Coordinator, Event
from tune.study.record import StudyFolder
from tune.study.run_name import TRIALS, RunName, stage_of

_STAGES = {"trials": "search", "replicates": "replicates", "confirm": "confirmation", "refits": "refits"}


class Progress:
    """Shows a running search. Use it as a context manager.

    `started` is called at the start of each study, `observe` for each event of a run.
    """

    def __init__(self, *, stream: Any = None, force_plain: bool = False) -> None:
        self.console = console(file=stream or sys.stdout, highlight=False)
        self._live: Live | None = None
        self._plain = force_plain or not self.console.is_terminal
        self.folder: StudyFolder | None = None
        self._coordinator: Coordinator | None = None
        self._running: dict[str, Event] = {}
        self._counts = {"complete": 0, "pruned": 0, "failed": 0}
        self._best: tuple[float, str] | None = None
        self._seconds: list[float] = []
        self._began: dict[str, float] = {}

    def __enter__(self) -> "Progress":
        if not self._plain:
            self._live = Live(self._view(), console=self.console, refresh_per_second=4, transient=False)
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.update(self._view())
            self._live.stop()

    def on_study(self, folder: StudyFolder) -> None:
        """Notes the study: from now on an interrupted search can be resumed."""
        self.folder = folder

    def started(self, folder: StudyFolder, coordinator: Coordinator) -> None:
        self.folder, self._coordinator = folder, coordinator
        self._running, self._best, self._seconds = {}, None, []
        self._counts = {"complete": 0, "pruned": 0, "failed": 0}
        for trial in coordinator.trials.all():
            state = {"PRUNED": "pruned", "COMPLETE": "complete", "FAIL": "failed"}.get(trial.state.name)
            if state:
                self._counts[state] += 1
            if trial.state.name == "COMPLETE" and trial.value is not None:
                self._note_best(float(trial.value), str(RunName.trial(trial.number)))
        self._line(f"study {folder.path}")

    def observe(self, event: Event) -> None:
        if event.what in ("started", "progress"):
            self._running[event.name] = event
            self._began.setdefault(event.name, time.monotonic())
        else:
            self._running.pop(event.name, None)
            self._ended(event)
        if self._live is not None:
            self._live.update(self._view())
        elif event.what != "progress":
            self._line(self._describe(event))

    def _ended(self, event: Event) -> None:
        began = self._began.pop(event.name, None)
        if stage_of(event.name) == TRIALS:
            if event.what in self._counts:
                self._counts[event.what] += 1
            if began is not None:
                self._seconds.append(time.monotonic() - began)
            if event.what == "complete" and event.value is not None:
                self._note_best(event.value, event.name)

    def _note_best(self, value: float, name: str) -> None:
        maximize = self._coordinator is None or self._coordinator.trials.maximize
        if self._best is None or (value > self._best[0] if maximize else value < self._best[0]):
            self._best = (value, name)

    def _describe(self, event: Event) -> str:
        value = "" if event.value is None else f"  {event.value:.4f}"
        detail = f"  {event.detail}" if event.detail else ""
        best = f"  best {self._best[0]:.4f} ({self._best[1]})" if self._best and event.what != "started" else ""
        return f"{time.strftime('%H:%M:%S')}  {event.name:<24} {event.what:<9}{value}{detail}{best}"

    def _line(self, text: str) -> None:
        if self._live is None:
            self.console.print(text, soft_wrap=True)
            self.console.file.flush()

    def time_left_s(self) -> float | None:
        """Seconds until the trials have ended, estimated from their median so far; None before the first has ended."""
        if self._coordinator is None or not self._seconds:
            return None
        plan = self._coordinator.plan
        left = plan.target - sum(self._counts.values())
        estimate = max(left, 0) * statistics.median(self._seconds) / self._coordinator.concurrency
        budget = plan.config.settings.search.time_budget_s
        return estimate if budget is None else min(estimate, max(0.0, budget - plan.trials.seconds()))

    def _view(self) -> Group:
        title = f"study {self.folder.name}" if self.folder else "starting Ray"
        table = Table(title=title, title_justify="left", expand=False)
        for column in ("run", "stage", "epoch", "value"):
            table.add_column(column, justify="right" if column in ("epoch", "value") else "left")
        for name, event in sorted(self._running.items()):
            value = "" if event.value is None else f"{event.value:.4f}"
            table.add_row(name, _STAGES.get(stage_of(name), ""), f"{event.epoch}/{event.epochs}", value)
        done = f"{self._counts['complete']} done, {len(self._running)} running, {self._counts['pruned']} pruned"
        if self._counts["failed"]:
            done += f", {self._counts['failed']} failed"
        if self._best:
            done += f" | best so far {self._best[0]:.4f} ({self._best[1]})"
        left = self.time_left_s()
        if left is not None:
            done += f" | trials: about {f'{left / 60:.0f} min' if left >= 60 else f'{left:.0f} s'} left"
        return Group(table, Text(done))  # not a caption: that would be as narrow as the table
