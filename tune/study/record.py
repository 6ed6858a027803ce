"""The record of a study on disk (PROTOCOL 7). Only the driver writes it, except for the attempt folders of runs."""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import optuna

from m3col.config import loading as run_config
from m3col.data.dataset import Dataset
from m3col.errors import InputError
from m3col.storage import atomic_files
from tune.config.loading import study_from_dict
from tune.config.schema import StorageConfig, StudyConfig
from tune.study import database, provenance
from tune.study.run_folder import AT_ONCE, RunFolder
from tune.study.run_name import RunName, stage_of

FORMAT = 2

DESCRIPTION = "study.json"

BASELINES_FILE = "results/baselines.json"  # what was chosen for each baseline, and which are left out and why

TREE = "tree.json"  # describes a tree of studies, one for each outer split

SUMMARY = "results/summary.md"  # written last: its existence marks a finished study

_CONTENT = ("config", "digests", "versions", "dataset")

_LOCKED = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)  # errors of flock for a lock that another process has


class InUse(InputError):
    """Another process drives this study."""


class StudyFolder:
    """The folder `runs/<name>/` of a study. Call `lock` before writing. Failed writes are retried by `retry_policy`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.retry_policy = AT_ONCE
        self._lock: IO[str] | None = None

    @property
    def tree(self) -> Path | None:
        """The folder of the tree that this study belongs to; None for a study of its own."""
        return self.path.parent if (self.path.parent / TREE).exists() else None

    @property
    def runs_folder(self) -> Path:
        """The folder of studies."""
        return self.path.parent if self.tree is None else self.path.parent.parent

    @property
    def name(self) -> str:
        """The name in the folder of studies: `digits-1`, and `digits-1/split_00` in a tree."""
        return self.path.name if self.tree is None else f"{self.path.parent.name}/{self.path.name}"

    @property
    def resume_name(self) -> str:
        """The name after `m3col search --resume`: in a tree that of the tree."""
        return self.path.name if self.tree is None else self.path.parent.name

    @classmethod
    def create(
        cls, runs: Path, name: str, config: StudyConfig, dataset: Dataset, *, partitions_digest: str, search_id: str,
        locked: bool = False,
    ) -> "StudyFolder":  # fmt: skip
        """Creates a study.

        Args:
            runs: folder of studies.
            name: name of the study.
            config: what it searches.
            dataset: its data, whose digests are stored.
            partitions_digest: digest of its folds.
            search_id: id of the search, which several studies can share.
            locked: whether this process keeps the study's lock. Default: no.

        Raises:
            InputError: another process has created the study in the meantime.
        """
        folder = cls(runs / name)
        description = {
            "format": FORMAT,
            "name": name,
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "config": config.to_dict(),
            "digests": {
                "config": run_config.digest(config.to_dict()),
                **dataset.digests(),
                "splits": partitions_digest,
            },
            "versions": provenance.versions(),
            "git": provenance.git_state(),
            "host": socket.gethostname(),
            "user": atomic_files.user(),
            "threads": config.run.resources.threads,
            "search_id": search_id,
            "dataset": provenance.describe_dataset(dataset),
        }
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.lock()
        try:
            if (folder.path / DESCRIPTION).exists():
                again = f"resume it with --resume {folder.resume_name}"
                raise InputError([f"{folder.path}: another process has just created it; {again}"])
            atomic_files.write_json(folder.path / DESCRIPTION, description)
        except BaseException:
            folder.unlock()
            raise
        if not locked:
            folder.unlock()
        return folder

    def described(self) -> dict[str, Any]:
        """Returns study.json, migrated to this version's format. Raises InputError if it is newer or unreadable."""
        path = self.path / DESCRIPTION
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
            version = description["format"]
        except OSError as error:
            raise InputError([f"{self.path}: not a study ({DESCRIPTION}: {error.strerror})"]) from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError([f"{path}: not readable, so this is no study of m3col"]) from None
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise InputError([f"{path}: damaged: 'format' must be a number from 1 to {FORMAT}, but is {version!r}"])
        if version > FORMAT:
            raise InputError(
                [f"{path}: study format {version} is newer than this version reads ({FORMAT}); update m3col"]
            )
        missing = [key for key in _CONTENT if not isinstance(description.get(key), dict)]
        if missing:
            raise InputError([f"{path}: damaged: {', '.join(missing)} missing or of the wrong type"])
        return _migrated(description)

    def config(self) -> StudyConfig:
        """Returns the study's config. Raises InputError as `described` does."""
        return study_from_dict(self.described()["config"])

    def reopen(self, config: StudyConfig) -> None:
        """Stores the config of a resumed search. Removes the summary, so that the study counts as unfinished."""
        described = self.described()
        described["config"] = config.to_dict()
        self.retry_policy.call(lambda: atomic_files.write_json(self.path / DESCRIPTION, described))
        (self.path / SUMMARY).unlink(missing_ok=True)

    def lock(self) -> None:
        """Locks the study for this process until it ends or calls `unlock`.

        Raises:
            InUse: another process has the lock.
            InputError: the file system has no locks.
        """
        if self._lock is not None:
            return
        try:
            stream = (self.path / "lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise InputError([f"{self.path / 'lock'}: cannot be written ({error.strerror})"]) from None
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = _lock_owner(stream) or "another process"
            stream.close()
            if error.errno not in _LOCKED:
                raise InputError(
                    [f"{self.path}: files cannot be locked here ({error.strerror}), so two searches could write to it "
                     "at once; use a runs folder on a file system with locks, such as a local disk or NFS 4"]
                ) from None  # fmt: skip
            raise InUse([f"{self.path}: in use by {owner}; wait for it to end, or stop it"]) from None
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        stream.flush()
        self._lock = stream

    def unlock(self) -> None:
        """Releases the lock, if this process has it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def storage(self) -> optuna.storages.RDBStorage:
        """Opens Optuna's storage. Raises InputError if that fails."""
        return database.open_storage(self.described()["config"].get("storage", {}).get("database"), self.path)

    def database_name(self) -> str:
        """The study's name in its database. In a shared database it contains the search id, so that it is unique."""
        described = self.described()
        name = str(described["name"])  # the folder may have been renamed since
        shared = described["config"].get("storage", {}).get("database") is not None
        return f"{name} {described['search_id']}" if shared else name

    def lost_database(self, knows: Callable[[int], bool]) -> list[str]:
        """Returns the fault of a database that has none of the trials that ended here, else an empty list.

        Resuming with such a database would start the search over.

        Args:
            knows: whether the database has the trial of a number.
        """
        names = [path.parent.name for path in self.path.glob("trials/*/result.json")]
        ended = sorted(int(name) for name in names if name.isdigit())
        if not ended or any(knows(number) for number in ended):
            return []
        storage = self.config().settings.storage
        location, uri = storage.database or str(self.path / database.FILE), storage.of(str(self.described()["name"]))
        advice = "put it back from a copy"
        if storage.database is not None:
            advice += f", in which this study is called {self.database_name()!r}"
        elif uri is not None:
            command = f"m3col search --resume {self.resume_name} storage.uri={storage.uri}"
            advice = f"move the folder away, and fetch the record from {uri} with {command}"
        return [
            f"{self.path}: {len(ended)} trials have ended here, but the database {location} knows none of them; "
            f"{advice}, or begin another study with --name"
        ]

    def run(self, name: str | RunName) -> RunFolder:
        """Returns the folder of a run, which need not exist."""
        return RunFolder(self.path / str(name), self.retry_policy)

    def runs(self) -> Iterator[tuple[str, RunFolder]]:
        """Yields name, such as "trials/3", and folder of all runs. Folders that are not of a run are skipped."""
        for pattern in ("trials/*", "replicates/*", "confirm/*", "refits/*/*"):
            for path in sorted(self.path.glob(f"{pattern}/config.yaml"), key=_by_number):
                name = str(path.parent.relative_to(self.path))
                if stage_of(name):
                    yield name, RunFolder(path.parent, self.retry_policy)

    @property
    def results(self) -> Path:
        return self.path / "results"

    def finished(self) -> bool:
        """Whether the study has its results."""
        return (self.path / SUMMARY).exists()


def _lock_owner(stream: IO[str]) -> str:
    """Returns what the process with the lock wrote about itself. Waits for one that has just acquired it."""
    for _ in range(10):
        stream.seek(0)
        if text := stream.read().strip():
            return text
        time.sleep(0.05)
    return ""


def _migrated(description: dict[str, Any]) -> dict[str, Any]:
    """Converts a study.json of an older format.

    Format 1 had one worker per trial, with its resources in resources.cpus_per_trial and gpus_per_trial, and no section
    `storage`.
    """
    if description["format"] == 1:
        old = description["config"].get("resources", {})
        renamed = {key.replace("_per_trial", "_per_worker"): value for key, value in old.items()}
        config = {**description["config"], "resources": {"workers_per_trial": 1, **renamed}}
        config["storage"] = StorageConfig().model_dump()
        return {**description, "format": FORMAT, "config": config}
    return description


def _by_number(path: Path) -> tuple[str, int, str]:
    name = path.parent.name
    return (str(path.parent.parent), int(name) if name.isdigit() else -1, name)


PREDICTIONS_FILE = "predictions.parquet"
