"""Warnings: what whoever started a training or a search should hear, unless they asked for it in another way."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from m3col.storage.redaction import scrubbed

# A warning names the line of the caller's own code. Frames of these packages are passed over to find it.
_PASSED_OVER = ("m3col", "tune", "jobs", "threading", "concurrent", "contextlib", "functools", "tenacity", "ray")

_file: Path | None = None


def warn(line: str) -> None:
    """Warns by `warnings.warn`, as a UserWarning. Never raises, and tells the same line again when it comes again.

    May be called from any thread. Where warnings are turned into errors (`python -W error`), the line goes to the
    logger `m3col` instead: a warning must not end a search.
    """
    line = scrubbed(line)
    if _file is not None:
        with contextlib.suppress(OSError), _file.open("a", encoding="utf-8") as stream:  # the disk may be full
            stream.write(f"{' '.join(line.split())}\n")
        return
    place = _caller()
    module, number, name = ("m3col", 0, "m3col") if place is None else place
    try:
        # With a registry of its own: Python would show the same line from the same place once only.
        warnings.warn_explicit(line, UserWarning, module, number, module=name, registry={})
    except Exception:  # the UserWarning itself, or a stream that cannot be written
        logging.getLogger("m3col").warning(line)


@contextlib.contextmanager
def written_to(path: Path) -> Iterator[None]:
    """While it lasts, the warnings of this process go to the end of a file: nobody sees what it prints. `repeat_from`
    tells them elsewhere."""
    global _file
    before, _file = _file, path
    try:
        yield
    finally:
        _file = before


def repeat_from(path: Path) -> None:
    """Warns of what other processes wrote to that file, if anything, and removes it."""
    if path.exists():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        path.unlink()
        for line in lines:
            warn(line)


def _caller() -> tuple[str, int, str] | None:
    """File, line and module of the nearest frame outside our packages; None in a thread of our own."""
    for frame in _frames():
        name = str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] not in _PASSED_OVER:
            return frame.f_code.co_filename, frame.f_lineno, name
    return None


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        yield frame
        frame = frame.f_back
