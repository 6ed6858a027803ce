"""Time limit for a call that may hang, such as a host name look-up, which ignores the timeouts of requests."""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> T:
    """Calls a function in a daemon thread and waits for it.

    A call that takes longer is abandoned: its thread continues, and ends with the process at the latest.

    Args:
        seconds: the longest wait.
        call: the function.

    Returns:
        What the function returned.

    Raises:
        TimeoutError: the function did not end in time.
        Exception: whatever the function raised.

    Example:
        >>> within(5.0, lambda: 6 * 7)
        42
    """
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:  # handed to the caller
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return results[0]
