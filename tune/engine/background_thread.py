"""Repeats a call in a background thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(call: Callable[[], object], *, every_s: float, name: str) -> Iterator[None]:
    """Context manager: a thread makes `call` every `every_s` seconds, and once more at the end.

    An exception of the call stops the thread and is raised at the end of the block.
    """
    ended = threading.Event()
    raised: list[BaseException] = []

    def repeat() -> None:
        last = False
        while not last and not raised:
            last = ended.wait(every_s)
            try:
                call()
            except BaseException as error:
                raised.append(error)

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if raised:
        raise raised[0]
