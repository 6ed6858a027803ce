"""Sets explicitly whether Ray's processes authenticate with a token.

By default Ray uses tokens for a local `ray.init()`, for `ray start --head` only if a token file exists, and never for
an explicit address or the Jobs API. With these defaults a client and its cluster may disagree, and then the client is
rejected. So $RAY_AUTH_MODE is always set; child processes inherit it.
"""

import os
import sys
from pathlib import Path

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def settle(joining: bool) -> None:
    """Sets $RAY_AUTH_MODE, unless it is set: `token` when joining a cluster with a token, else `disabled`.

    A local cluster needs no token: it listens on the loopback address and serves one user's processes. Ray reads the
    variable when it is imported; if it is imported already, it is made to read it again.

    Args:
        joining: whether this process joins or contacts an existing cluster.
    """
    if os.environ.get(MODE):
        return
    os.environ[MODE] = "token" if joining and token_found() else "disabled"
    ray, core = sys.modules.get("ray"), sys.modules.get("ray._raylet")
    if ray is not None and core is not None and not ray.is_initialized():
        core.Config.initialize("")


def token_found() -> bool:
    """Whether Ray has a token: $RAY_AUTH_TOKEN, the file $RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.

    As in Ray, the first variable that is set decides, even if its file is missing.
    """
    if os.environ.get(TOKEN, "").strip():
        return True
    return _has_text(token_path())


def token_path() -> Path:
    """Returns the file from which Ray reads a token if $RAY_AUTH_TOKEN is not set."""
    return Path(os.environ.get(TOKEN_PATH) or Path.home() / ".ray" / "auth_token").expanduser()


def token_faults() -> list[str]:
    """The fault of a missing token, if the environment says that there is one."""
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
    """Returns why a cluster rejects this client, as a line.

    Args:
        place: the start of the line: the option or variable that holds the address.
        answer: the text with which the cluster rejected the client.
    """
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
