"""Keeps passwords out of what we write: URLs in records and logs, and messages of other libraries.

A secret belongs into the environment or into a file of the user's (AWS_*, PGPASSWORD or ~/.pgpass,
MLFLOW_TRACKING_USERNAME and _PASSWORD, RAY_AUTH_TOKEN), where the libraries that need it find it by themselves.
"""

import os
import re
from urllib.parse import unquote_plus

MASK = "***"

_ENVIRONMENT = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD",
    "MYSQL_PWD", "RAY_AUTH_TOKEN",
)  # fmt: skip

_SHORTEST = 4  # a shorter value would take ordinary words out of a text


# With http the user's part ends at the first slash, and a name without a password is a token as a rule. SQLAlchemy,
# which reads database URLs, lets a password hold slashes; each is read as those that connect with it read it.
_HTTP = re.compile(r"(?i)\b(https?://)([^\s/?#]+)@")

_OTHER = re.compile(r"(?i)\b((?!https?:)\w[\w+.-]*://[^\s:/?#@]*:)(\S+?)@(?![^\s/?#]*@)")

_PAIR = re.compile(r"([?&;])([^\s=?&;#]+)=([^\s&;#]+)")

_KEY = (
    r"(?:[\w.-]*(?:passw(?:or)?d|passphrase|pwd|secret|token|signature|credential|"
    r"(?:api|access|account|private)[_-]?key)[\w.-]*|sig|pass|auth)"
)

_SECRET_KEY = re.compile(rf"(?i){_KEY}")

_SECRET_INSIDE = re.compile(rf"(?i)(?:^|[\s?&;,{{]){_KEY}\s*=")  # a query may hold a whole connection string


def has_password(url: str) -> bool:
    """Whether a URL carries a password, a key or a token, in its user's part or in its query."""
    return redacted(url) != url


def redacted(url: str) -> str:
    """The same URL with `***` for what is secret in it. Never raises."""
    shown = _without(url)
    # A password may hold spaces, which end a URL that stands in a text.
    whole = re.sub(r"\s", "%20", shown)
    masked = _without(whole)
    return shown if masked == whole else masked


def quoted(text: str) -> str:
    """What was given in place of a URL, for a message; where it may hold a password, it is not repeated."""
    return "a text in which a password may stand" if re.search(r":.*@|=", text, re.DOTALL) else repr(text)


def without_login(url: str) -> str:
    """An http address for a person's browser, which asks for name and password by itself."""
    return _HTTP.sub(lambda found: found[1], url)


def scrubbed(text: str) -> str:
    """A text, such as another library's error message, without passwords in URLs and without the values of the
    environment variables in which secrets are handed to us."""
    for name in _ENVIRONMENT:
        value = os.environ.get(name, "").strip()
        if len(value) >= _SHORTEST:
            text = text.replace(value, MASK)
    return _without(text)


def _without(text: str) -> str:
    text = _HTTP.sub(lambda found: f"{found[1]}{MASK}@", text)
    text = _OTHER.sub(lambda found: f"{found[1]}{MASK}@", text)
    return _PAIR.sub(_without_value, text)


def _without_value(found: "re.Match[str]") -> str:
    is_secret = _SECRET_KEY.fullmatch(_decoded(found[2])) or _SECRET_INSIDE.search(_decoded(found[3]))
    return f"{found[1]}{found[2]}={MASK}" if is_secret else found[0]


def _decoded(text: str) -> str:
    for _ in range(3):  # a query inside a query is encoded twice
        text = unquote_plus(text)
    return text
