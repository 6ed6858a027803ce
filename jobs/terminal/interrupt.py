"""SIGINT and SIGTERM: everything stays as it is on disk, children end by pid, and the way to go on is printed."""

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
    """From now on the first signal prints `message()`, gives `cleanup` seconds, and ends the process with 130 or 143;
    a second one ends it at once.

    A thread does it: a handler would have to wait until the main thread comes back from whatever library it is in.
    """
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    claim()
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(readable, message), name="interrupt", daemon=True).start()


def claim() -> None:
    """Takes both signals (again): starting Ray puts handlers of its own in their place."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: None)


def _wait(readable: int, message: Callable[[], str]) -> None:
    while True:
        number = os.read(readable, 1)[0]
        if number in (signal.SIGINT, signal.SIGTERM):
            break
    threading.Thread(target=_end_at_once, args=(readable,), daemon=True).start()
    with contextlib.suppress(OSError, ValueError):  # whoever read it may be gone, and the process ends all the same
        _show_cursor()
        sys.stdout.write(f"\n{message()}\n")
        sys.stdout.flush()
    exit_hooks.run(_CLEANUP_S)
    end_children()
    # No orderly shutdown: it would wait for actors that are gone, and the record on disk needs none.
    os._exit(128 + number)


def _show_cursor() -> None:
    # The live table hides it, and is not asked to end.
    if sys.__stdout__ is not None and sys.__stdout__.isatty():
        sys.__stdout__.write("\x1b[?25h")
        sys.__stdout__.flush()


def _end_at_once(readable: int) -> None:
    number = os.read(readable, 1)[0]
    end_children()
    os._exit(128 + number)


def end_children() -> None:
    """Kills every process below this one. None of them holds anything that is not on disk."""
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
