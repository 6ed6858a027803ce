"""At most one driver per study, also across machines: a lock object with a heartbeat in the storage.

Object stores have no compare-and-swap that we could rely on. So a driver writes its token, waits until any other driver
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
    """The lock of one study. Methods raise OSError where the storage does not answer, unless they say otherwise.

    Args:
        folder: the study's folder in the storage.
        stale_s: seconds without a heartbeat after which a driver counts as dead, default 90.
        warn: called with a line while another driver is waited for.
    """

    def __init__(
        self, folder: object_store.Folder, *, stale_s: float = 90.0, warn: Callable[[str], None] = notices.warn
    ) -> None:
        self._folder, self._stale_s, self._warn = folder, stale_s, warn
        self._token = uuid.uuid4().hex
        self._beat = 0
        self._told = (0.0, 0.0)  # when the last heartbeat that arrived set out: by a steady clock, and by the wall's
        self._beating = threading.Lock()
        self._taken_by: str | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def claim(self) -> None:
        """Raises InputError where another driver is alive; waits until one that is silent counts as dead."""
        self._wait_for_end()
        try:
            self._write()
            time.sleep(min(_SETTLE_S, self._stale_s / 4))
            found = self._read()
        except BaseException:
            self._remove()  # nobody drives: a lock that stays would be waited for
            raise
        if found.get("token") != self._token:
            raise InputError([self._in_use(found)])
        self._thread = threading.Thread(target=self._keep, name="ownership", daemon=True)
        self._thread.start()

    def _in_use(self, found: dict[str, Any]) -> str:
        return f"{self._folder}: in use by {found.get('who', 'another driver')}; wait for it to end, or stop it"

    def _wait_for_end(self) -> None:
        first = self._read()
        if not first or _is_dead(first):
            return
        told = False
        while (age := self._age()) is not None and age < self._stale_s:
            if not told:
                told = True
                self._warn(
                    f"{self._folder}: {first.get('who', 'another driver')} was here {age:.0f} s ago; waiting up to "
                    f"{self._stale_s:.0f} s for a sign of life"
                )
            time.sleep(min(_POLL_S, self._stale_s / 8))
            found = self._read()
            if not found:
                return
            if found != first:
                raise InputError([self._in_use(found)])

    def _age(self) -> float | None:
        """Seconds since the last heartbeat; None where the lock is gone."""
        probe = f".clock-{self._token}"
        self._folder.write_text(probe, "")
        now, lock = self._folder.stat(probe), self._folder.stat(FILE)
        self._folder.remove(probe)
        return None if lock is None or now is None else now.time - lock.time

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._folder.read_text(FILE))
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self) -> None:
        self._beat += 1
        who = f"process {os.getpid()} on {socket.gethostname()}"
        now = (time.monotonic(), time.time())
        self._folder.write_text(FILE, json.dumps({"token": self._token, "who": who, "beat": self._beat, **_process()}))
        self._told = now

    def _silence(self) -> float:
        """Seconds since the last heartbeat. The steady clock stands still while a machine sleeps, the wall's may be set
        back."""
        steady, wall = self._told
        return max(time.monotonic() - steady, time.time() - wall)

    def _send_heartbeat(self, *, where_silent: bool = False) -> None:
        """Writes a heartbeat, unless another driver has the study. `where_silent`: only after two lost heartbeats."""
        with self._beating:
            was_silent = self._silence() > self._stale_s / 2
            if self._taken_by is not None or (where_silent and not was_silent):
                return
            found = self._read()
            # A lock that is gone after such a silence was another driver's, who has ended as well.
            if (found and found.get("token") != self._token) or (was_silent and not found):
                self._taken_by = str(found.get("who", "another driver"))
                return
            self._write()

    def _keep(self) -> None:
        while self._taken_by is None and not self._stop.wait(self._stale_s / 5):
            with contextlib.suppress(OSError):  # the next beat may arrive
                self._send_heartbeat()

    def check(self) -> None:
        """Reads the lock where heartbeats have failed to arrive.

        Raises:
            StudyTakenOver: another driver has the study now.
        """
        self._send_heartbeat(where_silent=True)
        if self._taken_by is not None:
            raise StudyTakenOver(
                f"{self._folder}: {self._taken_by} has gone on with this study, as this driver had been silent for "
                f"more than {self._stale_s:.0f} s; nothing is lost"
            )

    def release(self) -> None:
        """Gives the study free. Never raises: a lock that stays becomes stale."""
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
    """This process, so that others which see the same process numbers can tell whether it lives."""
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        machine += f" {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        machine = ""
    return {"machine": machine, "process": os.getpid()}


def _is_dead(found: dict[str, Any]) -> bool:
    """Whether the driver that wrote this ran here and has ended: its successor need not wait."""
    here = _process()["machine"]
    process = found.get("process")
    return bool(here) and found.get("machine") == here and isinstance(process, int) and not psutil.pid_exists(process)
