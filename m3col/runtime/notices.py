"""Warnings to the user who started a training or a search."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from m3col.storage.redaction import scrubbed

# A warning names the line of the user's own code. Frames of these packages are skipped to find it.
_SKIPPED = ("m3col", "tune", "jobs", "threading", "concurrent", "contextlib", "functools", "tenacity", "ray")

_file: Path | None = None


def warn(line: str) -> None:
    """Emits a UserWarning. Never raises. Repeated lines are shown again each time.

    May be called from any thread. Where warnings are turned into errors (`python -W error`), the line goes to the
    logger `m3col` instead: a warning must not end a search.
    """
    line = scrubbed(line)
    if _file is not None:
        with contextlib.suppress(OSError), _file.open("a", encoding="utf-8") as stream:  # the disk may be full
            stream.write(f"{' '.join(line.split())}\n")
        return
    caller = _caller()
    module, number, name = ("m3col", 0, "m3col") if caller is None else caller
    try:
        # A fresh registry, because Python would otherwise show the same line from the same place only once.
        warnings.warn_explicit(line, UserWarning, module, number, module=name, registry={})
    except Exception:  # the UserWarning itself, or a stream that cannot be written
        logging.getLogger("m3col").warning(line)


@contextlib.contextmanager
def written_to(path: Path) -> Iterator[None]:
    """Appends the warnings of this process to a file for the time of the block, for processes whose output nobody sees.

    `repeat_from` emits them in another process.
    """
    global _file
    previous, _file = _file, path
    try:
        yield
    finally:
        _file = previous


def repeat_from(path: Path) -> None:
    """Emits the warnings that other processes wrote to a file, if it exists, and removes it."""
    if path.exists():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        path.unlink()
        for line in lines:
            warn(line)


def _caller() -> tuple[str, int, str] | None:
    """File, line and module of the nearest frame outside `_SKIPPED`; None in a thread without such a frame."""
    for frame in _frames():
        name = str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] not in _SKIPPED:
            return frame.f_code.co_filename, frame.f_lineno, name
    return None


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        yield frame
        frame = frame.f_back
