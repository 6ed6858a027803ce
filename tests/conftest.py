"""Shared fixtures. Hub look-ups are off: a test never waits for a network."""

import atexit
import gc
import os
import signal
import sqlite3
import sys
import uuid
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from m3col.methods import registry
from tests.support import lanes
from tests.support.servers import S3

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 starves its workers while the other test process computes

# The tests compute on the CPU, also where there is a GPU; those that need one are asked for by `make test-gpu`.
if os.environ.get("M3COL_TEST_GPU") != "1":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

# A run in the background of a shell inherits that SIGINT is ignored, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_TRACKING_URI = os.environ.get("MLFLOW_TRACKING_URI")  # as it was before any test

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which a single file does not need
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return lanes.scheduler(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collection makes millions of objects that stay. The garbage collector would go through all of them again and
    again, now and in every test."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # else some extension modules report at exit that their objects are still there


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lanes.longest_first(items)


@pytest.fixture(scope="module", autouse=True)
def own_methods_are_forgotten() -> Iterator[None]:
    """Methods of a test's own module are known to this process until the tests of the file are over."""
    known = dict(registry._NAMED)
    yield
    registry._NAMED.clear()
    registry._NAMED.update(known)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_flushed() -> Iterator[None]:
    """No test cuts the power: what this process writes may stay in the system's memory, which spares it milliseconds
    with every file and every step of a database. Processes that tests start flush as always."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda descriptor: None)
        event.listen(Engine, "connect", _do_not_flush)
        yield
        event.remove(Engine, "connect", _do_not_flush)


def _do_not_flush(connection: Any, record: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


@pytest.fixture(scope="session", autouse=True)
def tables_of_mlflow_are_copied() -> Iterator[None]:
    """MLflow makes the tables of a new database by all of its migrations, a second each time. Here the first database
    of a process gets them so, and the others a copy. A file run alone that imports MLflow later does without."""
    if "mlflow" not in sys.modules:
        yield
        return
    from mlflow.store.db import utils

    initialize, copy, lock = utils._initialize_tables, sqlite3.connect(":memory:", check_same_thread=False), Lock()

    def copied(engine: Engine) -> None:
        with lock, closing(engine.raw_connection()) as connection:
            database = connection.driver_connection
            if not isinstance(database, sqlite3.Connection) or _tables(database):
                initialize(engine)
            elif _tables(copy):
                copy.backup(database)
            else:
                initialize(engine)
                database.backup(copy)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(utils, "_initialize_tables", copied)
        yield


def _tables(database: sqlite3.Connection) -> int:
    (count,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return int(count)


@pytest.fixture(scope="session", autouse=True)
def optuna_reads_its_migrations_once() -> Iterator[None]:
    """Whenever Optuna opens a database, it reads the scripts of its migrations to learn the name of the newest one."""
    if "optuna" not in sys.modules:
        yield
        return
    from optuna.storages._rdb.storage import _VersionManager

    read, newest = _VersionManager.get_head_version, list[str]()

    def known(manager: _VersionManager) -> str:
        if not newest:
            newest.append(read(manager))
        return newest[0]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_VersionManager, "get_head_version", known)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the small real data sets, beside the repository."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not beside the repository ({folder})")
    return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    server = S3()
    server.start()
    yield server
    server.kill()


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of an empty place on a real S3 server."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    return f"{s3_server.uri}/{uuid.uuid4().hex[:8]}"


@pytest.fixture(autouse=True)
def tracking_variable() -> Iterator[None]:
    """MLflow's own functions set it, also in fixtures of a module, and the next test would write there."""
    yield
    if _TRACKING_URI is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    else:
        os.environ["MLFLOW_TRACKING_URI"] = _TRACKING_URI
