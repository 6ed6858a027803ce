"""At most one driver per study, also across machines: a lock object with a heartbeat in the storage.

Not every object store supports compare-and-swap. So a driver writes its token, waits until any other driver
that checked at the same time has written too, and reads back whose token is stored. Ages are differences of the
storage's own clock.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from m3col.errors import InputError
from m3col.runtime import notices
from m3col.storage import object_store
from tune.errors import StudyTakenOver

FILE = "driver.json"

_SETTLE_S = 1.0

_POLL_S = 2.0


class DriverLock:
    """The lock of one study. Methods raise OSError if the storage fails, unless they say otherwise.

    Args:
        folder: the study's folder in the storage.
        stale_s: seconds without a heartbeat after which a driver counts as dead, default 90.
        warn: called with a line before waiting for another driver.
    """

    def __init__(
        self, folder: object_store.Folder, *, stale_s: float = 90.0, warn: Callable[[str], None] = notices.warn
    ) -> None:
        self._folder, self._stale_s, self._warn = folder, stale_s, warn
        self._token = uuid.uuid4().hex
        self._beat = 0
        self._last_heartbeat = (0.0, 0.0)  # when the last successful heartbeat was sent: (monotonic, wall clock)
        self._beating = threading.Lock()
        self._taken_by: str | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def claim(self) -> None:
        """Acquires the lock, if need be once a silent driver counts as dead. Raises InputError if one is alive."""
        self._wait_for_end()
        try:
            self._write()
            time.sleep(min(_SETTLE_S, self._stale_s / 4))
            lock = self._read()
        except BaseException:
            self._remove()  # else the next driver would have to wait until the lock is stale
            raise
        if lock.get("token") != self._token:
            raise InputError([self._in_use(lock)])
        self._thread = threading.Thread(target=self._keep, name="ownership", daemon=True)
        self._thread.start()

    def _in_use(self, lock: dict[str, Any]) -> str:
        return f"{self._folder}: in use by {lock.get('who', 'another driver')}; wait for it to end, or stop it"

    def _wait_for_end(self) -> None:
        """Returns once no other driver has a fresh lock. Raises InputError if one sends a heartbeat."""
        first = self._read()
        if not first or _is_dead(first):
            return
        has_warned = False
        while (age := self._age()) is not None and age < self._stale_s:
            if not has_warned:
                has_warned = True
                self._warn(
                    f"{self._folder}: {first.get('who', 'another driver')} was here {age:.0f} s ago; waiting up to "
                    f"{self._stale_s:.0f} s for a sign of life"
                )
            time.sleep(min(_POLL_S, self._stale_s / 8))
            lock = self._read()
            if not lock:
                return
            if lock != first:
                raise InputError([self._in_use(lock)])

    def _age(self) -> float | None:
        """Seconds since the last heartbeat in the storage; None if there is no lock."""
        probe = f".clock-{self._token}"
        self._folder.write_text(probe, "")
        now, lock = self._folder.stat(probe), self._folder.stat(FILE)
        self._folder.remove(probe)
        return None if lock is None or now is None else now.time - lock.time

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self._folder.read_text(FILE))
        except (FileNotFoundError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _write(self) -> None:
        self._beat += 1
        who = f"process {os.getpid()} on {socket.gethostname()}"
        now = (time.monotonic(), time.time())
        self._folder.write_text(FILE, json.dumps({"token": self._token, "who": who, "beat": self._beat, **_process()}))
        self._last_heartbeat = now

    def _silence(self) -> float:
        """Seconds since this driver's last heartbeat, by the clock that says more.

        The monotonic clock stops while a machine is suspended; the wall clock may be set back.
        """
        monotonic, wall = self._last_heartbeat
        return max(time.monotonic() - monotonic, time.time() - wall)

    def _send_heartbeat(self, *, where_silent: bool = False) -> None:
        """Writes a heartbeat, unless another driver has the lock. `where_silent`: only if heartbeats were lost."""
        with self._beating:
            was_silent = self._silence() > self._stale_s / 2
            if self._taken_by is not None or (where_silent and not was_silent):
                return
            lock = self._read()
            # A missing lock after such a silence means that another driver took it over and has ended.
            if (lock and lock.get("token") != self._token) or (was_silent and not lock):
                self._taken_by = str(lock.get("who", "another driver"))
                return
            self._write()

    def _keep(self) -> None:
        while self._taken_by is None and not self._stop.wait(self._stale_s / 5):
            with contextlib.suppress(OSError):  # the next heartbeat may succeed
                self._send_heartbeat()

    def check(self) -> None:
        """Checks that this driver still has the lock. Reads it only if heartbeats were lost.

        Raises:
            StudyTakenOver: another driver has the study now.
        """
        self._send_heartbeat(where_silent=True)
        if self._taken_by is not None:
            raise StudyTakenOver(
                f"{self._folder}: {self._taken_by} has taken over this study, because this driver was silent for "
                f"more than {self._stale_s:.0f} s; nothing is lost"
            )

    def release(self) -> None:
        """Releases the lock. Never raises: a lock that could not be removed becomes stale."""
        self._stop.set()
        if self._thread is None:
            return
        self._thread.join(self._stale_s)
        self._thread = None
        self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            if self._read().get("token") == self._token:
                self._folder.remove(FILE)


def _process() -> dict[str, Any]:
    """Describes this process, so that others on the same machine can check whether it is alive."""
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        machine += f" {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        machine = ""
    return {"machine": machine, "process": os.getpid()}


def _is_dead(lock: dict[str, Any]) -> bool:
    """Whether the driver that wrote the lock ran on this machine and has ended, so that nobody need wait."""
    here = _process()["machine"]
    process = lock.get("process")
    return bool(here) and lock.get("machine") == here and isinstance(process, int) and not psutil.pid_exists(process)
