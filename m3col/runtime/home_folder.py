"""What libraries expect of the system around a process: a home folder and a name of the user."""

import getpass
import os
import stat
import tempfile
from pathlib import Path

_NAME = "LOGNAME"


def settle() -> None:
    """Gives this process, and those that it starts, a home folder and a user name where the system knows none, as for a
    foreign user id in a container: matplotlib, MLflow and torch fail without. The folder is this user's own in the one
    for temporary files; what is there already stays as it is."""
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
        found = path.lstat()
        is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    except OSError:
        is_ours = False
    return str(path) if is_ours else tempfile.mkdtemp(prefix=f"m3col-home-{os.getuid()}-")
