"""Measures the effect of a fault on a study, from its folder at the time of the fault and at the end.

A trial that ran at the fault and has a newer attempt at the end was cut off. The time between its last kept epoch and
the fault is lost work. At the end its history must have every epoch exactly once.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from m3col.errors import InputError
from m3col.storage import atomic_files
from m3col.training import checkpoint
from tune.study.attempts import DESCRIPTION
from tune.study.run_folder import RunFolder
from tune.study.run_messages import COMPLETE, RunOutcome

_LATE = 0.8  # fraction of epochs; a trial beyond it may end before the fault arrives


@dataclass(frozen=True)
class Running:
    """A trial that has begun and not ended.

    Attributes:
        epochs: configured number of epochs.
        attempts: names of the attempt folders.
        history: the epoch records that the driver has stored.
        checkpoint: epochs in the newest checkpoint; 0 where there is none.
        writing_s: time that writing it took, in seconds.
        began: start of the newest attempt, in Unix seconds.
        process: process id of the newest attempt.
        lines: number of lines in the log of the trial.
    """

    epochs: int
    attempts: frozenset[str]
    history: Sequence[Mapping[str, Any]]
    checkpoint: int
    writing_s: float
    began: float
    process: int
    lines: int

    def can_go_on(self) -> bool:
        """Whether the trial could resume from a checkpoint after a fault now, and is not about to end."""
        return self.checkpoint > 0 and max(self.checkpoint, len(self.history)) < _LATE * self.epochs


@dataclass(frozen=True)
class Before:
    """The state of a study at the fault. `ended`: result and attempts of the finished trials."""

    running: Mapping[str, Running]
    ended: Mapping[str, tuple[str, frozenset[str]]]


@dataclass
class Damage:
    """Effect of a fault on the running trials.

    Attributes:
        cut: trials that were cut off and continued in a new attempt.
        lost_work_s: the longest lost work of one trial, in seconds.
        recovery_s: the longest time until the next epoch of a trial, in seconds.
        faults: violated requirements, one line each.
    """

    cut: list[str] = field(default_factory=list)
    lost_work_s: float = 0.0
    recovery_s: float = 0.0
    faults: list[str] = field(default_factory=list)


def inspect_study(study: Path) -> Before:
    """Reads the current state of a study from its folder."""
    running, ended = {}, {}
    for path in _trials(study):
        if (path / "result.json").exists():
            ended[path.name] = _ending(path)
        else:
            running[path.name] = _running(path)
    return Before(running, ended)


def _trials(study: Path) -> list[Path]:
    return sorted((path.parent for path in study.glob("trials/*/config.yaml")), key=lambda path: int(path.name))


def _ending(path: Path) -> tuple[str, frozenset[str]]:
    return (path / "result.json").read_text(encoding="utf-8"), _attempts(path)


def _attempts(path: Path) -> frozenset[str]:
    return frozenset(folder.name for folder in path.glob("attempt-*"))


def _log(path: Path) -> list[str]:
    return (path / "log.txt").read_text(encoding="utf-8").splitlines() if (path / "log.txt").exists() else []


def _running(path: Path) -> Running:
    run, written, writing_s = RunFolder(path), 0, 0.0
    try:
        newest = checkpoint.newest_training(path)
        if newest is not None:
            last = checkpoint.describe(newest, "training")["history"][-1]
            written = int(last["epoch"])
            writing_s = newest.stat().st_ctime - last["time"]  # it was renamed after all of it was on disk
    except (InputError, OSError):  # removed just now, because a newer one exists
        return _running(path)
    described = sorted(path.glob(f"attempt-*/{DESCRIPTION}"), key=lambda file: file.stat().st_mtime)
    began = described[-1].stat().st_mtime if described else 0.0
    process = atomic_files.read_json(described[-1], {}).get("process", 0) if described else 0
    return Running(
        run.config()["train"]["epochs"], _attempts(path), run.history(), written, writing_s, began, process,
        len(_log(path)),
    )  # fmt: skip


def values(study: Path) -> dict[int, float]:
    """The value of each finished trial."""
    outcomes = {int(path.name): RunFolder(path).outcome() for path in _trials(study)}
    return {number: float(result.value or 0.0) for number, result in outcomes.items() if result and _complete(result)}


def _complete(result: RunOutcome) -> bool:
    return result.state == COMPLETE


def twice(study: Path, before: Before | None) -> int:
    """Counts trials that did the same work twice.

    These ended in two attempts, ran again after they had ended, or were set aside to be run again.
    """
    again = {path.name for path in _trials(study) if len(list(path.glob("attempt-*/outcome.json"))) > 1}
    for name, ending in before.ended.items() if before is not None else ():
        path = study / "trials" / name
        if not (path / "result.json").exists() or _ending(path) != ending:
            again.add(name)
    return len(again) + len(list(study.glob("aside/trials-*")))


def begun_anew(study: Path) -> list[str]:
    """The trials with more than one attempt."""
    return [path.name for path in _trials(study) if len(_attempts(path)) > 1]


def overlap(study: Path) -> int:
    """How many trials trained at the same time, at most."""
    spans = [
        (times[0], times[-1])
        for path in _trials(study)
        if (times := [record["time"] for record in RunFolder(path).history()])
    ]
    return max((sum(first <= start <= last for first, last in spans) for start, _ in spans), default=0)


def damage(study: Path, before: Before, *, struck: float, healed: float, every_s: float) -> Damage:
    """The effect of a fault between `struck` and `healed` (Unix seconds). `every_s`: interval of checkpoints."""
    effect = Damage()
    for path in _trials(study):
        history = RunFolder(path).history()
        if [record["epoch"] for record in history] != list(range(1, len(history) + 1)):
            effect.faults.append(f"trial {path.name}: its history does not have every epoch once")
        if path.name in before.running:
            _add(effect, path, before.running[path.name], history, struck=struck, healed=healed, every_s=every_s)
    return effect


def _add(
    effect: Damage, path: Path, state: Running, history: Sequence[Mapping[str, Any]], *, struck: float, healed: float,
    every_s: float,
) -> None:  # fmt: skip
    if _attempts(path) == state.attempts or not state.attempts:  # no process had started it yet
        later = [record["time"] for record in history if record["time"] > healed]
        effect.recovery_s = max(effect.recovery_s, later[0] - healed if later else 0.0)
        return
    effect.cut.append(path.name)
    resumed = re.findall(r"resumes from epoch (\d+)", "\n".join(_log(path)[state.lines :]))
    start = int(resumed[0]) if resumed else 0
    if start < state.checkpoint:
        effect.faults.append(f"trial {path.name}: began again at epoch {start}; a checkpoint had {state.checkpoint}")
    kept = [record["time"] for record in history if record["time"] <= struck]
    lost = struck - max(kept, default=state.began or struck)
    effect.lost_work_s = max(effect.lost_work_s, lost)
    if lost > (limit := _limit(state, every_s)):
        effect.faults.append(f"trial {path.name}: {lost:.1f} s of work lost, {limit:.1f} s are allowed")
    if len(history) > start:
        effect.recovery_s = max(effect.recovery_s, history[start]["time"] - healed)


def _limit(state: Running, every_s: float) -> float:
    """The greatest allowed age of the last checkpoint, in seconds (docs/protocol.md, section 7).

    The interval is such that writing takes at most a fixed share of the time. The next one comes at the end of an
    epoch, and writing it takes time too.
    """
    pauses = _steps([state.began, *(record["time"] for record in state.history if record["time"] > state.began)])
    return max(every_s, state.writing_s / checkpoint._WRITING_SHARE) + state.writing_s + max(pauses, default=0.0)


def _steps(times: Iterable[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times)]


def tables(study: Path) -> list[str]:
    """The lines of all tables in the results of a study; none where it has no results."""
    path = study / "results" / "summary.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [line for line in text.splitlines() if line.startswith("|")]
