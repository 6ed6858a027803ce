"""Which study a resume goes on with, here or in its storage, and holding a study against other drivers."""

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from m3col.data.dataset import Dataset
from m3col.errors import InputError, reason_of
from m3col.storage.retry import RetryPolicy
from tune.config.loading import study_from_dict
from tune.config.schema import StorageConfig, StudyConfig
from tune.study import compatibility, database, directory, provenance, remote_copy
from tune.study import record as studies
from tune.study.directory import AUTO
from tune.study.record import StudyFolder
from tune.study.remote_copy import RemoteCopy, StorageCopy


def find(runs: Path, name: str, storage: StorageConfig) -> StudyFolder:
    """The study of that name; one that only the storage has is fetched. Raises InputError."""
    try:
        return directory.find(runs, name)
    except InputError as error:
        found = _fetched(runs, name, storage)
        if found is not None:
            return found
        elsewhere = f" and not below {storage.uri}" if storage.uri else ""
        raise InputError([f"{line}{elsewhere}" for line in error.faults]) from None


def _fetched(runs: Path, name: str, storage: StorageConfig) -> StudyFolder | None:
    uri = storage.of(name)
    usable = uri is not None and name not in ("", ".", "..") and "/" not in name
    if uri is None or not usable or not remote_copy.fetch_missing(uri, runs / name):
        return None
    return StudyFolder((runs / name).absolute())


def _newest(runs: Path, study: StudyConfig) -> StudyFolder | None:
    """The newest unfinished study of this config, here or else in the storage."""
    here = [found for found in directory.all_studies(runs) if found.described()["config"]["name"] == study.name]
    folder = directory.newest_unfinished(here)
    storage = study.settings.storage
    if folder is None and storage.uri is not None:
        name = remote_copy.newest_unfinished(storage.uri, study.name)
        folder = None if name is None else _fetched(runs, name, storage)
    return folder


def folder_for(runs: Path, study: StudyConfig, resume: bool | str, name: str | None) -> StudyFolder | None:
    """The folder to go on in, None where there is none. Raises InputError for a name that is not there."""
    if resume == AUTO:
        if name is None:
            return _newest(runs, study)
        if (runs / name / studies.DESCRIPTION).exists():
            return directory.find(runs, name)
        return _fetched(runs, name, study.settings.storage)
    if isinstance(resume, str):
        return find(runs, resume, study.settings.storage)
    return (_newest(runs, study) or directory.newest(runs, study)) if resume else None


def warnings(folder: StudyFolder, study: StudyConfig, dataset: Dataset, *, splits: str) -> list[str]:
    """What is worth a warning before going on. Raises InputError where the study began differently, is in use, or has
    lost its database."""
    found = folder.described()
    # A key that is newer than the study had its default value then.
    lines = compatibility.differences(study_from_dict(found["config"]).to_dict(), study.to_dict())
    lines += compatibility.digest_differences(found["digests"], dataset, splits)
    if lines:
        raise InputError([f"{folder.path / studies.DESCRIPTION}: {line}" for line in lines])
    folder.lock()  # whether it is in use should be known before Ray starts
    try:
        # With a storage the record may be incomplete here and fetched again later: then the coordinator checks.
        stored = folder.config().settings.storage.uri is not None
        lost = [] if stored else folder.lost_database(_known(folder))
    finally:
        folder.unlock()
    if lost:
        raise InputError(lost)
    return provenance.version_warnings(found["versions"])


def _known(folder: StudyFolder) -> Callable[[int], bool]:
    """Says of a number whether the study's database has that trial; raises InputError where it cannot be read."""
    name, is_own = folder.database_name(), folder.config().settings.storage.database is None
    opened = functools.cache(folder.storage)

    def known(number: int) -> bool:
        path = folder.path / database.FILE
        if is_own and not path.exists():  # opening it would make one
            return False
        try:
            return database.knows(opened(), name, number)
        except (SQLAlchemyError, StorageInternalError) as error:
            reason = reason_of(error.__cause__ or error)
            place = path if is_own else "storage.database"
            raise InputError([f"{place}: cannot be read ({reason}); put it back from a copy"]) from None

    return known


def is_taken(storage: StorageConfig) -> Callable[[str], bool]:
    """Says of a name whether a study in the storage has it; raises InputError where that does not answer."""

    def taken(name: str) -> bool:
        uri = storage.of(name)
        return uri is not None and remote_copy.is_taken(uri)

    return taken


def acquire(
    folder: StudyFolder, config: StudyConfig, held: contextlib.ExitStack, *, warn: Callable[[str], None]
) -> RemoteCopy:
    """Makes this process the study's only driver until `held` ends, with the study's patience, and its record newest.

    Raises InputError where another driver has the study or its storage does not answer.
    """
    storage = config.settings.storage
    folder.lock()
    held.callback(folder.unlock)
    folder.retry_policy = RetryPolicy(storage.patience_s, warn=warn)
    uri = storage.of(folder.described()["name"])
    if uri is None:
        return RemoteCopy()
    copy = StorageCopy(folder, uri, retry_policy=folder.retry_policy, with_database=storage.database is None, warn=warn)
    copy.claim()
    held.callback(copy.release)
    return copy
