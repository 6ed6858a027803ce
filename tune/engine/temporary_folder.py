"""Chooses the folder of a local Ray cluster. Sockets need a short path, and batch systems often set a long one."""

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


def longest_path(*, dashboard: bool) -> int:
    """Returns how many bytes the path of Ray's folder may have."""
    return _LONGEST - len(f"/{_SESSION}{os.getpid()}/sockets/{_SOCKETS[dashboard]}")


def folder(*, dashboard: bool = False) -> str | None:
    """Returns the folder for a local cluster; None for Ray's default, `ray` in $RAY_TMPDIR, $TMPDIR or /tmp.

    If Ray's default is too long or not writable, a private folder of this user in /tmp, /var/tmp or /dev/shm.

    Raises:
        InputError: none of these can be used, or $RAY_TMPDIR is set and cannot be used.
    """
    configured = os.environ.get(_VARIABLE)
    root = configured if configured is not None else os.environ.get("TMPDIR", tempfile.gettempdir())
    fault = _fault(f"{root}/ray", dashboard=dashboard)
    if fault is None:
        return None
    if configured is not None:
        raise InputError(
            [f"{_VARIABLE} {configured}: {fault}; nearest valid: a folder that can be written, such as {_ELSEWHERE[0]}"]
        )
    for parent in _ELSEWHERE:
        private = f"{parent}/m3col-{os.getuid()}"
        if _is_private(Path(private)) and _fault(f"{private}/ray", dashboard=dashboard) is None:
            return f"{private}/ray"
    name = "TMPDIR" if "TMPDIR" in os.environ else "the folder for temporary files,"
    raise InputError(
        [f"{name} {root}: {fault}, and none of {', '.join(_ELSEWHERE)} will do instead; set {_VARIABLE} to a folder of "
         f"at most {longest_path(dashboard=dashboard) - len('/ray')} bytes that can be written"]
    )  # fmt: skip


def _fault(path: str, *, dashboard: bool) -> str | None:
    """Why Ray cannot use a folder at this path, which need not exist."""
    length, most = len(os.fsencode(path)), longest_path(dashboard=dashboard)
    if length > most:
        return f"too long for Ray's sockets, by {length - most} bytes"
    existing = Path(path)
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        return f"{existing} is no folder"
    return None if os.access(existing, os.W_OK | os.X_OK) else f"{existing} cannot be written"


def _is_private(path: Path) -> bool:
    """Whether this is a folder of this user that nobody else can write to. Creates it if it does not exist."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022
