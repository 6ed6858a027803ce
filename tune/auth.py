"""Whether Ray's processes show each other a token: said once and explicitly, before Ray is imported.

Left to itself, Ray turns tokens on for a local `ray.init()`, for `ray start --head` only where a token file exists
already, and never for an explicit address or for the Jobs API: a client and a cluster that were both left alone may
disagree, and the client is refused. So the variable is always set, and the processes that we start inherit it.
"""

import os
from pathlib import Path

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def settle(joining: bool) -> None:
    """Sets $RAY_AUTH_MODE, unless it is set: `token` where we join or address a cluster and have a token, else
    `disabled`. A local cluster of our own listens on the loopback address and serves one user's processes.

    To be called before anything of Ray is imported, as it reads the variable once.
    """
    os.environ.setdefault(MODE, "token" if joining and token_found() else "disabled")


def token_found() -> bool:
    """Whether there is a token where Ray looks: $RAY_AUTH_TOKEN, the file $RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token.

    As for Ray, a variable that is set ends the search, also where its file is missing.
    """
    if os.environ.get(TOKEN, "").strip():
        return True
    return _has_text(token_path())


def token_path() -> Path:
    """The file that Ray reads a token from where $RAY_AUTH_TOKEN is not set."""
    return Path(os.environ.get(TOKEN_PATH) or Path.home() / ".ray" / "auth_token").expanduser()


def _has_text(path: Path) -> bool:
    try:
        return bool(path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return False
