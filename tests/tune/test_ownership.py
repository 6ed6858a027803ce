"""One driver at a time writes a study in a storage, over all machines."""

import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from m3col.errors import InputError
from m3col.storage import object_store
from tune.errors import StudyTakenOver
from tune.study.driver_lock import DriverLock


@pytest.mark.parametrize("method", ["write_text", "read_text"])
def test_a_claim_that_fails_leaves_no_lock(monkeypatch, s3, method):
    place, called = object_store.Folder(f"{s3}/study"), getattr(object_store.Folder, method)
    failed: list[str] = []

    def fail(folder: object_store.Folder, name: str, *rest: str) -> Any:
        found = called(folder, name, *rest)
        if not failed:
            failed.append(name)
            raise OSError("the answer was lost")
        return found

    with monkeypatch.context() as patched, pytest.raises(OSError, match="the answer was lost"):
        patched.setattr(object_store.Folder, method, fail)
        DriverLock(place, stale_s=2.0).claim()
    assert failed == ["driver.json"] and place.stat("driver.json") is None


def test_one_driver_at_a_time_over_machines(s3):
    place, told = object_store.Folder(f"{s3}/study"), []
    first = DriverLock(place, stale_s=4.0)
    first.claim()
    with pytest.raises(InputError, match="in use by process"):
        DriverLock(place, stale_s=4.0, warn=told.append).claim()
    assert "waiting up to 4 s for a sign of life" in told[0]
    first.check()
    first._stop.set()  # suspended, say
    second = DriverLock(place, stale_s=1.0)
    second.claim()
    first._stop.clear()
    first._keep()
    with pytest.raises(StudyTakenOver, match="has taken over this study"):
        first.check()
    first.release()
    assert place.stat("driver.json") is not None, "it belongs to the second now"
    second.release()
    assert place.stat("driver.json") is None


def test_of_two_that_begin_at_once_one_wins(s3):
    place, outcomes = object_store.Folder(f"{s3}/study"), []
    both = [DriverLock(place), DriverLock(place)]
    barrier = threading.Barrier(2)

    def begin(mine: DriverLock) -> None:
        barrier.wait()
        try:
            mine.claim()
            outcomes.append("won")
        except InputError:
            outcomes.append("refused")

    threads = [threading.Thread(target=begin, args=(mine,)) for mine in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused", "won"]
    for mine in both:
        mine.release()


def test_a_driver_that_died_on_this_machine_is_not_waited_for(s3):
    code = (
        "import sys, os; from m3col.storage.object_store import Folder; from tune.study.driver_lock import DriverLock\n"
        "DriverLock(Folder(sys.argv[1])).claim(); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, f"{s3}/study"], env=dict(os.environ), check=False)
    place = object_store.Folder(f"{s3}/study")
    assert place.stat("driver.json") is not None
    start = time.monotonic()
    mine = DriverLock(place)
    mine.claim()
    assert time.monotonic() - start < 10
    mine.release()


def test_a_driver_that_was_silent_looks_before_it_writes(s3):
    place = object_store.Folder(f"{s3}/study")
    first, second = DriverLock(place, stale_s=2.0), DriverLock(place, stale_s=2.0)
    first.claim()
    first._stop.set()  # suspended, say, and only its main thread is awake again
    time.sleep(1.1)
    before = first._read()["beat"]
    first.check()
    assert first._read()["beat"] > before, "nobody is there, and now it has said that it lives"
    second.claim()
    second.release()  # who has ended leaves no lock behind
    with pytest.raises(StudyTakenOver, match="another driver has taken over"):
        first.check()
    with pytest.raises(StudyTakenOver):
        first.check()
    first.release()
    assert place.stat("driver.json") is None


def test_a_lock_that_somebody_removed_is_written_again_while_the_driver_is_heard_of(s3):
    place = object_store.Folder(f"{s3}/study")
    mine = DriverLock(place, stale_s=4.0)
    mine.claim()
    place.remove("driver.json")
    mine._send_heartbeat()
    mine.check()
    assert mine._read()["token"] == mine._token
    mine.release()
