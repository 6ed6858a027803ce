"""Hooks that are called when a signal ends this process, within seconds: the interrupted code never continues."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

_waiting: list[Callable[[], None]] = []


@contextlib.contextmanager
def before_exit(function: Callable[[], None]) -> Iterator[None]:
    """Registers a function for the time of the block: `run` then calls it in a thread of its own."""
    _waiting.append(function)
    try:
        yield
    finally:
        _waiting.remove(function)


def run(limit_s: float) -> None:
    """Calls all registered functions in parallel. Returns when all have ended, or after `limit_s`. Never raises."""
    threads = [threading.Thread(target=_quietly, args=(function,), daemon=True) for function in list(_waiting)]
    until = time.monotonic() + limit_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))


def _quietly(function: Callable[[], None]) -> None:
    with contextlib.suppress(Exception):  # the process ends: nobody can handle an error
        function()
