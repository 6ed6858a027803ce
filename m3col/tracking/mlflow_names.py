"""Names as MLflow takes them: of metrics, params and tags, of experiments and of runs.

MLflow takes letters (of any script), digits, `_`, `-`, `.`, `:`, blanks and `/`, in names that are a path without
detours, and 250 characters at most. A modality may be called anything, and its name is a part of such names.
"""

import hashlib
import posixpath
import re

_TAKEN = re.compile(r"[/\w.\- :]+")

_NOT_TAKEN = re.compile(r"[^/\w.\- :]")

_MARKED = re.compile(r".*-x[0-9a-f]{12}", re.DOTALL)  # the form of a name that was changed

_KEY_LENGTH, _RUN_LENGTH, _EXPERIMENT_LENGTH = 250, 250, 500


def key(name: str) -> str:
    """The name of a metric, param or tag in MLflow: the same where MLflow takes it, else one with `_` in place of
    what it does not take and a mark made of the whole name, so that two names stay two."""
    if is_taken(name) and not _MARKED.fullmatch(name):
        return name
    mark = f"-x{mark_of(name)}"
    parts = [part for part in _NOT_TAKEN.sub("_", name).split("/") if part.strip(".")]
    readable = "/".join(parts).lstrip(".")[: _KEY_LENGTH - len(mark)] or "name"
    return f"{readable}{mark}"


def is_taken(name: str) -> bool:
    """Whether MLflow takes a name as that of a metric, param or tag."""
    plain = posixpath.normpath(name)
    return (
        _TAKEN.fullmatch(name) is not None
        and len(name) <= _KEY_LENGTH
        and plain == name
        and not plain.startswith(("..", "/"))
        and plain != "."
    )


def mark_of(name: str) -> str:
    """Twelve characters that stand for a name."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def text(value: str) -> str:
    """A value that every database takes: without NUL and without halves of characters, as of file names that are not
    UTF-8."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def run(name: str) -> str:
    """The name of a run, no longer than MLflow's databases take it."""
    return _shortened(text(name), _RUN_LENGTH)


def experiment(name: str) -> str:
    """The name of an experiment, also where that of a data set is empty, too long or no text that a database takes."""
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
