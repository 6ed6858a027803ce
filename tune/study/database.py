"""The database of the Optuna study: SQLite in the study's folder, or a database server."""

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

_BUSY_S = 60  # wait for a SQLite file that another process has locked

_ANSWER_S = 10.0  # limit of the connection test

_CONNECT_S = 10  # limit for opening a connection to a server

_SILENT_S = 120.0  # limit of one transaction, and of waiting for packets from the server's machine

# Time limits by driver, as arguments of its connect function.
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
    """Returns the faults of a database URL, without connecting. Each line begins with the config key."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: an invalid port
        if has_password(url):
            return [_password_fault(url)]
        return [f"{_KEY} must be an SQLAlchemy URL, but got {quoted(url)}; nearest valid: {_EXAMPLE}"]
    if has_password(url) or parsed.password:
        return [_password_fault(url)]
    try:
        parsed.get_dialect().import_dbapi()
    except NoSuchModuleError:
        rule = "a kind of database that SQLAlchemy knows"
        return [f"{_KEY} must be {rule}, but got {quoted(url)}; nearest valid: {_EXAMPLE}"]
    except ImportError as error:
        package = error.name or "its driver"
        return [f"{_KEY} {url!r} needs the package {package}, which is not installed; pip install {package}"]
    path = parsed.database or ""
    if parsed.get_backend_name() != "sqlite":
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
    """The URL with its password masked; "the URL" if SQLAlchemy finds a password in the masked text."""
    shown = redacted(url)
    try:
        parsed = make_url(shown)
    except (ArgumentError, ValueError):
        return "the URL"
    values = [(key, value) for key in parsed.query for value in parsed.normalized_query[key] if value != MASK]
    has_secret = parsed.password not in (None, MASK) or any(has_password(f"?{k}={quote_plus(v)}") for k, v in values)
    return "the URL" if has_secret else repr(shown)


def connection_faults(url: str) -> list[str]:
    """Returns why the database cannot be used, as lines. Returns within some seconds, whatever the network does."""
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
    """Returns arguments for SQLAlchemy's engine: the time limits that the driver supports. Settings in the URL win."""
    parsed = make_url(url)
    driver = parsed.get_driver_name()
    limits = {key: value for key, value in _LIMITS.get(driver, {}).items() if key not in parsed.query}
    if parsed.get_backend_name() == "sqlite":
        return {"connect_args": limits}
    # A server closes idle connections, so each is tested before use.
    pool = {"poolclass": _TimeLimitedPool} if _LIMITS.get(driver) is _LIBPQ else {"pool_pre_ping": True}
    return {"connect_args": limits, **pool}


class _TimeLimitedPool(QueuePool):
    """A pool of libpq connections that shuts the socket of one in use for longer than `_SILENT_S`.

    libpq itself waits forever if the server process is stopped while its machine keeps running. Shutting the socket
    ends the call with a connection error.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if not event.contains(self, "checkout", _on_checkout):
            event.listen(self, "checkout", _on_checkout)
            event.listen(self, "checkin", _on_checkin)


def _on_checkout(connection: Any, record: Any, proxy: Any) -> None:
    timer = threading.Timer(_SILENT_S, _shut_socket, [connection])
    timer.daemon = True
    timer.start()
    record.info["timer"] = timer
    try:  # in place of SQLAlchemy's pool_pre_ping, which runs before this event and so without a time limit
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.rollback()
    except Exception as error:  # whatever a driver raises
        timer.cancel()
        raise DisconnectionError(str(error)) from error


def _on_checkin(connection: Any, record: Any) -> None:
    timer = record.info.pop("timer", None)  # None if the connection was invalidated
    if timer is not None:
        timer.cancel()


def _shut_socket(connection: Any) -> None:
    with contextlib.suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as stream:
        stream.shutdown(socket.SHUT_RDWR)


def open_storage(url: str | None, folder: Path) -> "RDBStorage":
    """Opens Optuna's storage at `url`, by default in the study's folder. Raises InputError if that fails."""
    import optuna
    import sqlalchemy.exc

    address = url or sqlite_urls.url(folder.absolute() / FILE)
    # Optuna formats the URL as a template, so braces must be doubled.
    template = address.replace("{", "{{").replace("}", "}}")
    try:
        return optuna.storages.RDBStorage(template, engine_kwargs=_settings(address))
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError) as error:
        if url is None:
            raise
        raise InputError([f"{_KEY} {url!r}: cannot be opened ({reason_of(error, limit=300)})"]) from None


def knows(storage: optuna.storages.BaseStorage, name: str, number: int) -> bool:
    """Whether a database has this trial of the study called `name`. Queued trials do not count. Writes nothing."""
    try:
        study = storage.get_study_id_from_name(name)
        trial = storage.get_trial(storage.get_trial_id_from_study_id_trial_number(study, number))
    except KeyError:
        return False
    return trial.state is not TrialState.WAITING
