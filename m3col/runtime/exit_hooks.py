"""What is still to be done, within seconds, where a signal ends this process: it never returns from where it is."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

_waiting: list[Callable[[], None]] = []


@contextlib.contextmanager
def before_exit(function: Callable[[], None]) -> Iterator[None]:
    """While it lasts, `run` calls the function, from a thread of its own."""
    _waiting.append(function)
    try:
        yield
    finally:
        _waiting.remove(function)


def run(limit_s: float) -> None:
    """Calls what is registered, all at once, and returns when all have ended, or after `limit_s`. Never raises."""
    threads = [threading.Thread(target=_quietly, args=(function,), daemon=True) for function in list(_waiting)]
    until = time.monotonic() + limit_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))


def _quietly(function: Callable[[], None]) -> None:
    with contextlib.suppress(Exception):  # the process ends: there is nobody left to tell
        function()
