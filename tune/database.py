"""The database of Optuna's study: SQLite in the study's folder, or any SQLAlchemy URL that several machines reach."""

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from m3col.faults import BadInput
from m3col.secrets import MASK, has_password, quoted, redacted, scrubbed

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

FILE = "study.db"
_BUSY_S = 60  # another process holds a SQLite file
_ANSWER_S = 10.0  # for the first word with a server
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
    if found.get_backend_name() != "sqlite" or os.path.isabs(path):
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


def reach(url: str) -> list[str]:
    """What keeps the database from being used, as lines; within some seconds, whatever the network does."""
    import sqlalchemy

    errors: list[Exception] = []

    def attempt() -> None:
        try:
            engine = sqlalchemy.create_engine(url)
            with engine.connect() as connection:
                connection.execute(sqlalchemy.text("SELECT 1"))
            engine.dispose()
        except Exception as error:  # whatever a driver raises
            errors.append(error)

    # A look-up of a name can hang longer than any driver's own limit.
    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(_ANSWER_S)
    if not errors and not thread.is_alive():
        return []
    said = getattr(errors[0], "orig", None) or errors[0] if errors else f"no answer within {_ANSWER_S:g} s"
    return [
        f"{_KEY} {url!r}: the database does not answer ({scrubbed(' '.join(str(said).split()))[:300]}); start it, or "
        "leave the key out: SQLite in the study's folder needs no server"
    ]


def open_storage(url: str | None, folder: Path) -> "RDBStorage":
    """The storage at `url`, by default in the study's folder. Raises BadInput where it cannot be opened."""
    import optuna
    import sqlalchemy.exc

    settings: dict[str, Any] = {"pool_pre_ping": True}  # a server closes connections that nobody used for long
    if url is None or url.startswith("sqlite"):
        settings = {"connect_args": {"timeout": _BUSY_S}}
    try:
        return optuna.storages.RDBStorage(url or f"sqlite:///{folder / FILE}", engine_kwargs=settings)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError) as error:
        if url is None:
            raise
        said = scrubbed(" ".join(str(error).split()))[:300]
        raise BadInput([f"{_KEY} {url!r}: cannot be opened ({said})"]) from None
