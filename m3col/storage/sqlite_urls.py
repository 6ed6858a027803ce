"""SQLite files named by URLs: what SQLAlchemy, and with it Optuna and MLflow, makes of the signs in a path."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from m3col.errors import InputError

_SIGNS = "?#%"  # that mean something in a URL

# What the driver and SQLite itself take after a "?".
_OPTIONS = (
    "cache", "cached_statements", "check_same_thread", "detect_types", "immutable", "isolation_level", "mode", "nolock",
    "psow", "timeout", "uri", "vfs",
)  # fmt: skip


def url(path: Path) -> str:
    """The URL of the SQLite file at an absolute path. Raises InputError where no URL can name it."""
    found = _url(path)
    if found is None:
        raise InputError(faults(path.parent))
    return found


def faults(folder: Path) -> list[str]:
    """What is wrong with the path of a folder in which databases are to lie, as lines."""
    if _url(folder.absolute() / "x.db") is not None:
        return []
    signs = [sign for sign in _SIGNS if sign in str(folder)] or ["a sign"]
    near = re.sub(f"[{_SIGNS}]", "-", str(folder))
    return [
        f"{folder}: the path has {' and '.join(map(repr, signs))}, and the installed SQLAlchemy cannot open a database "
        f"in it; nearest valid: {near}, or sqlalchemy>=2.1"
    ]


def _url(path: Path) -> str | None:
    plain = f"sqlite:///{path}"  # as far as it goes: what people have in their settings and records
    for candidate in (plain, URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)):
        with contextlib.suppress(ArgumentError, ValueError):
            found = make_url(candidate)
            if found.database == str(path) and not found.query:
                return candidate
    return None


def url_faults(given: str, key: str) -> list[str]:
    """What is wrong with the path in a SQLite URL that somebody wrote, as lines that begin with `key`: a sign of the
    path that means something in a URL."""
    if not given.startswith("sqlite:"):
        return []
    _, mark, rest = given.partition("?")
    sign = ""
    if mark and not all(part.partition("=")[0] in _OPTIONS for part in rest.split("&")):
        sign = "?"
    elif "\N{REPLACEMENT CHARACTER}" in unquote(given):
        sign = "%"
    if not sign:
        return []
    code = f"%{ord(sign):02X}"
    path = unquote(given.partition("///")[2], errors="ignore") if sign == "?" else given.partition("///")[2]
    near = f"; nearest valid: {found!r}" if (found := _url(Path(path))) else ""
    return [f"{key} {given!r}: {sign!r} in a path is written {code} in a URL{near}"]


@contextlib.contextmanager
def no_stray_folder(given: str) -> Iterator[None]:
    """While it lasts, MLflow may open the file of a URL: it makes the folder that the URL reads like as a path, which
    is removed again where that is another one."""
    stray = Path(given.partition("///")[2]).parent
    made = [place for place in (stray, *stray.parents) if "%" in str(place) and not place.exists()]
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for place in made if given.startswith("sqlite:") else ():
                place.rmdir()
