"""Retries of failed writes for a limited time: a full disk may be emptied, a server may come back."""

from collections.abc import Callable
from typing import TypeVar

from m3col.errors import reason_of
from m3col.runtime import notices

T = TypeVar("T")


_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0


class StorageUnavailable(RuntimeError):
    """A write still failed when the time for retries was over."""


class RetryPolicy:
    """Calls functions, and retries for up to `seconds` where they raise one of `errors`.

    The functions must be repeatable: a failed call may have done its work in part or, if only the answer was lost, in
    full. `warn` is called with one line before the first retry.
    """

    def __init__(
        self, seconds: float, *, errors: tuple[type[Exception], ...] = (OSError,),
        warn: Callable[[str], None] = notices.warn,
    ) -> None:  # fmt: skip
        self.seconds, self.errors, self._warn = seconds, errors, warn

    def also(self, *errors: type[Exception]) -> "RetryPolicy":
        """The same policy, also for these errors."""
        return RetryPolicy(self.seconds, errors=(*self.errors, *errors), warn=self._warn)

    def call(self, function: Callable[[], T], *, again: Callable[[], T] | None = None) -> T:
        """Calls a function with retries.

        Args:
            function: the function.
            again: called instead of `function` in retries, where a retry must first check what the failed call did.

        Returns:
            What the function returned.

        Raises:
            StorageUnavailable: it still failed when the time was over.
            Exception: any error that is not in `errors`, at once.
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
    """The innermost cause in one short line; the outer errors say only that something failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    return reason_of(error, limit=400)
