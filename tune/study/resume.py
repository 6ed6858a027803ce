"""Finds the study to resume, locally or in its storage, checks it, and acquires it against other drivers."""

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
    """Returns the study of that name, fetched from the storage if only that has it. Raises InputError if none has."""
    try:
        return directory.find(runs, name)
    except InputError as error:
        fetched = _fetched(runs, name, storage)
        if fetched is not None:
            return fetched
        elsewhere = f" and not below {storage.uri}" if storage.uri else ""
        raise InputError([f"{line}{elsewhere}" for line in error.faults]) from None


def _fetched(runs: Path, name: str, storage: StorageConfig) -> StudyFolder | None:
    """As `fetched`, for a name that a user typed."""
    usable = name not in ("", ".", "..") and "/" not in name
    return fetched(runs, name, storage) if usable else None


def fetched(runs: Path, name: str, storage: StorageConfig) -> StudyFolder | None:
    """Fetches a study from the storage; None if that does not have it, or there is no storage.

    Args:
        runs: folder of studies.
        name: its name, `tree/split_00` for a study of a tree.
        storage: the section `storage:`.

    Raises:
        InputError: the storage does not answer, or another process on this machine has the study.
    """
    uri = storage.of(name)
    if uri is None or not remote_copy.fetch_missing(uri, runs / name):
        return None
    return StudyFolder((runs / name).absolute())


def _newest(runs: Path, study: StudyConfig) -> StudyFolder | None:
    """Returns the newest unfinished study of this config: a local one, else one in the storage."""
    local = [other for other in directory.all_studies(runs) if other.described()["config"]["name"] == study.name]
    folder = directory.newest_unfinished(local)
    storage = study.settings.storage
    if folder is None and storage.uri is not None:
        name = remote_copy.newest_unfinished(storage.uri, study.name)
        folder = None if name is None else _fetched(runs, name, storage)
    return folder


def folder_for(runs: Path, study: StudyConfig, resume: bool | str, name: str | None) -> StudyFolder | None:
    """Returns the folder of the study to resume, None if there is none.

    Args:
        runs: folder of studies.
        study: the config of the search.
        resume: see `tune.checks.Options`.
        name: the study's name, for resume="auto".

    Raises:
        InputError: there is no study named `resume`.
    """
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
    """Checks whether a study can be resumed. Returns warnings.

    Args:
        folder: the study.
        study: the config with which it is to be resumed.
        dataset: its data.
        splits: digest of its folds.

    Raises:
        InputError: the study began with another config or other data, is in use, or has lost its database.
    """
    described = folder.described()
    # Parsed and dumped again: keys that the study's version did not have get their defaults.
    lines = compatibility.differences(study_from_dict(described["config"]).to_dict(), study.to_dict())
    lines += compatibility.digest_differences(described["digests"], dataset, splits)
    if lines:
        raise InputError([f"{folder.path / studies.DESCRIPTION}: {line}" for line in lines])
    folder.lock()  # fails here, before Ray starts, if the study is in use
    try:
        # With a storage the local record may be incomplete until it is fetched; the coordinator checks it then.
        has_storage = folder.config().settings.storage.uri is not None
        faults = [] if has_storage else folder.lost_database(_has_trial(folder))
    finally:
        folder.unlock()
    if faults:
        raise InputError(faults)
    return provenance.version_warnings(described["versions"])


def _has_trial(folder: StudyFolder) -> Callable[[int], bool]:
    """Returns a function: whether the study's database has the trial of a number. It raises InputError on failure."""
    name, is_local = folder.database_name(), folder.config().settings.storage.database is None
    open_once = functools.cache(folder.storage)

    def has_trial(number: int) -> bool:
        path = folder.path / database.FILE
        if is_local and not path.exists():  # opening it would create it
            return False
        try:
            return database.knows(open_once(), name, number)
        except (SQLAlchemyError, StorageInternalError) as error:
            reason = reason_of(error.__cause__ or error)
            location = path if is_local else "storage.database"
            raise InputError([f"{location}: cannot be read ({reason}); put it back from a copy"]) from None

    return has_trial


def is_taken(storage: StorageConfig) -> Callable[[str], bool]:
    """Returns a function: whether a study in the storage has a name. It raises InputError if the storage fails."""

    def taken(name: str) -> bool:
        uri = storage.of(name)
        return uri is not None and remote_copy.is_taken(uri)

    return taken


def acquire(
    folder: StudyFolder, config: StudyConfig, exit_stack: contextlib.ExitStack, *, warn: Callable[[str], None]
) -> RemoteCopy:
    """Makes this process the study's only driver, and fetches the record if the storage has a newer one.

    Args:
        folder: the study.
        config: its config; sets how long the folder retries failed writes.
        exit_stack: releases the study when it is closed.
        warn: called with each warning.

    Returns:
        The copy of the study in its storage.

    Raises:
        InputError: another driver has the study, or the storage does not answer.
    """
    storage = config.settings.storage
    folder.lock()
    exit_stack.callback(folder.unlock)
    folder.retry_policy = RetryPolicy(storage.patience_s, warn=warn)
    uri = storage.of(folder.described()["name"])
    if uri is None:
        return RemoteCopy()
    copy = StorageCopy(folder, uri, retry_policy=folder.retry_policy, with_database=storage.database is None, warn=warn)
    copy.claim()
    exit_stack.callback(copy.release)
    return copy
