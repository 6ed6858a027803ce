"""Converts names to ones that MLflow accepts: of metrics, params, tags, experiments and runs.

MLflow accepts letters (of any script), digits, `_`, `-`, `.`, `:`, blanks and `/`, and at most 250 characters. A name
must be a normalized path (no `..`, no `//`). Names of modalities are arbitrary and are parts of such names.
"""

import hashlib
import posixpath
import re

_ACCEPTED = re.compile(r"[/\w.\- :]+")

_NOT_ACCEPTED = re.compile(r"[^/\w.\- :]")

_MARKED = re.compile(r".*-x[0-9a-f]{12}", re.DOTALL)  # the form of a converted name

_KEY_LENGTH, _RUN_LENGTH, _EXPERIMENT_LENGTH = 250, 250, 500


def key(name: str) -> str:
    """The name of a metric, param or tag in MLflow.

    A name that MLflow accepts is returned as it is. In another one `_` replaces characters that MLflow does not accept,
    and a hash of the original name follows, so that different names stay different.
    """
    if is_accepted(name) and not _MARKED.fullmatch(name):
        return name
    mark = f"-x{mark_of(name)}"
    parts = [part for part in _NOT_ACCEPTED.sub("_", name).split("/") if part.strip(".")]
    readable = "/".join(parts).lstrip(".")[: _KEY_LENGTH - len(mark)] or "name"
    return f"{readable}{mark}"


def is_accepted(name: str) -> bool:
    """Whether MLflow accepts a name for a metric, param or tag."""
    plain = posixpath.normpath(name)
    return (
        _ACCEPTED.fullmatch(name) is not None
        and len(name) <= _KEY_LENGTH
        and plain == name
        and not plain.startswith(("..", "/"))
        and plain != "."
    )


def mark_of(name: str) -> str:
    """The first twelve hexadecimal digits of the SHA-256 of a name."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def text(value: str) -> str:
    """Escapes NUL characters and lone surrogates, which databases reject.

    Surrogates come from file names that are not UTF-8.
    """
    return value.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def run(name: str) -> str:
    """The name of a run, shortened to the limit of MLflow's databases."""
    return _shortened(text(name), _RUN_LENGTH)


def experiment(name: str) -> str:
    """The name of an experiment for a data set, whose name may be empty, too long or not storable in a database."""
    plain = text(name)
    if plain != name or not plain:
        plain = f"{plain or 'experiment'}-x{mark_of(name)}"
    return _shortened(plain, _EXPERIMENT_LENGTH)


def folder(name: str) -> str:
    """A name for a folder or a part of a link: letters, digits, `.`, `_` and `-`, short enough for any file system."""
    plain = "".join(c if c.isalnum() or c in "._-" else "_" for c in name).lstrip(".") or "_"
    return plain if len(plain.encode()) <= 200 else f"{plain[:40]}-x{mark_of(name)}"


def _shortened(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 14]}-x{mark_of(name)}"
