"""The record of a study on disk (PROTOCOL 7). The driver alone writes here, but for the attempt folders of its runs."""

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

SUMMARY = "results/summary.md"  # written last: a study that has it is finished

_CONTENT = ("config", "digests", "versions", "dataset")

_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)  # what flock says of a lock that somebody has


class InUse(InputError):
    """Another process drives this study."""


class StudyFolder:
    """`runs/<name>/`. `lock` it before anything is written. `patience`: with writes that fail."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.retry_policy = AT_ONCE
        self._lock: IO[str] | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @classmethod
    def create(
        cls, runs: Path, name: str, config: StudyConfig, dataset: Dataset, *, partitions_digest: str, search_id: str,
        locked: bool = False,
    ) -> "StudyFolder":  # fmt: skip
        """A new study, which this process holds from then on where it is to be `locked`. Raises InputError where
        another process was faster."""
        folder = cls(runs / name)
        described = {
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
                raise InputError([f"{folder.path}: was begun by another process just now; go on with --resume {name}"])
            atomic_files.write_json(folder.path / DESCRIPTION, described)
        except BaseException:
            folder.unlock()
            raise
        if not locked:
            folder.unlock()
        return folder

    def described(self) -> dict[str, Any]:
        """study.json, migrated to this version's format. Raises InputError for a newer or unreadable one."""
        path = self.path / DESCRIPTION
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            version = found["format"]
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
        lacks = [key for key in _CONTENT if not isinstance(found.get(key), dict)]
        if lacks:
            raise InputError([f"{path}: damaged: {', '.join(lacks)} missing or of the wrong type"])
        return _migrated(found)

    def config(self) -> StudyConfig:
        return study_from_dict(self.described()["config"])

    def reopen(self, config: StudyConfig) -> None:
        """Takes over what a resumed search may change; the report and the results are then to be made anew."""
        described = self.described()
        described["config"] = config.to_dict()
        self.retry_policy.call(lambda: atomic_files.write_json(self.path / DESCRIPTION, described))
        (self.path / SUMMARY).unlink(missing_ok=True)

    def lock(self) -> None:
        """Holds the study for this process until it ends or unlocks it. Raises InputError where another one holds
        it, or where files cannot be locked."""
        if self._lock is not None:
            return
        try:
            stream = (self.path / "lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise InputError([f"{self.path / 'lock'}: cannot be written ({error.strerror})"]) from None
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _written(stream) or "another process"
            stream.close()
            if error.errno not in _HELD:
                raise InputError(
                    [f"{self.path}: files cannot be locked here ({error.strerror}), so two searches could write to it "
                     "at once; use a runs folder on a file system with locks, such as a local disk or NFS 4"]
                ) from None  # fmt: skip
            raise InUse([f"{self.path}: in use by {holder}; wait for it to end, or stop it"]) from None
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        stream.flush()
        self._lock = stream

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def storage(self) -> optuna.storages.RDBStorage:
        """Raises InputError where the database of the study cannot be opened."""
        return database.open_storage(self.described()["config"].get("storage", {}).get("database"), self.path)

    def database_name(self) -> str:
        """What Optuna calls this study. A database can hold studies of many runs folders, whose names may be equal."""
        described = self.described()
        name = str(described["name"])  # the folder may have been renamed since
        shared = described["config"].get("storage", {}).get("database") is not None
        return f"{name} {described['search_id']}" if shared else name

    def lost_database(self, knows: Callable[[int], bool]) -> list[str]:
        """The fault of a database that knows none of the trials that have ended here: a search would begin again."""
        names = [path.parent.name for path in self.path.glob("trials/*/result.json")]
        ended = sorted(int(name) for name in names if name.isdigit())
        if not ended or any(knows(number) for number in ended):
            return []
        storage = self.config().settings.storage
        place, uri = storage.database or str(self.path / database.FILE), storage.of(str(self.described()["name"]))
        way_out = "put it back from a copy"
        if storage.database is not None:
            way_out += f", in which this study is called {self.database_name()!r}"
        elif uri is not None:
            again = f"m3col search --resume {self.described()['name']} storage.uri={storage.uri}"
            way_out = f"move the folder away, and fetch the record from {uri} with {again}"
        return [
            f"{self.path}: {len(ended)} trials have ended here, but the database {place} knows none of them; "
            f"{way_out}, or begin another study with --name"
        ]

    def run(self, name: str | RunName) -> RunFolder:
        """The folder of a run, which need not exist."""
        return RunFolder(self.path / str(name), self.retry_policy)

    def runs(self) -> Iterator[tuple[str, RunFolder]]:
        """All runs that have a folder, by name such as "trials/3". Folders of other names are passed over."""
        for pattern in ("trials/*", "replicates/*", "confirm/*", "refits/*/*"):
            for path in sorted(self.path.glob(f"{pattern}/config.yaml"), key=_by_number):
                name = str(path.parent.relative_to(self.path))
                if stage_of(name):
                    yield name, RunFolder(path.parent, self.retry_policy)

    @property
    def results(self) -> Path:
        return self.path / "results"

    def finished(self) -> bool:
        return (self.path / SUMMARY).exists()


def _written(stream: IO[str]) -> str:
    """What the holder of a lock wrote about itself; one that has just taken it may still be about to."""
    for _ in range(10):
        stream.seek(0)
        if text := stream.read().strip():
            return text
        time.sleep(0.05)
    return ""


def _migrated(found: dict[str, Any]) -> dict[str, Any]:
    """A description of an older format in the words of this one.

    1: a trial had one worker, its share of a machine stood in resources.cpus_per_trial and gpus_per_trial, and the
    study's folder was the only storage.
    """
    if found["format"] == 1:
        old = found["config"].get("resources", {})
        renamed = {key.replace("_per_trial", "_per_worker"): value for key, value in old.items()}
        config = {**found["config"], "resources": {"workers_per_trial": 1, **renamed}}
        config["storage"] = StorageConfig().model_dump()
        return {**found, "format": FORMAT, "config": config}
    return found


def _by_number(path: Path) -> tuple[str, int, str]:
    name = path.parent.name
    return (str(path.parent.parent), int(name) if name.isdigit() else -1, name)


PREDICTIONS_FILE = "predictions.parquet"
