"""Provides a home folder and a user name where the system has none: libraries require both."""

import getpass
import os
import stat
import tempfile
from pathlib import Path

_NAME = "LOGNAME"


def settle() -> None:
    """Sets a home folder and a user name for this process and its children where the system has none.

    A user id without an entry, as in a container, has neither; matplotlib, MLflow and torch then fail. The home folder
    is a private one in the folder for temporary files. Existing settings stay as they are.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        os.environ[_NAME] = str(os.getuid())
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = _own_folder()


def _own_folder() -> str:
    path = Path(tempfile.gettempdir()) / f"m3col-home-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
        is_private = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022
    except OSError:
        is_private = False
    return str(path) if is_private else tempfile.mkdtemp(prefix=f"m3col-home-{os.getuid()}-")
