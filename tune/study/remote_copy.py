"""The copy of a study's record in its storage (`storage.uri`), so that a driver on another machine can resume it.

Below <uri>/<study>/ are the files of the study's folder under the same names. The actors upload what they publish
(checkpoints, predictions, outcomes), the driver the rest: the database as a copy made with SQLite's backup API. What a
run needs is there before it starts and what it ended with before the next one starts: a driver that is lost takes
nothing along but intermediate values, which its successor hears again.
"""

import contextlib
import json
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from m3col.errors import InputError
from m3col.runtime import notices
from m3col.storage import atomic_files, object_store
from m3col.storage.retry import RetryPolicy
from tune.study import database
from tune.study.attempts import DESCRIPTION as ATTEMPT
from tune.study.attempts import Attempts, matches_config, remote_json, training_config_digest
from tune.study.driver_lock import FILE as LOCK
from tune.study.driver_lock import DriverLock
from tune.study.record import DESCRIPTION, SUMMARY, StudyFolder

T = TypeVar("T")


# Which driver wrote last: equal on both sides, the local record is at least as new. Only who holds the study writes it;
# what was fetched by somebody who only looked says nothing about what the driver does after that.
_SESSION = "session.json"

_OUTCOME = "outcome.json"

_STAGES = ("trials", "replicates", "confirm", "refits")

_SPLITS = "splits.csv"


class RemoteCopy:
    """Called by the coordinator with each step. This base class copies nothing: the study has no storage."""

    def begin(self) -> None:
        """The study's folder is ready for its first run."""

    def started(self, run: str) -> None:
        """A run is about to start. Returns once another driver could resume it."""

    def ended(self, run: str) -> None:
        """A run has its result."""

    def tidy(self, runs: Collection[str]) -> None:
        """No process writes checkpoints of these runs any more, which have their results."""

    def finished(self) -> None:
        """The study has its results."""

    def fetch_outcome(self, run: str) -> None:
        """Brings what a finished run left into the study's folder."""

    def release(self) -> None:
        """Lets another driver resume the study."""


class StorageCopy(RemoteCopy):
    """The record of `folder` at `uri`. `claim` it first; then all methods wait while the storage refuses, and raise
    StorageUnavailable when the patience is used up."""

    def __init__(
        self, folder: StudyFolder, uri: str, *, retry_policy: RetryPolicy, with_database: bool,
        warn: Callable[[str], None] = notices.warn, stale_s: float = 90.0,
    ) -> None:  # fmt: skip
        self.folder, self.remote, self._retry_policy = folder, object_store.Folder(uri), retry_policy
        self._with_database = with_database
        self._ownership = DriverLock(self.remote, stale_s=stale_s, warn=warn)

    def claim(self) -> None:
        """Makes this process the study's only driver, and brings the local record up to date.

        Raises InputError where another driver is alive or the storage does not answer.
        """
        with _answering(self.remote):
            try:
                self._ownership.claim()
                there = remote_json(self.remote, _SESSION).get("session")
                here = atomic_files.read_json(self.folder.path / _SESSION, {}).get("session")
                if there is not None and there != here:
                    fetch_record(self.remote, self.folder.path)
                session = {"session": uuid.uuid4().hex}
                if self.folder.path.exists():
                    # There first: where that is refused, both sides still agree, and what is newer here stays.
                    self.remote.write_text(_SESSION, json.dumps(session))
                    atomic_files.write_json(self.folder.path / _SESSION, session)
            except BaseException:
                self._ownership.release()
                raise

    def _call(self, function: Callable[[], T]) -> T:
        def owned() -> T:
            self._ownership.check()  # before each try: while this driver waited, another one may have gone on
            return function()

        return self._retry_policy.call(owned)

    def begin(self) -> None:
        path = self.folder.path
        if not self.folder.finished():  # as a study that is extended
            self._call(lambda: self.remote.remove(SUMMARY))
        self._put(DESCRIPTION, _SPLITS)
        there = {item.name: item.size for item in self._call(self.remote.files)}
        # Of a run that has its result, the driver died before it removed them.
        self._clear(there, lambda run: self.folder.run(run).outcome() is not None)
        for name in _record_of_runs(path):
            # A run's result comes last, and goes first when the run begins anew: where it is there, the rest is too.
            told = f"{name.rpartition('/')[0]}/result.json" in there
            if not told or there.get(name) != (path / name).stat().st_size:
                self._put(name)
        self._put_database()

    def _clear(self, there: Iterable[str], wanted: Callable[[str], bool]) -> None:
        """Forgets the training checkpoints among the files `there`, of the runs that are `wanted`."""
        for run in {name.partition("/attempt-")[0] for name in there if "/epoch-" in name}:
            if wanted(run):
                Attempts(str(self.folder.path), run, uri=self.remote.uri).clear_checkpoints()

    def tidy(self, runs: Collection[str]) -> None:
        if runs:
            self._clear([item.name for item in self._call(self.remote.files)], set(runs).__contains__)

    def started(self, run: str) -> None:
        if self.folder.run(run).outcome() is None:
            # Of an earlier run of this name, which was cleared or set aside: with it this one would look finished.
            self._call(lambda: self.remote.remove(f"{run}/result.json"))
        self._put(f"{run}/config.yaml", f"{run}/log.txt")
        self._put_database()

    def ended(self, run: str) -> None:
        self._put(f"{run}/history.jsonl", f"{run}/log.txt", f"{run}/result.json")
        self._put_database()
        if self.folder.run(run).outcome() is not None:
            Attempts(str(self.folder.path), run, uri=self.remote.uri).clear_checkpoints()

    def finished(self) -> None:
        from tune.study.record import PREDICTIONS_FILE  # it needs scikit-learn

        results = self.folder.results
        names = [str(path.relative_to(self.folder.path)) for path in sorted(results.rglob("*")) if path.is_file()]
        # The summary says that a study is finished, so it comes last.
        names.sort(key=lambda name: name == SUMMARY)
        self._put(DESCRIPTION, PREDICTIONS_FILE, *names)
        self._put_database()

    def fetch_outcome(self, run: str) -> None:
        self._call(lambda: self._fetch_outcome(run))

    def _fetch_outcome(self, run: str) -> None:
        remote, local = self.remote / run, self.folder.path / run
        names = [item.name for item in remote.files()]
        wanted = training_config_digest(self.folder.run(run).config())
        for attempt in (name.partition("/")[0] for name in names if name.endswith(f"/{_OUTCOME}")):
            if (local / attempt / _OUTCOME).exists():
                continue
            if not matches_config(remote_json(remote, f"{attempt}/{ATTEMPT}"), wanted):
                continue
            left = [name for name in names if name.startswith(f"{attempt}/") and _is_record(name)]
            remote.fetch_all(left, local, last=f"{attempt}/{_OUTCOME}")

    def release(self) -> None:
        self._ownership.release()

    def _put(self, *names: str) -> None:
        for name in names:
            path = self.folder.path / name
            if path.exists():
                self._call(lambda path=path, name=name: self.remote.put(path, name))  # type: ignore[misc]

    def _put_database(self) -> None:
        if not self._with_database or not (self.folder.path / database.FILE).exists():
            return

        def put() -> None:
            with tempfile.TemporaryDirectory(prefix="m3col-") as scratch:
                copy = Path(scratch) / database.FILE
                _backup(self.folder.path / database.FILE, copy)
                self.remote.put(copy, database.FILE)

        self._call(put)


def _backup(source: Path, target: Path) -> None:
    """A consistent copy of a database that is in use. Raises OSError."""
    try:
        with (
            contextlib.closing(sqlite3.connect(source, timeout=60)) as theirs,
            contextlib.closing(sqlite3.connect(target)) as ours,
        ):
            theirs.backup(ours)
    except sqlite3.Error as error:
        raise OSError(f"{source}: cannot be copied ({error})") from error


def fetch_record(remote: object_store.Folder, path: Path) -> None:
    """Replaces the local record of a study by that in the storage, without training checkpoints. Raises OSError.

    The description comes last, as it makes the folder a study; the session stays away, so that whoever claims the study
    fetches its newest record, also after a fetch that was cut short.
    """
    names = [item.name for item in remote.files() if _is_record(item.name) and item.name != _SESSION]
    (path / _SESSION).unlink(missing_ok=True)
    for name in (*_STAGES, "results"):
        shutil.rmtree(path / name, ignore_errors=True)
    for old in path.glob(f"{database.FILE}*"):
        old.unlink()
    remote.fetch_all(names, path, last=DESCRIPTION)


def fetch_missing(uri: str, path: Path) -> bool:
    """Fetches the record of a study that this machine does not have; whether there is one. Raises InputError where the
    storage does not answer, or another process of this machine has the study."""
    remote, folder = object_store.Folder(uri), StudyFolder(path)
    with _answering(remote):
        if remote.stat(DESCRIPTION) is None:
            return False
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError([f"{path}: cannot be written ({error.strerror})"]) from None
    folder.lock()
    try:
        with _answering(remote):
            if not (path / DESCRIPTION).exists():  # another process may have fetched it, and gone on with it
                fetch_record(remote, path)
    finally:
        folder.unlock()
    return True


def newest_unfinished(uri: str, config: str) -> str | None:
    """The name of the newest study of this config below `uri` that has no results yet. Raises InputError."""
    root = object_store.Folder(uri)
    found = []
    with _answering(root):
        for name in root.folders():
            described = remote_json(root / name, DESCRIPTION)
            if described.get("config", {}).get("name") == config and (root / name).stat(SUMMARY) is None:
                found.append((str(described.get("created")), name))
    return max(found)[1] if found else None


def is_taken(uri: str) -> bool:
    """Whether there is a study at `uri`. Raises InputError where the storage does not answer."""
    remote = object_store.Folder(uri)
    with _answering(remote):
        return remote.stat(DESCRIPTION) is not None


def connection_faults(uri: str) -> list[str]:
    """What keeps a storage from being used, as lines: a small file is written, read and removed."""
    try:
        object_store.Folder(uri).check()
    except OSError as error:
        return [f"storage.uri {uri}: cannot be used ({error}); {_HELP}"]
    return []


_HELP = (
    "look at the address (AWS_ENDPOINT_URL), the region (AWS_REGION), the keys (AWS_ACCESS_KEY_ID, "
    "AWS_SECRET_ACCESS_KEY) and the bucket"
)


@contextlib.contextmanager
def _answering(remote: object_store.Folder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError([f"storage.uri {remote}: cannot be used ({error}); {_HELP}"]) from None


def _is_record(name: str) -> bool:
    parts = name.split("/")
    return name != LOCK and not parts[-1].startswith(".") and not any(part.startswith("epoch-") for part in parts)


def _record_of_runs(path: Path) -> list[str]:
    """What the driver wrote of all runs; what actors published is in the storage already."""
    patterns = [f"{stage}/**/{name}" for stage in _STAGES for name in ("config.yaml", "history.jsonl", "result.json")]
    found = {str(file.relative_to(path)) for pattern in patterns for file in path.glob(pattern)}
    return sorted(name for name in found if "/attempt-" not in name)
