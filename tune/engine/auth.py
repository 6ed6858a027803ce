"""Whether Ray's processes show each other a token: said once and explicitly.

Left to itself, Ray turns tokens on for a local `ray.init()`, for `ray start --head` only where a token file exists
already, and never for an explicit address or for the Jobs API: a client and a cluster that were both left alone may
disagree, and the client is refused. So the variable is always set, and the processes that we start inherit it.
"""

import os
import sys
from pathlib import Path

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def settle(joining: bool) -> None:
    """Sets $RAY_AUTH_MODE, unless it is set: `token` where we join or address a cluster and have a token, else
    `disabled`. A local cluster of our own listens on the loopback address and serves one user's processes.

    Ray reads the variable once, when it is imported; where that is past, it is made to read it again.
    """
    if os.environ.get(MODE):
        return
    os.environ[MODE] = "token" if joining and token_found() else "disabled"
    ray, core = sys.modules.get("ray"), sys.modules.get("ray._raylet")
    if ray is not None and core is not None and not ray.is_initialized():
        core.Config.initialize("")


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


def token_faults() -> list[str]:
    """A token that is announced, but is not there."""
    if token_found():
        return []
    if os.environ.get(TOKEN_PATH):
        return [f"{TOKEN_PATH}: there is no token in {token_path()}; name the file that holds it"]
    if os.environ.get(MODE) == "token":
        return [
            f"{MODE}=token: there is no token; set {TOKEN}, or {TOKEN_PATH} to a file that holds it, "
            f"or write it to {token_path()}"
        ]
    return []


def refused(place: str, answer: str) -> str:
    """Why a cluster does not accept us, as a line. `place`: where its address was said; `answer`: what it said."""
    if token_found() and os.environ.get(MODE) != "token":
        return (
            f"{place}: the cluster asks for a token, and {MODE} is {os.environ.get(MODE)!r}; "
            f"set {MODE}=token, or leave it unset"
        )
    if token_found() or "Authentication failed" in answer:
        source = TOKEN if os.environ.get(TOKEN, "").strip() else str(token_path())
        return (
            f"{place}: the cluster does not accept the token of {source}; set {TOKEN}, or "
            f"{TOKEN_PATH} to a file, to the cluster's own token"
        )
    return (
        f"{place}: the cluster asks for a token; set {TOKEN}, or {TOKEN_PATH} to a file that "
        f"holds it, or write it to {token_path()}"
    )


def _has_text(path: Path) -> bool:
    try:
        return bool(path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return False
