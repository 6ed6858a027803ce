"""Writes that fail are tried again for a while: a full disk may be emptied, a server may come back."""

from collections.abc import Callable
from typing import TypeVar

from m3col.errors import reason_of
from m3col.runtime import notices

T = TypeVar("T")


_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0


class StorageUnavailable(RuntimeError):
    """A storage refused a write for longer than the patience lasts."""


class RetryPolicy:
    """Calls functions, and calls them again for up to `seconds` where they raise one of `errors`.

    What is called must be repeatable: a call that failed may have done its work in part or, where only the answer was
    lost, in full. `warn` gets a line when waiting begins.
    """

    def __init__(
        self, seconds: float, *, errors: tuple[type[Exception], ...] = (OSError,),
        warn: Callable[[str], None] = notices.warn,
    ) -> None:  # fmt: skip
        self.seconds, self.errors, self._warn = seconds, errors, warn

    def also(self, *errors: type[Exception]) -> "RetryPolicy":
        """The same patience with further errors."""
        return RetryPolicy(self.seconds, errors=(*self.errors, *errors), warn=self._warn)

    def call(self, function: Callable[[], T], *, again: Callable[[], T] | None = None) -> T:
        """What `function` returns. `again` is called instead of it after a failure, where the repetition must first
        look what the failed call has done.

        Raises StorageRefused when the patience is used up; any other error at once.
        """
        try:
            return function()
        except self.errors as error:
            first = error
        if self.seconds <= 0:
            raise StorageUnavailable(f"the storage refused a write ({_reason(first)})") from first
        self._warn(f"the storage refuses a write ({_reason(first)}); tried again for up to {self.seconds:g} s")
        import tenacity  # only where something failed

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_delay(self.seconds),
            wait=tenacity.wait_exponential(multiplier=_FIRST_PAUSE_S, max=min(_LONGEST_PAUSE_S, self.seconds / 4)),
            retry=tenacity.retry_if_exception_type(self.errors),
            reraise=True,
        )
        try:
            return retrying(again or function)
        except self.errors as error:
            raise StorageUnavailable(
                f"the storage refused a write for {self.seconds:g} s ({_reason(error)}); nothing that was finished is "
                "lost"
            ) from error


def _reason(error: BaseException) -> str:
    """The innermost cause, in one short line: what lies around it says only that something failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    return reason_of(error, limit=400)
