"""Removes passwords from URLs in records and logs, and from messages of other libraries.

Secrets belong in the environment or in files of the user (AWS_*, PGPASSWORD or ~/.pgpass, MLFLOW_TRACKING_USERNAME and
_PASSWORD, RAY_AUTH_TOKEN). The libraries that need them read them from there.
"""

import os
import re
from urllib.parse import unquote_plus

MASK = "***"

_ENVIRONMENT = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD",
    "MYSQL_PWD", "RAY_AUTH_TOKEN",
)  # fmt: skip

_SHORTEST = 4  # masking a shorter value would also mask ordinary words


# In http URLs the user's part ends at the first slash, and a name without a password usually is a token. In database
# URLs SQLAlchemy allows slashes in a password. Each pattern reads a URL as the library that connects with it does.
_HTTP = re.compile(r"(?i)\b(https?://)([^\s/?#]+)@")

_OTHER = re.compile(r"(?i)\b((?!https?:)\w[\w+.-]*://[^\s:/?#@]*:)(\S+?)@(?![^\s/?#]*@)")

_PAIR = re.compile(r"([?&;])([^\s=?&;#]+)=([^\s&;#]+)")

_KEY = (
    r"(?:[\w.-]*(?:passw(?:or)?d|passphrase|pwd|secret|token|signature|credential|"
    r"(?:api|access|account|private)[_-]?key)[\w.-]*|sig|pass|auth)"
)

_SECRET_KEY = re.compile(rf"(?i){_KEY}")

_SECRET_INSIDE = re.compile(rf"(?i)(?:^|[\s?&;,{{]){_KEY}\s*=")  # the value may be a whole connection string


def has_password(url: str) -> bool:
    """Whether a URL has a password, a key or a token, in its user's part or in its query."""
    return redacted(url) != url


def redacted(url: str) -> str:
    """A URL with `***` in place of its secrets. Never raises."""
    shown = _masked(url)
    # A password may contain spaces, at which the patterns would end the URL: replace them and mask again.
    whole = re.sub(r"\s", "%20", shown)
    masked = _masked(whole)
    return shown if masked == whole else masked


def quoted(text: str) -> str:
    """An invalid URL for a message; a placeholder where it may contain a password."""
    return "a text that may contain a password" if re.search(r":.*@|=", text, re.DOTALL) else repr(text)


def without_login(url: str) -> str:
    """An http URL without user name and password, for a browser, which asks for them itself."""
    return _HTTP.sub(lambda match: match[1], url)


def scrubbed(text: str) -> str:
    """A text without secrets, such as another library's error message.

    Masks passwords in URLs and the values of environment variables that hold secrets.
    """
    for name in _ENVIRONMENT:
        value = os.environ.get(name, "").strip()
        if len(value) >= _SHORTEST:
            text = text.replace(value, MASK)
    return _masked(text)


def _masked(text: str) -> str:
    text = _HTTP.sub(lambda match: f"{match[1]}{MASK}@", text)
    text = _OTHER.sub(lambda match: f"{match[1]}{MASK}@", text)
    return _PAIR.sub(_masked_value, text)


def _masked_value(match: "re.Match[str]") -> str:
    is_secret = _SECRET_KEY.fullmatch(_decoded(match[2])) or _SECRET_INSIDE.search(_decoded(match[3]))
    return f"{match[1]}{match[2]}={MASK}" if is_secret else match[0]


def _decoded(text: str) -> str:
    for _ in range(3):  # a query inside a query is encoded more than once
        text = unquote_plus(text)
    return text
