"""The studies below a runs folder: names, lookup, the newest one."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from m3col.errors import InputError, nearest
from tune.config.schema import StudyConfig
from tune.study.record import DESCRIPTION, InUse, StudyFolder
from tune.study.run_spec import LONGEST_STUDY

AUTO = "auto"  # `--resume auto`: begin or go on

_RESERVED = ("train", "mlartifacts", AUTO)  # what else lies in a runs folder, or means something else


def runs_folder(given: str | Path | None = None) -> Path:
    """Where studies live: the argument, $M3COL_RUNS or ./runs, as an absolute path."""
    return Path(given or os.environ.get("M3COL_RUNS") or "runs").absolute()


def new_name(
    runs: Path, wanted: str | None, config: StudyConfig, *, elsewhere: Callable[[str], bool] = lambda name: False
) -> str:
    """`wanted`, if it is a free folder name, else `<config>-<n>` with the next free n. Raises InputError.

    `elsewhere`: whether a name is taken in the storage, where studies of other machines are as well.
    """

    def is_taken(name: str) -> bool:
        return _is_taken(runs / name) or elsewhere(name)

    if wanted is not None:
        usable = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip(".-_") or f"{config.name}-1"
        if usable != wanted:
            raise InputError(
                [f"--name {wanted!r}: must be letters and digits, with . _ - between; nearest valid: {usable!r}"]
            )
        if len(wanted) > LONGEST_STUDY:
            raise InputError([f"--name: must have at most {LONGEST_STUDY} letters, but has {len(wanted)}: {wanted!r}"])
        if wanted in _RESERVED:
            raise InputError([f"--name {wanted}: this name is taken by a folder of its own; choose another one"])
        if is_taken(wanted):
            if (runs / wanted / DESCRIPTION).exists():
                folder = StudyFolder(runs / wanted)
                try:
                    folder.lock()  # says who drives it, if anybody does
                    folder.unlock()
                except InUse:
                    raise
                except InputError:  # of another user, say: it exists all the same
                    pass
            raise InputError(
                [f"--name {wanted}: a study of this name exists; go on with --resume {wanted}, or choose another name"]
            )
        return wanted
    number = 1
    while is_taken(f"{config.name}-{number}"):
        number += 1
    return f"{config.name}-{number}"


def _is_taken(path: Path) -> bool:
    """Whether a study cannot begin in this folder; one that holds nothing but a lock was left by a killed start, or
    belongs to one that is just beginning."""
    return path.exists() and not (path.is_dir() and {item.name for item in path.iterdir()} <= {"lock"})


def find(runs: Path, name: str) -> StudyFolder:
    """The study of that name or path. Raises InputError with the nearest name."""
    # Not Path.exists, which raises where a name is too long.
    path = Path(name) if os.path.exists(Path(name) / DESCRIPTION) else runs / name
    if os.path.exists(path / DESCRIPTION):
        return StudyFolder(path.absolute())
    known = [folder.parent.name for folder in runs.glob(f"*/{DESCRIPTION}")]
    raise InputError([f"study {name!r}: not found in {runs}{nearest(name, known) or '; it holds no study'}"])


def all_studies(runs: Path) -> Iterator[StudyFolder]:
    """The readable studies below a runs folder, oldest first."""
    paths = sorted(runs.glob(f"*/{DESCRIPTION}"), key=lambda path: path.stat().st_mtime)
    for path in paths:
        folder = StudyFolder(path.parent.absolute())
        try:
            folder.described()
        except InputError:
            continue
        yield folder


def newest(runs: Path, config: StudyConfig) -> StudyFolder | None:
    """The newest unfinished study of this config, else the newest finished one (to be extended)."""
    mine = [folder for folder in all_studies(runs) if folder.described()["config"]["name"] == config.name]
    return newest_unfinished(mine) or (mine[-1] if mine else None)


def newest_unfinished(studies: Sequence[StudyFolder]) -> StudyFolder | None:
    """The last one of `studies` without results."""
    return next((folder for folder in reversed(studies) if not folder.finished()), None)
