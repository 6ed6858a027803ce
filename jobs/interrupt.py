"""SIGINT and SIGTERM: everything stays as it is on disk, children end by pid, and the way to go on is printed."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

import psutil


def on_interrupt(message: Callable[[], str]) -> None:
    """From now on the first signal prints `message()` and ends the process with 130 or 143; a second one at once."""
    state = {"seen": False}

    def handle(number: int, frame: FrameType | None) -> None:
        code = 128 + number
        if state["seen"]:
            os._exit(code)
        state["seen"] = True
        end_children()
        sys.stdout.write(f"\n{message()}\n")
        sys.stdout.flush()
        # No orderly shutdown: it would wait for actors that are gone, and the record on disk needs none.
        os._exit(code)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)


def end_children() -> None:
    """Kills every process below this one. None of them holds anything that is not on disk."""
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
