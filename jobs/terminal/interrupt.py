"""SIGINT and SIGTERM: prints how to resume, kills child processes, and leaves all files as they are."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable

import psutil

from m3col.runtime import exit_hooks

_CLEANUP_S = 4.0


def on_interrupt(message: Callable[[], str]) -> None:
    """Handles SIGINT and SIGTERM from now on. A second signal ends the process at once.

    The first one prints `message()`, runs exit hooks for at most 4 s, and ends the process with code 130 or 143.

    A thread does this, because a signal handler runs only when the main thread returns from library code.
    """
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    claim()
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(readable, message), name="interrupt", daemon=True).start()


def claim() -> None:
    """Installs empty handlers for both signals. Call it again after Ray has started, which installs its own."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: None)


def _wait(readable: int, message: Callable[[], str]) -> None:
    while True:
        number = os.read(readable, 1)[0]
        if number in (signal.SIGINT, signal.SIGTERM):
            break
    threading.Thread(target=_end_at_once, args=(readable,), daemon=True).start()
    with contextlib.suppress(OSError, ValueError):  # nobody may read the output any more
        _show_cursor()
        sys.stdout.write(f"\n{message()}\n")
        sys.stdout.flush()
    exit_hooks.run(_CLEANUP_S)
    end_children()
    # No orderly shutdown: it would wait for actors that are gone, and the record on disk needs none.
    os._exit(128 + number)


def _show_cursor() -> None:
    # The live table hides the cursor, and is not closed here.
    if sys.__stdout__ is not None and sys.__stdout__.isatty():
        sys.__stdout__.write("\x1b[?25h")
        sys.__stdout__.flush()


def _end_at_once(readable: int) -> None:
    number = os.read(readable, 1)[0]
    end_children()
    os._exit(128 + number)


def end_children() -> None:
    """Kills all child processes. Everything that a resume needs is on disk."""
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
