"""Makes standard output and error accept every line, for any terminal, locale or pipe."""

import codecs
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_HANDLER = "m3col.plain"

# Replacements for common characters of tables and messages; all others become backslash escapes.
_PLAIN = {
    "−": "-", "–": "-", "—": "-", "‑": "-", "…": "...", "→": "->", "←": "<-", "×": "x", "±": "+/-", "≤": "<=",
    "≥": ">=", "≠": "!=", "·": ".", "•": "*", "‘": "'", "’": "'", "“": '"', "”": '"', "°": " deg", "µ": "u",
    "\N{NO-BREAK SPACE}": " ", "─": "-", "━": "-", "│": "|", "┃": "|", "█": "#", "✓": "ok",
}  # fmt: skip


def _as_plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode("ascii") for c in wrong), error.end


def settle() -> None:
    """Makes standard output and error accept every line. Characters that the encoding lacks are written in ASCII;
    writing to a closed stream does nothing."""
    # Otherwise the next opened file would get the number of a closed stream, and the output meant for it.
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    codecs.register_error(_HANDLER, _as_plain)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or stream.closed:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process lasts
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_HANDLER)


def flush() -> None:
    """Writes the buffer of standard output. Raises OSError if that fails, and drops the buffer."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop(sys.stdout)
        raise


def _drop(stream: TextIO) -> None:
    """Points the stream at the null device. Otherwise Python would flush it at exit and fail with a traceback."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class _Lasting:
    """A stream that ignores failed writes. Its log may be on a full disk, and a search that waits for that disk must
    not end because it cannot print."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting(*names: str) -> Iterator[None]:
    """Within this context, failed writes to these streams (`stdout`, `stderr`) are ignored."""
    before = {name: getattr(sys, name) for name in names}
    for name, stream in before.items():
        setattr(sys, name, _Lasting(stream))
    try:
        yield
    finally:
        for name, stream in before.items():
            setattr(sys, name, stream)
            try:
                stream.flush()
            except (OSError, ValueError):
                _drop(stream)


def lasting_output() -> contextlib.AbstractContextManager[None]:
    """`lasting` for both streams: for commands whose results are in files."""
    return lasting("stdout", "stderr")
