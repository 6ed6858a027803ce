"""Updates MLflow from a background thread while a search runs, and closes the MLflow runs when it ends."""

import contextlib
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

from m3col.data.dataset import Dataset
from m3col.runtime import exit_hooks, notices
from m3col.tracking import mlflow_store
from m3col.tracking.mlflow_store import Tracker
from m3col.tracking.payload import reason_of
from tune.errors import StudyTakenOver
from tune.results import report as reports
from tune.results.report import Report
from tune.study.record import StudyFolder
from tune.tracking import study_to_mlflow, sync

_LAST_S, _BETWEEN_LAST_S = 20.0, 2.0  # how long, and how often, sending the results is retried

_REFUSALS = 2  # tries if the store answers, but rejects data

_LONGEST_PAUSE_S = 60.0  # between two updates while the store does not answer

_REASON = 1000  # characters of a failure reason

_FAILED_S = 15.0  # limit for closing the runs of a failed search

_INTERRUPTED_S = 3.0  # the same, if a signal ends the process


@dataclass(frozen=True)
class _Ending:
    """How a search ended.

    Attributes:
        limit_s: seconds for the last update.
        status: status of the study in MLflow; None if it has results.
        reason: why the search failed, else "".
        is_taken: whether another driver has taken over the study.
    """

    limit_s: float
    status: str | None = None
    reason: str = ""
    is_taken: bool = False


class Background:
    """Updates MLflow from a background thread while the `with` block runs.

    If the store fails, the search continues, updates become less frequent, and missing data is sent when the store
    answers again. At the end of the block the results are sent as well. After an error the study ends as FAILED, after
    an interrupt as KILLED, and its unfinished trials as KILLED; a resumed search opens them again.

    Args:
        folder: the study's folder.
        tracker: the MLflow store; None: nothing is sent.
        every_s: seconds between two updates, default 5.
        limit_s: seconds for sending the results, default 120.
        warn: called with a line if something failed; it names the command that sends the missing data.
        dataset: for the input example of the logged model; default: loaded where needed.

    Attributes:
        report: the study's results; set it when they exist. By default they are read from the study's folder.
    """

    def __init__(
        self, folder: StudyFolder, tracker: Tracker | None, *, every_s: float = 5.0, limit_s: float = 120.0,
        warn: Callable[[str], None] = notices.warn, dataset: Dataset | None = None,
    ) -> None:  # fmt: skip
        self._folder, self._tracker, self._dataset = folder, tracker, dataset
        self._every_s, self._warn = every_s, warn
        self._stop = threading.Event()
        self._ending = self._success = _Ending(limit_s)
        self.report: Report | None = None
        self._is_interrupted = False
        self._failure: str | None = None
        self._is_refused = False  # whether the store answered, but rejected data
        self._mlflow_study: study_to_mlflow.StudyToMlflow | None = None
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._registered = contextlib.ExitStack()

    def __enter__(self) -> "Background":
        if self._tracker is not None:
            self._registered.enter_context(exit_hooks.before_exit(self._interrupt))
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tracker is None:
            return
        if self._is_interrupted:  # a signal is ending the processes of the search, also this one
            time.sleep(2 * _INTERRUPTED_S)
        ending = self._ending = self._ending_of(error)
        self._stop.set()
        self._thread.join(ending.limit_s)
        self._registered.close()
        reason = f"no answer within {ending.limit_s:.0f} s" if self._thread.is_alive() else self._failure
        if reason is None or ending.is_taken:
            return
        lacks = "lacks a part of this study" if error is None else "lacks the end of this study"
        self._warn(
            f"MLflow at {self._tracker.shown} {lacks} ({reason}); nothing is lost: "
            f"{command(self._folder, self._tracker)} writes it"
        )

    def _ending_of(self, error: BaseException | None) -> _Ending:
        if error is None:
            return self._success
        if not isinstance(error, Exception):
            return _Ending(_INTERRUPTED_S, mlflow_store.KILLED)
        return _Ending(
            _FAILED_S, mlflow_store.FAILED, reason_of(error, length=_REASON), isinstance(error, StudyTakenOver)
        )

    def _interrupt(self) -> None:
        """Closes the MLflow runs. Called from another thread when a signal ends the process."""
        self._ending, self._is_interrupted = _Ending(_INTERRUPTED_S, mlflow_store.KILLED), True
        self._stop.set()
        self._thread.join(_INTERRUPTED_S / 2)
        mlflow_study = self._mlflow_study
        if self._thread.is_alive() and mlflow_study is not None:  # an upload blocks it
            mlflow_study.stop(mlflow_store.KILLED)

    def _work(self) -> None:
        for _ in self._waits():
            before = self._failure
            self._attempt(results=False)
            if self._failure is not None and before is None:
                problem = "MLflow does not take all of it" if self._is_refused else "MLflow cannot be written"
                self._warn(f"{problem} ({self._failure}); the search continues, missing data is sent later")
        if self._ending.is_taken:
            return
        if self._ending.status is None:
            self._deliver()
        if self._ending.status is not None or not self._folder.finished():
            self._close(self._ending)

    def _deliver(self) -> None:
        """Sends the results; retries for a while, because the server may be restarting."""
        until, refusals = time.monotonic() + _LAST_S, 0
        while True:
            self._attempt(results=True)
            refusals += self._is_refused
            if self._failure is None or refusals == _REFUSALS or time.monotonic() >= until or self._is_interrupted:
                return
            time.sleep(_BETWEEN_LAST_S)

    def _close(self, ending: _Ending) -> None:
        """Closes the MLflow runs of a search without results. Sends new data first, unless the process is ending."""
        is_hasty = ending.status == mlflow_store.KILLED
        if is_hasty and self._mlflow_study is None and self._failure is None:
            return  # MLflow has no runs of this study yet
        assert self._tracker is not None
        try:
            mlflow_study = self._mlflow_study or study_to_mlflow.StudyToMlflow(
                self._folder, self._tracker, dataset=self._dataset, driven=False, warn=self._warn
            )
            try:
                if not is_hasty:
                    sync.send(mlflow_study, None)
            finally:
                mlflow_study.stop(ending.status or mlflow_store.KILLED, ending.reason)
            self._failure = None
        except Exception as error:  # whatever the store or the network raises
            self._failure = reason_of(error)

    def _waits(self) -> Iterator[None]:
        """Yields after each pause until the search ends. Pauses double while the store fails."""
        pause = self._every_s
        while not self._stop.wait(pause):
            yield
            pause = self._every_s if self._failure is None else min(2 * pause, _LONGEST_PAUSE_S)

    def _attempt(self, *, results: bool) -> None:
        """Sends new data, with `results` also the results; keeps the reason of a failure."""
        assert self._tracker is not None
        try:
            if self._mlflow_study is None:
                self._mlflow_study = study_to_mlflow.StudyToMlflow(
                    self._folder, self._tracker, dataset=self._dataset, warn=self._warn
                )
            is_finished = results and self._folder.finished()
            sync.send(self._mlflow_study, (self.report or reports.read(self._folder)) if is_finished else None)
            self._failure, self._is_refused = None, False
        except Exception as error:  # whatever the store or the network raises: it must not reach the search
            self._mlflow_study = None
            self._failure, self._is_refused = reason_of(error), isinstance(error, sync.Incomplete)


def command(folder: StudyFolder, tracker: Tracker) -> str:
    """Returns the command that sends the missing data, with explicit paths: the reader's defaults may differ."""
    places = ["--runs-dir", str(folder.runs_folder), "--tracking-uri", tracker.shown]
    return f"m3col {shlex.join(['sync', folder.name, *places])}"
