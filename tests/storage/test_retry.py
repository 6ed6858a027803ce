"""Writes that fail are tried again: with a real limit of file sizes, and without any real waiting elsewhere."""

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from m3col.storage.retry import RetryPolicy, StorageUnavailable

_CHILD = """
import sys, signal
from pathlib import Path
from m3col.storage import atomic_files
from m3col.storage.retry import RetryPolicy, StorageUnavailable
path = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
patience = RetryPolicy(float(sys.argv[2]), warn=lambda line: print("waiting", flush=True))
try:
    patience.call(lambda: atomic_files.write_text(path, "x" * 100_000))
    print("written", flush=True)
except StorageUnavailable as error:
    print("refused", error, flush=True)
"""


def _writer(path: Path, patience: float) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path), str(patience)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert _line(child) == "ready"
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()
    return child


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_a_disk_that_is_full_for_some_seconds_only_costs_time(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("old")
    child = _writer(tmp_path / "a.json", 60)
    assert _line(child) == "waiting"
    time.sleep(1.5)
    assert (tmp_path / "a.json").read_text() == "old" and child.poll() is None
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert _line(child) == "written"
    assert (tmp_path / "a.json").read_text() == "x" * 100_000
    assert child.wait(30) == 0 and [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_disk_that_stays_full_is_refused_when_the_patience_ends(tmp_path: Path) -> None:
    child = _writer(tmp_path / "a.json", 2)
    assert _line(child) == "waiting"
    start = time.monotonic()
    assert _line(child).startswith("refused the storage refused a write for 2 s ([Errno 27] File too large")
    assert 1 < time.monotonic() - start < 15
    assert child.wait(30) == 0 and list(tmp_path.iterdir()) == []


def test_a_path_below_a_regular_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told: list[str] = []
    with pytest.raises(StorageUnavailable, match="Not a directory"):
        RetryPolicy(0.5, warn=told.append).call(lambda: (tmp_path / "file" / "x").write_text(""))
    assert len(told) == 1
    with pytest.raises(StorageUnavailable, match="Not a directory"):
        RetryPolicy(0).call(lambda: (tmp_path / "file" / "x").write_text(""))


def test_other_errors_are_raised_at_once_and_after_a_failure_the_other_call_is_made() -> None:
    calls: list[str] = []

    def fail(kind: type[Exception]) -> None:
        calls.append("first")
        raise kind("no")

    with pytest.raises(ValueError, match="no"):
        RetryPolicy(60).call(lambda: fail(ValueError))
    assert calls == ["first"]

    def again() -> str:
        calls.append("again")
        if calls.count("again") < 3:
            raise KeyError("not yet")
        return "done"

    patience = RetryPolicy(60, warn=lambda line: None).also(KeyError)
    assert patience.call(lambda: fail(OSError), again=again) == "done"
    assert calls == ["first", "first", "again", "again", "again"]


def test_the_innermost_cause_is_told() -> None:
    def fail() -> None:
        try:
            raise OSError("disk I/O error")
        except OSError as error:
            raise RuntimeError("something around it") from error

    with pytest.raises(StorageUnavailable, match="disk I/O error"):
        RetryPolicy(0).also(RuntimeError).call(fail)
