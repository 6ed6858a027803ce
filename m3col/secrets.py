"""Keeps passwords out of what we write: URLs in records and logs, and messages of other libraries.

A secret belongs into the environment or into a file of the user's (AWS_*, PGPASSWORD or ~/.pgpass,
MLFLOW_TRACKING_USERNAME and _PASSWORD, RAY_AUTH_TOKEN), where the libraries that need it find it by themselves.
"""

import os
import re

MASK = "***"
_ENVIRONMENT = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD",
    "MYSQL_PWD", "RAY_AUTH_TOKEN",
)  # fmt: skip
_SHORTEST = 4  # a shorter value would take ordinary words out of a text

# With http the user's part ends at the first slash, and a name without a password is a token as a rule. SQLAlchemy,
# which reads database URLs, lets a password hold slashes; each is read as those that connect with it read it.
_HTTP = re.compile(r"(?i)\b(https?://)([^\s/?#]+)@")
_OTHER = re.compile(r"(?i)\b((?!https?:)[a-z][a-z0-9+.-]*://[^\s:/?#@]*:)(\S+?)@(?![^\s/?#]*@)")
_QUERY = re.compile(
    r"(?i)([?&;](?:[\w.-]*(?:passw(?:or)?d|pwd|secret|token|signature|credential|api[_-]?key|access[_-]?key)[\w.-]*|sig)=)"
    r"([^\s&;#]+)"
)


def has_password(url: str) -> bool:
    """Whether a URL carries a password, a key or a token, in its user's part or in its query."""
    return _without(url) != url


def redacted(url: str) -> str:
    """The same with `***` for what is secret in it; also for a text that holds several URLs. Never raises."""
    return _without(url)


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
    return _QUERY.sub(lambda found: f"{found[1]}{MASK}", text)
