"""Where a local Ray cluster keeps its files: their sockets need a short path, and batch systems hand out long ones."""

import os
import stat
import tempfile
from pathlib import Path

from m3col.errors import InputError

_LONGEST = 107  # bytes of the path of a Unix socket

_SESSION = "session_2026-01-01_00-00-00_000000_"  # and the process id

_SOCKETS = {False: "plasma_store", True: "dash_TaskEventsHead"}  # the longest names, without and with a dashboard

_ELSEWHERE = ("/tmp", "/var/tmp", "/dev/shm")

_VARIABLE = "RAY_TMPDIR"


def room(*, dashboard: bool) -> int:
    """Bytes that the path of Ray's folder may have."""
    return _LONGEST - len(f"/{_SESSION}{os.getpid()}/sockets/{_SOCKETS[dashboard]}")


def folder(*, dashboard: bool = False) -> str | None:
    """The folder for a local cluster; None for Ray's own choice, which is `ray` in $RAY_TMPDIR, $TMPDIR or /tmp.

    Where that is too long or cannot be written, it is one of this user's own in /tmp or the like. Raises InputError
    where there is none, or where $RAY_TMPDIR, which says it explicitly, cannot be used.
    """
    given = os.environ.get(_VARIABLE)
    root = given if given is not None else os.environ.get("TMPDIR", tempfile.gettempdir())
    fault = _fault(f"{root}/ray", dashboard=dashboard)
    if fault is None:
        return None
    if given is not None:
        raise InputError(
            [f"{_VARIABLE} {given}: {fault}; nearest valid: a folder that can be written, such as {_ELSEWHERE[0]}"]
        )
    for place in _ELSEWHERE:
        own = f"{place}/m3col-{os.getuid()}"
        if _is_private(Path(own)) and _fault(f"{own}/ray", dashboard=dashboard) is None:
            return f"{own}/ray"
    name = "TMPDIR" if "TMPDIR" in os.environ else "the folder for temporary files,"
    raise InputError(
        [f"{name} {root}: {fault}, and none of {', '.join(_ELSEWHERE)} will do instead; set {_VARIABLE} to a folder of "
         f"at most {room(dashboard=dashboard) - len('/ray')} bytes that can be written"]
    )  # fmt: skip


def _fault(path: str, *, dashboard: bool) -> str | None:
    """Why Ray cannot have its folder at this path, which need not be there yet."""
    length, most = len(os.fsencode(path)), room(dashboard=dashboard)
    if length > most:
        return f"too long for Ray's sockets, by {length - most} bytes"
    there = Path(path)
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return f"{there} is no folder"
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there} cannot be written"


def _is_private(path: Path) -> bool:
    """Whether this is a folder of our own that nobody else may write, which is made where there is none."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
