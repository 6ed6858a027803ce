"""Errors for invalid input. All faults are reported together: one line each, with place, rule and value."""

import difflib
from collections.abc import Iterable, Sequence

from m3col.storage.redaction import scrubbed


class InputError(ValueError):
    """Invalid input. The message has one line per fault.

    Attributes:
        faults: the lines.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(map(one_line, faults))
        super().__init__("\n".join(self.faults))

    def __reduce__(self) -> tuple[type["InputError"], tuple[list[str]]]:
        return (type(self), (list(self.faults),))


def one_line(text: str) -> str:
    """`text` with unprintable characters, such as line breaks in a name, written as Python escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def reason_of(error: object, *, limit: int | None = 200) -> str:
    """The message of an error in one line, without passwords.

    Args:
        error: an exception, or a text.
        limit: the largest number of characters; None: no limit.

    Returns:
        The message with single blanks; the name of the exception's type where it has no message.

    Example:
        >>> reason_of(OSError("no space\\n   left"))
        'no space left'
    """
    text = scrubbed(" ".join(str(error).split()))
    return text[:limit] or type(error).__name__


def nearest(value: object, choices: Iterable[str]) -> str:
    """A hint for a message: `"; did you mean 'x'?"` for the closest of `choices`, or a list of all choices."""
    options = list(choices)
    close = difflib.get_close_matches(str(value), options, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; choose from {', '.join(sorted(options))}" if options else ""


class TrainingFailed(RuntimeError):
    """A training that cannot continue, because a loss or the watched metric is not finite. The message says where."""
