"""URLs of SQLite files, for paths with characters that are special in a URL (SQLAlchemy, Optuna and MLflow)."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from m3col.errors import InputError

_SIGNS = "?#%"  # characters with a meaning in a URL

# Options that the driver and SQLite itself accept after a "?".
_OPTIONS = (
    "cache", "cached_statements", "check_same_thread", "detect_types", "immutable", "isolation_level", "mode", "nolock",
    "psow", "timeout", "uri", "vfs",
)  # fmt: skip


def url(path: Path) -> str:
    """The URL of the SQLite file at an absolute path. Raises InputError where no URL can name it."""
    text = _url(path)
    if text is None:
        raise InputError(faults(path.parent))
    return text


def faults(folder: Path) -> list[str]:
    """Faults of the path of a folder for databases, one line each."""
    if _url(folder.absolute() / "x.db") is not None:
        return []
    signs = [sign for sign in _SIGNS if sign in str(folder)] or ["a sign"]
    near = re.sub(f"[{_SIGNS}]", "-", str(folder))
    return [
        f"{folder}: the path has {' and '.join(map(repr, signs))}, and the installed SQLAlchemy cannot open a database "
        f"in it; nearest valid: {near}, or sqlalchemy>=2.1"
    ]


def _url(path: Path) -> str | None:
    plain = f"sqlite:///{path}"  # preferred where it works: settings and records of users have this form
    for candidate in (plain, URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)):
        with contextlib.suppress(ArgumentError, ValueError):
            parsed = make_url(candidate)
            if parsed.database == str(path) and not parsed.query:
                return candidate
    return None


def url_faults(text: str, key: str) -> list[str]:
    """Faults of a SQLite URL from a config, as lines that begin with `key`.

    A fault is a special character in the path that is not percent-encoded.
    """
    if not text.startswith("sqlite:"):
        return []
    _, mark, options = text.partition("?")
    sign = ""
    if mark and not all(part.partition("=")[0] in _OPTIONS for part in options.split("&")):
        sign = "?"
    elif "\N{REPLACEMENT CHARACTER}" in unquote(text):
        sign = "%"
    if not sign:
        return []
    code = f"%{ord(sign):02X}"
    path = unquote(text.partition("///")[2], errors="ignore") if sign == "?" else text.partition("///")[2]
    near = f"; nearest valid: {nearest!r}" if (nearest := _url(Path(path))) else ""
    return [f"{key} {text!r}: {sign!r} in a path is written {code} in a URL{near}"]


@contextlib.contextmanager
def no_stray_folder(text: str) -> Iterator[None]:
    """Removes stray folders after the block in which MLflow opens a SQLite URL.

    MLflow creates the folder of the path without decoding the URL. With an encoded character that is a wrong folder.
    """
    stray = Path(text.partition("///")[2]).parent
    created = [path for path in (stray, *stray.parents) if "%" in str(path) and not path.exists()]
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for path in created if text.startswith("sqlite:") else ():
                path.rmdir()
