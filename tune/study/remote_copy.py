"""The copy of a study's record in its storage (`storage.uri`), so that a driver on another machine can resume it.

<uri>/<study>/ has the files of the study's folder under the same names. Actors upload what they publish (checkpoints,
predictions, outcomes). The driver uploads everything else; the database as a copy made with SQLite's backup API. The
input of a run is uploaded before it starts, and its result before the next run starts. So only intermediate values can
be lost with a driver, and its successor receives these again.
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


# Id of the driver that wrote last. If it is equal locally and in the storage, the local record is at least as new. Only
# a driver with the lock writes it: a record that was fetched for reading may become outdated at any time.
_SESSION = "session.json"

_OUTCOME = "outcome.json"

_STAGES = ("trials", "replicates", "confirm", "refits")

_SPLITS = "splits.csv"


class RemoteCopy:
    """Called by the coordinator at each step. This base class does nothing: the study has no storage."""

    def begin(self) -> None:
        """Call it before the first run starts: uploads the record."""

    def started(self, run: str) -> None:
        """Call it before a run starts. Returns once another driver could resume the run."""

    def ended(self, run: str) -> None:
        """Call it when a run has its result."""

    def tidy(self, runs: Collection[str]) -> None:
        """Removes the checkpoints of ended runs, once no process writes any more."""

    def finished(self) -> None:
        """Call it when the study has its results."""

    def fetch_outcome(self, run: str) -> None:
        """Downloads what a finished run published into the study's folder."""

    def release(self) -> None:
        """Lets another driver resume the study."""


class StorageCopy(RemoteCopy):
    """The copy at `uri` of the record in `folder`.

    Call `claim` first. The other methods retry while the storage fails, and raise StorageUnavailable when
    `retry_policy` gives up.
    """

    def __init__(
        self, folder: StudyFolder, uri: str, *, retry_policy: RetryPolicy, with_database: bool,
        warn: Callable[[str], None] = notices.warn, stale_s: float = 90.0,
    ) -> None:  # fmt: skip
        self.folder, self.remote, self._retry_policy = folder, object_store.Folder(uri), retry_policy
        self._with_database = with_database
        self._lock = DriverLock(self.remote, stale_s=stale_s, warn=warn)

    def claim(self) -> None:
        """Makes this process the study's only driver, and updates the local record.

        Raises:
            InputError: another driver is alive, or the storage does not answer.
        """
        with _answering(self.remote):
            try:
                self._lock.claim()
                remote_session = remote_json(self.remote, _SESSION).get("session")
                local_session = atomic_files.read_json(self.folder.path / _SESSION, {}).get("session")
                if remote_session is not None and remote_session != local_session:
                    fetch_record(self.remote, self.folder.path)
                session = {"session": uuid.uuid4().hex}
                if self.folder.path.exists():
                    # Remote first: if that fails, both still agree, and a newer local record is not overwritten.
                    self.remote.write_text(_SESSION, json.dumps(session))
                    atomic_files.write_json(self.folder.path / _SESSION, session)
            except BaseException:
                self._lock.release()
                raise

    def _call(self, function: Callable[[], T]) -> T:
        def owned() -> T:
            self._lock.check()  # before each try: another driver may have taken over in the meantime
            return function()

        return self._retry_policy.call(owned)

    def begin(self) -> None:
        path = self.folder.path
        if not self.folder.finished():  # a finished study that is extended has a summary in the storage
            self._call(lambda: self.remote.remove(SUMMARY))
        self._put(DESCRIPTION, _SPLITS)
        sizes = {item.name: item.size for item in self._call(self.remote.files)}
        # Runs with a result may have checkpoints left if the driver died before it removed them.
        self._clear(sizes, lambda run: self.folder.run(run).outcome() is not None)
        for name in _record_of_runs(path):
            # A run's result is uploaded last and removed first, so with it the other files are complete.
            is_complete = f"{name.rpartition('/')[0]}/result.json" in sizes
            if not is_complete or sizes.get(name) != (path / name).stat().st_size:
                self._put(name)
        self._put_database()

    def _clear(self, names: Iterable[str], is_ended: Callable[[str], bool]) -> None:
        """Removes the training checkpoints of ended runs among the remote files `names`."""
        for run in {name.partition("/attempt-")[0] for name in names if "/epoch-" in name}:
            if is_ended(run):
                Attempts(str(self.folder.path), run, uri=self.remote.uri).clear_checkpoints()

    def tidy(self, runs: Collection[str]) -> None:
        if runs:
            self._clear([item.name for item in self._call(self.remote.files)], set(runs).__contains__)

    def started(self, run: str) -> None:
        if self.folder.run(run).outcome() is None:
            # A result of an earlier run with this name would make this one look finished.
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
        # The summary marks a finished study, so it is uploaded last.
        names.sort(key=lambda name: name == SUMMARY)
        self._put(DESCRIPTION, PREDICTIONS_FILE, *names)
        self._put_database()

    def fetch_outcome(self, run: str) -> None:
        self._call(lambda: self._fetch_outcome(run))

    def _fetch_outcome(self, run: str) -> None:
        remote, local = self.remote / run, self.folder.path / run
        names = [item.name for item in remote.files()]
        digest = training_config_digest(self.folder.run(run).config())
        for attempt in (name.partition("/")[0] for name in names if name.endswith(f"/{_OUTCOME}")):
            if (local / attempt / _OUTCOME).exists():
                continue
            if not matches_config(remote_json(remote, f"{attempt}/{ATTEMPT}"), digest):
                continue
            record = [name for name in names if name.startswith(f"{attempt}/") and _is_record(name)]
            remote.fetch_all(record, local, last=f"{attempt}/{_OUTCOME}")

    def release(self) -> None:
        self._lock.release()

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
    """Copies a database that is in use, consistently. Raises OSError."""
    try:
        with (
            contextlib.closing(sqlite3.connect(source, timeout=60)) as original,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            original.backup(copy)
    except sqlite3.Error as error:
        raise OSError(f"{source}: cannot be copied ({error})") from error


def fetch_record(remote: object_store.Folder, path: Path) -> None:
    """Replaces the local record of a study with that in the storage, without training checkpoints. Raises OSError.

    study.json is fetched last, because it makes the folder a study. session.json is not fetched, so that the next
    driver fetches the record again; it may be newer by then, or this fetch may be interrupted.
    """
    names = [item.name for item in remote.files() if _is_record(item.name) and item.name != _SESSION]
    (path / _SESSION).unlink(missing_ok=True)
    for name in (*_STAGES, "results"):
        shutil.rmtree(path / name, ignore_errors=True)
    for file in path.glob(f"{database.FILE}*"):
        file.unlink()
    remote.fetch_all(names, path, last=DESCRIPTION)


def fetch_missing(uri: str, path: Path) -> bool:
    """Fetches the record of a study that this machine does not have. Returns whether the storage has it.

    Raises:
        InputError: the storage does not answer, or another process on this machine has the study.
    """
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
            if not (path / DESCRIPTION).exists():  # another process may have fetched and resumed it
                fetch_record(remote, path)
    finally:
        folder.unlock()
    return True


def newest_unfinished(uri: str, config: str) -> str | None:
    """Returns the name of the newest study of this config below `uri` without results. Raises InputError."""
    root = object_store.Folder(uri)
    candidates = []
    with _answering(root):
        for name in root.folders():
            described = remote_json(root / name, DESCRIPTION)
            if described.get("config", {}).get("name") == config and (root / name).stat(SUMMARY) is None:
                candidates.append((str(described.get("created")), name))
    return max(candidates)[1] if candidates else None


def is_taken(uri: str) -> bool:
    """Whether there is a study at `uri`. Raises InputError if the storage does not answer."""
    remote = object_store.Folder(uri)
    with _answering(remote):
        return remote.stat(DESCRIPTION) is not None


def connection_faults(uri: str) -> list[str]:
    """Returns why a storage cannot be used, as lines: it writes, reads and removes a small file."""
    try:
        object_store.Folder(uri).check()
    except OSError as error:
        return [f"storage.uri {uri}: cannot be used ({error}); {_HELP}"]
    return []


_HELP = (
    "check the address (AWS_ENDPOINT_URL), the region (AWS_REGION), the keys (AWS_ACCESS_KEY_ID, "
    "AWS_SECRET_ACCESS_KEY) and the bucket"
)


@contextlib.contextmanager
def _answering(remote: object_store.Folder) -> Iterator[None]:
    """Context manager: raises InputError in place of an OSError."""
    try:
        yield
    except OSError as error:
        raise InputError([f"storage.uri {remote}: cannot be used ({error}); {_HELP}"]) from None


def _is_record(name: str) -> bool:
    """Whether a file belongs to the record: no lock, temporary file or training checkpoint."""
    parts = name.split("/")
    return name != LOCK and not parts[-1].startswith(".") and not any(part.startswith("epoch-") for part in parts)


def _record_of_runs(path: Path) -> list[str]:
    """Returns the files of all runs that the driver writes. Actors upload the others."""
    patterns = [f"{stage}/**/{name}" for stage in _STAGES for name in ("config.yaml", "history.jsonl", "result.json")]
    names = {str(file.relative_to(path)) for pattern in patterns for file in path.glob(pattern)}
    return sorted(name for name in names if "/attempt-" not in name)
