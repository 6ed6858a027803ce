"""Messages about one run between executors, the coordinator, the study's folder, the results and MLflow.

On disk and between processes each message is a plain mapping (JSON, Ray); in the code it is one of these classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"

EpochRecord = Mapping[str, Any]  # one line of history.jsonl: epoch, time, value, metrics


@dataclass(frozen=True)
class RunReport:
    """What an executor sends to the coordinator after each step.

    Args:
        run: the run's name.
        epoch: number of epochs trained so far.
        records: the epochs since the last report, oldest first.
        restart: whether `records` replace what the study has of this run, as after a resume.
        log: lines for the run's log.
        failure: why the run failed; None if it did not.
        refused: why the storage refused a write for too long; then the whole search stops. Else None.
        done: whether this is the last report of the run.
    """

    run: str
    epoch: int = 0
    records: Sequence[EpochRecord] = ()
    restart: bool = False
    log: Sequence[str] = ()
    failure: str | None = None
    refused: str | None = None
    done: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as Ray Tune and Ray Train take them. Tune reads the key `done` itself."""
        return {**_plain(self), "records": [dict(record) for record in self.records], "log": list(self.log)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunReport":
        """Reads a report. Further keys, which Tune adds, are ignored."""
        return cls(**_known_fields(cls, values))


@dataclass(frozen=True)
class FinishedAttempt:
    """What an attempt writes to outcome.json after its last epoch.

    Args:
        value: the search metric, smoothed over the last epochs; None for a run without validation samples.
        loss: the validation loss, smoothed in the same way; None if there is none.
        metrics: the metrics of the last epoch.
        epochs: number of epochs trained.
        seconds: time since the attempt began.
        attempt: name of the attempt's folder.
        history: the records of all epochs.
    """

    value: float | None
    loss: float | None
    metrics: Mapping[str, float]
    epochs: int
    seconds: float
    attempt: str
    history: Sequence[EpochRecord]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for outcome.json."""
        return {**_plain(self), "metrics": dict(self.metrics), "history": [dict(record) for record in self.history]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FinishedAttempt":
        """Reads outcome.json."""
        return cls(**_known_fields(cls, values))


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended: what result.json holds.

    Args:
        state: `COMPLETE`, `PRUNED` or `FAILED`.
        value: the search metric; for a run that was cut off, that of its last epoch; None if there is none.
        loss: the validation loss, in the same way.
        metrics: the metrics of the last epoch.
        epochs: number of epochs trained.
        seconds: time spent on training.
        attempt: folder of the attempt that finished the run; None for a run that was cut off.
        failure: why the run failed; None if it did not.
        started: when the run started, in Unix seconds.
        ended: when the run ended, in Unix seconds.
    """

    state: str
    value: float | None = None
    loss: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    epochs: int = 0
    seconds: float = 0.0
    attempt: str | None = None
    failure: str | None = None
    started: float = 0.0
    ended: float = 0.0

    @property
    def is_complete(self) -> bool:
        return self.state == COMPLETE

    @classmethod
    def of_finished(cls, attempt: FinishedAttempt, *, started: float, ended: float) -> "RunOutcome":
        """The outcome of a run that trained its last epoch."""
        return cls(
            state=COMPLETE, value=attempt.value, loss=attempt.loss, metrics=attempt.metrics, epochs=attempt.epochs,
            seconds=attempt.seconds, attempt=attempt.attempt, started=started, ended=ended,
        )  # fmt: skip

    @classmethod
    def of_cut_off(
        cls, state: str, history: Sequence[EpochRecord], *, started: float | None, ended: float, failure: str | None
    ) -> "RunOutcome":
        """The outcome of a run that was pruned or failed, from its history.

        Args:
            state: `PRUNED` or `FAILED`.
            history: the records of its epochs; may be empty.
            started: Unix seconds; None: unknown, as after a crash, and then the time of the last epoch counts.
            ended: Unix seconds.
            failure: why the run failed; None for a pruned run.
        """
        last = history[-1] if history else {"epoch": 0, "value": None, "metrics": {}, "time": ended}
        begun = last["time"] if started is None else started
        return cls(
            state=state, value=last["value"], loss=last["metrics"].get("val/loss"), metrics=last["metrics"],
            epochs=last["epoch"], seconds=last["time"] - begun, failure=failure, started=begun, ended=ended,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain values for result.json; `attempt` is left out if it is None."""
        values = {**_plain(self), "metrics": dict(self.metrics)}
        return values if self.attempt is not None else {key: value for key, value in values.items() if key != "attempt"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunOutcome":
        """Reads result.json, also one of an older version with fewer or more keys."""
        return cls(**_known_fields(cls, values))


def _plain(message: Any) -> dict[str, Any]:
    """Returns the fields of a message by name."""
    return {each.name: getattr(message, each.name) for each in fields(message)}


def _known_fields(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of those keys that are fields of `kind`."""
    names = {each.name for each in fields(kind)}
    return {str(key): value for key, value in values.items() if key in names}
