"""A thread that writes a checkpoint while the training continues."""

import threading
from collections.abc import Callable


class BackgroundWrite:
    """Runs one write at a time in a thread. An interpreter that exits waits for the thread."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def is_running(self) -> bool:
        """Whether a write is under way."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, write: Callable[[], object]) -> None:
        """Starts a write. Waits for the one before, and raises its error: then nothing is started."""
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(write,), name="checkpoint")
        self._thread.start()

    def _run(self, write: Callable[[], object]) -> None:
        try:
            write()
        except BaseException as error:  # raised by the next `check` or `wait`
            self._error = error

    def check(self) -> None:
        """Raises the error of a write that has ended, once. Does not wait."""
        if not self.is_running:
            self.wait()

    def wait(self) -> None:
        """Waits until no write is under way. Raises its error, once. May be called from several threads."""
        thread = self._thread
        if thread is not None:
            thread.join()
            self._thread = None if self._thread is thread else self._thread
        error, self._error = self._error, None
        if error is not None:
            raise error
