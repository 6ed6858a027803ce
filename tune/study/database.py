"""The database of Optuna's study: SQLite in the study's folder, or any SQLAlchemy URL that several machines reach."""

import contextlib
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import optuna
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError, NoSuchModuleError
from sqlalchemy.pool import QueuePool

from m3col.errors import InputError, reason_of
from m3col.runtime import deadline
from m3col.storage import sqlite_urls
from m3col.storage.redaction import MASK, has_password, quoted, redacted

if TYPE_CHECKING:
    from optuna.storages import RDBStorage


FILE = "study.db"

_BUSY_S = 60  # another process holds a SQLite file

_ANSWER_S = 10.0  # for the first word with a server

_CONNECT_S = 10  # for each connection to a server

_SILENT_S = (
    120.0  # for what a server is asked between the begin and the end of a transaction, or what its machine sends
)

# By the name of the driver, in its words.
_LIBPQ = {
    "connect_timeout": _CONNECT_S, "tcp_user_timeout": int(1000 * _SILENT_S), "keepalives_idle": 30,
    "keepalives_interval": 10, "keepalives_count": 3,
}  # fmt: skip

_MYSQL = {"connect_timeout": _CONNECT_S, "read_timeout": int(_SILENT_S), "write_timeout": int(_SILENT_S)}

_LIMITS: dict[str, dict[str, int]] = {
    "pysqlite": {"timeout": _BUSY_S}, "psycopg": _LIBPQ, "psycopg2": _LIBPQ, "pymysql": _MYSQL, "mysqldb": _MYSQL,
}  # fmt: skip

_EXAMPLE = "postgresql+psycopg://user@host/database"

_KEY = "storage.database"


def faults(url: str) -> list[str]:
    """What is wrong with a URL, as lines that begin with the config's key. Nothing is connected to."""
    try:
        found = make_url(url)
    except (ArgumentError, ValueError):  # of the whole, of its port
        if has_password(url):
            return [_password_fault(url)]
        return [f"{_KEY} must be an SQLAlchemy URL, but got {quoted(url)}; nearest valid: {_EXAMPLE}"]
    if has_password(url) or found.password:
        return [_password_fault(url)]
    try:
        found.get_dialect().import_dbapi()
    except NoSuchModuleError:
        rule = "a kind of database that SQLAlchemy knows"
        return [f"{_KEY} must be {rule}, but got {quoted(url)}; nearest valid: {_EXAMPLE}"]
    except ImportError as error:
        package = error.name or "its driver"
        return [f"{_KEY} {url!r} needs the package {package}, which is not installed; pip install {package}"]
    path = found.database or ""
    if found.get_backend_name() != "sqlite":
        return []
    if signs := sqlite_urls.url_faults(url, _KEY):
        return signs
    if os.path.isabs(path):
        return []
    if path in ("", ":memory:"):
        return [f"{_KEY} must name a file, but got {url!r}; nearest valid: sqlite:////absolute/path/{FILE}"]
    return [f"{_KEY} must name an absolute path, but got {url!r}; nearest valid: 'sqlite:///{os.path.abspath(path)}'"]


def _password_fault(url: str) -> str:
    return (
        f"{_KEY} must hold no password, because it is stored and shown; put it into PGPASSWORD or ~/.pgpass (of "
        f"MySQL: a file named by read_default_file in the URL), and leave it out of {_shown(url)}"
    )


def _shown(url: str) -> str:
    """The URL with its password masked; only in words where SQLAlchemy still finds a password in that."""
    shown = redacted(url)
    try:
        found = make_url(shown)
    except (ArgumentError, ValueError):
        return "the URL"
    values = [(key, value) for key in found.query for value in found.normalized_query[key] if value != MASK]
    left = found.password not in (None, MASK) or any(has_password(f"?{k}={quote_plus(v)}") for k, v in values)
    return "the URL" if left else repr(shown)


def connection_faults(url: str) -> list[str]:
    """What keeps the database from being used, as lines; within some seconds, whatever the network does."""
    import sqlalchemy

    def connect() -> None:
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT 1"))
        engine.dispose()

    try:
        deadline.within(_ANSWER_S, connect)
    except Exception as error:  # whatever a driver raises
        reason = reason_of(getattr(error, "orig", None) or error, limit=300)
        return [
            f"{_KEY} {url!r}: the database does not answer ({reason}); start it, or leave the key out: SQLite in the "
            "study's folder needs no server"
        ]
    return []


def _settings(url: str) -> dict[str, Any]:
    """What the engine of a database is made with: limits for its waits, as far as its driver knows any. What the URL
    says itself goes before."""
    found = make_url(url)
    driver = found.get_driver_name()
    limits = {key: value for key, value in _LIMITS.get(driver, {}).items() if key not in found.query}
    if found.get_backend_name() == "sqlite":
        return {"connect_args": limits}
    # A server closes connections that nobody used for long.
    guarded = {"poolclass": _HangingUp} if _LIMITS.get(driver) is _LIBPQ else {"pool_pre_ping": True}
    return {"connect_args": limits, **guarded}


class _HangingUp(QueuePool):
    """Connections of libpq, which itself waits for ever for the answer of a server that is stopped while its machine
    goes on: this hangs up, so that the call ends with an error of the connection."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if not event.contains(self, "checkout", _taken):
            event.listen(self, "checkout", _taken)
            event.listen(self, "checkin", _returned)


def _taken(connection: Any, record: Any, proxy: Any) -> None:
    timer = threading.Timer(_SILENT_S, _hang_up, [connection])
    timer.daemon = True
    timer.start()
    record.info["timer"] = timer
    try:  # SQLAlchemy's own ping comes before anybody can watch it
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.rollback()
    except Exception as error:  # whatever a driver raises
        timer.cancel()
        raise DisconnectionError(str(error)) from error


def _returned(connection: Any, record: Any) -> None:
    timer = record.info.pop("timer", None)  # gone with a connection that broke
    if timer is not None:
        timer.cancel()


def _hang_up(connection: Any) -> None:
    with contextlib.suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


def open_storage(url: str | None, folder: Path) -> "RDBStorage":
    """The storage at `url`, by default in the study's folder. Raises InputError where it cannot be opened."""
    import optuna
    import sqlalchemy.exc

    wanted = url or sqlite_urls.url(folder.absolute() / FILE)
    # Optuna takes braces in a URL for a template of its own.
    template = wanted.replace("{", "{{").replace("}", "}}")
    try:
        return optuna.storages.RDBStorage(template, engine_kwargs=_settings(wanted))
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError) as error:
        if url is None:
            raise
        raise InputError([f"{_KEY} {url!r}: cannot be opened ({reason_of(error, limit=300)})"]) from None


def knows(storage: optuna.storages.BaseStorage, name: str, number: int) -> bool:
    """Whether a database has this trial of the study called `name`, other than in its queue. Writes nothing."""
    try:
        study = storage.get_study_id_from_name(name)
        trial = storage.get_trial(storage.get_trial_id_from_study_id_trial_number(study, number))
    except KeyError:
        return False
    return trial.state is not TrialState.WAITING
