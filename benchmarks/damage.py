"""What a fault did to a study, told from its folder: as it was when the fault came, and as it is at the end.

A trial that ran then and has a newer attempt at the end was cut off. What it had computed after its last checkpoint is
lost work; every epoch that the fault did not destroy must stand in its history as it stood there before.
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

_LATE = 0.8  # of its epochs: a trial beyond may end before the fault arrives


@dataclass(frozen=True)
class Running:
    """A trial that has begun and not ended. `epochs`: in all; `history`: what the driver knows; `checkpoint`: epochs of
    the newest one, 0 where there is none; `writing_s`: what that one took; `began`, `process`: of the newest attempt;
    `lines`: of its log."""

    epochs: int
    attempts: frozenset[str]
    history: Sequence[Mapping[str, Any]]
    checkpoint: int
    writing_s: float
    began: float
    process: int
    lines: int

    def can_go_on(self) -> bool:
        """Whether a fault now finds something to go on from, and something that is still to do."""
        return self.checkpoint > 0 and max(self.checkpoint, len(self.history)) < _LATE * self.epochs


@dataclass(frozen=True)
class Before:
    """A study at the fault. `ended`: result and attempts of the trials that had ended."""

    running: Mapping[str, Running]
    ended: Mapping[str, tuple[str, frozenset[str]]]


@dataclass
class Damage:
    """`cut`: trials that went on in a new attempt; `lost_work_s`, `recovery_s`: the longest; `faults`: what must not
    be, one line each."""

    cut: list[str] = field(default_factory=list)
    lost_work_s: float = 0.0
    recovery_s: float = 0.0
    faults: list[str] = field(default_factory=list)


def look(study: Path) -> Before:
    """The study now."""
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
    return frozenset(found.name for found in path.glob("attempt-*"))


def _log(path: Path) -> list[str]:
    return (path / "log.txt").read_text(encoding="utf-8").splitlines() if (path / "log.txt").exists() else []


def _running(path: Path) -> Running:
    run, written, writing_s = RunFolder(path), 0, 0.0
    try:
        newest = checkpoint.newest_training(path)
        if newest is not None:
            last = checkpoint.describe(newest, "training")["history"][-1]
            written = int(last["epoch"])
            writing_s = newest.stat().st_ctime - last["time"]  # it got its name when all of it was on the disk
    except (InputError, OSError):  # removed in this moment, because there is a newer one
        return _running(path)
    described = sorted(path.glob(f"attempt-*/{DESCRIPTION}"), key=lambda found: found.stat().st_mtime)
    began = described[-1].stat().st_mtime if described else 0.0
    process = atomic_files.read_json(described[-1], {}).get("process", 0) if described else 0
    return Running(
        run.config()["train"]["epochs"], _attempts(path), run.history(), written, writing_s, began, process,
        len(_log(path)),
    )  # fmt: skip


def values(study: Path) -> dict[int, float]:
    """The value of each finished trial."""
    found = {int(path.name): RunFolder(path).outcome() for path in _trials(study)}
    return {number: float(result.value or 0.0) for number, result in found.items() if result and _complete(result)}


def _complete(result: RunOutcome) -> bool:
    return result.state == COMPLETE


def twice(study: Path, before: Before | None) -> int:
    """Trials that trained their last epoch in two attempts, that ran again although they had ended, or that were set
    aside to be run anew."""
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
    """What the fault between `struck` and `healed` did to the trials that ran. `every_s`: between two checkpoints."""
    found = Damage()
    for path in _trials(study):
        history = RunFolder(path).history()
        if [record["epoch"] for record in history] != list(range(1, len(history) + 1)):
            found.faults.append(f"trial {path.name}: its history does not have every epoch once")
        if path.name in before.running:
            _add(found, path, before.running[path.name], history, struck=struck, healed=healed, every_s=every_s)
    return found


def _add(
    found: Damage, path: Path, was: Running, history: Sequence[Mapping[str, Any]], *, struck: float, healed: float,
    every_s: float,
) -> None:  # fmt: skip
    if _attempts(path) == was.attempts or not was.attempts:  # no process had begun it yet
        later = [record["time"] for record in history if record["time"] > healed]
        found.recovery_s = max(found.recovery_s, later[0] - healed if later else 0.0)
        return
    found.cut.append(path.name)
    told = re.findall(r"resumes from epoch (\d+)", "\n".join(_log(path)[was.lines :]))
    start = int(told[0]) if told else 0
    if start < was.checkpoint:
        found.faults.append(f"trial {path.name}: began again at epoch {start}; a checkpoint had {was.checkpoint}")
    kept = [record["time"] for record in history if record["time"] <= struck]
    lost = struck - max(kept, default=was.began or struck)
    found.lost_work_s = max(found.lost_work_s, lost)
    if lost > (limit := _limit(was, every_s)):
        found.faults.append(f"trial {path.name}: {lost:.1f} s of work lost, {limit:.1f} s are allowed")
    if len(history) > start:
        found.recovery_s = max(found.recovery_s, history[start]["time"] - healed)


def _limit(was: Running, every_s: float) -> float:
    """The longest that a last checkpoint may be ago (PROTOCOL 7): they are so far apart that writing takes a twentieth
    of the time, and the next one comes at the end of an epoch and takes its time to be written."""
    pauses = _steps([was.began, *(record["time"] for record in was.history if record["time"] > was.began)])
    return max(every_s, was.writing_s / checkpoint._WRITING_SHARE) + was.writing_s + max(pauses, default=0.0)


def _steps(times: Iterable[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times)]


def tables(study: Path) -> list[str]:
    """The lines of all tables of a study's results; none where there are no results."""
    path = study / "results" / "summary.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [line for line in text.splitlines() if line.startswith("|")]
