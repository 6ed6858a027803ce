"""The studies in a runs folder: new names, lookup by name, the newest study."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from m3col.errors import InputError, nearest
from tune.config.schema import StudyConfig
from tune.study.record import DESCRIPTION, InUse, StudyFolder
from tune.study.run_spec import LONGEST_STUDY

AUTO = "auto"  # `--resume auto`: resume the study, or begin it

_RESERVED = ("train", "mlartifacts", AUTO)  # other folders in a runs folder, and a value of --resume


def runs_folder(path: str | Path | None = None) -> Path:
    """Returns the folder of studies, as an absolute path: the argument, else $M3COL_RUNS, else ./runs."""
    return Path(path or os.environ.get("M3COL_RUNS") or "runs").absolute()


def new_name(
    runs: Path, name: str | None, config: StudyConfig, *, elsewhere: Callable[[str], bool] = lambda name: False
) -> str:
    """Returns a free name for a study: `name`, if it is one, without a name `<config>-<n>` with the next free n.

    Args:
        runs: folder of studies.
        name: the name that the user chose, or None.
        config: config of the study.
        elsewhere: whether a name is taken in the storage, which also has studies of other machines.

    Raises:
        InputError: `name` is invalid or taken.
    """

    def is_taken(candidate: str) -> bool:
        return _is_taken(runs / candidate) or elsewhere(candidate)

    if name is not None:
        usable = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-_") or f"{config.name}-1"
        if usable != name:
            raise InputError(
                [f"--name {name!r}: must be letters and digits, with . _ - between; nearest valid: {usable!r}"]
            )
        if len(name) > LONGEST_STUDY:
            raise InputError([f"--name: must have at most {LONGEST_STUDY} letters, but has {len(name)}: {name!r}"])
        if name in _RESERVED:
            raise InputError([f"--name {name}: this name is reserved; choose another one"])
        if is_taken(name):
            if (runs / name / DESCRIPTION).exists():
                folder = StudyFolder(runs / name)
                try:
                    folder.lock()  # raises InUse, with the owner, if the study is in use
                    folder.unlock()
                except InUse:
                    raise
                except InputError:  # e.g. the folder of another user: report that the name is taken
                    pass
            raise InputError(
                [f"--name {name}: a study of this name exists; resume it with --resume {name}, or choose another name"]
            )
        return name
    number = 1
    while is_taken(f"{config.name}-{number}"):
        number += 1
    return f"{config.name}-{number}"


def _is_taken(path: Path) -> bool:
    """Whether a study cannot be created in this folder.

    A folder with only a lock file is free: a process was killed before it created its study, or is creating it now, and
    then locking will fail.
    """
    return path.exists() and not (path.is_dir() and {item.name for item in path.iterdir()} <= {"lock"})


def find(runs: Path, name: str) -> StudyFolder:
    """Returns the study of that name or path. Raises InputError, which names the most similar study."""
    # os.path.exists, because Path.exists raises if the name is too long.
    path = Path(name) if os.path.exists(Path(name) / DESCRIPTION) else runs / name
    if os.path.exists(path / DESCRIPTION):
        return StudyFolder(path.absolute())
    names = [folder.parent.name for folder in runs.glob(f"*/{DESCRIPTION}")]
    raise InputError([f"study {name!r}: not found in {runs}{nearest(name, names) or '; it holds no study'}"])


def all_studies(runs: Path) -> Iterator[StudyFolder]:
    """Yields the readable studies in a runs folder, oldest first."""
    paths = sorted(runs.glob(f"*/{DESCRIPTION}"), key=lambda path: path.stat().st_mtime)
    for path in paths:
        folder = StudyFolder(path.parent.absolute())
        try:
            folder.described()
        except InputError:
            continue
        yield folder


def newest(runs: Path, config: StudyConfig) -> StudyFolder | None:
    """Returns the newest unfinished study of this config, else the newest finished one, which can be extended."""
    studies = [folder for folder in all_studies(runs) if folder.described()["config"]["name"] == config.name]
    return newest_unfinished(studies) or (studies[-1] if studies else None)


def newest_unfinished(studies: Sequence[StudyFolder]) -> StudyFolder | None:
    """Returns the last one of `studies` that has no results."""
    return next((folder for folder in reversed(studies) if not folder.finished()), None)
