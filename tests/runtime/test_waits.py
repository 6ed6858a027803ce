"""What waits for another process or machine gives up in time, and says for what it waited."""

import ast
import asyncio
import fcntl
import http.server
import importlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest

from jobs.cluster import client as clusters
from m3col import pretrained
from m3col.data import download as data_download
from m3col.data.columns import MediaColumn
from m3col.data.images import cache
from m3col.errors import InputError
from m3col.storage import atomic_files
from m3col.tracking import connection


@contextmanager
def held(path: Path, *, then: str = "time.sleep(60)") -> Iterator[int]:
    """Another process has the lock on a file; its process id."""
    code = f"import fcntl, sys, time\nf = open(sys.argv[1], 'w')\nfcntl.flock(f, 2)\nprint('held', flush=True)\n{then}"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"held\n"
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# The lock of a table in the cache


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MediaColumn:
    monkeypatch.setenv("M3COL_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "_POLL_S", 0.1)
    monkeypatch.setattr(cache, "_STALL_S", 0.5)
    return MediaColumn("text", np.array(["one", "two"], dtype=object), np.arange(2))


def encode(records: MediaColumn) -> Any:
    return cache.encoded(records, lambda some: [np.array([len(text)], np.int32) for text in some], settings="x")


def lock_of(texts: MediaColumn) -> Path:
    return cache._path("text", ["x"], cache.content_digests(texts)).with_suffix(".lock")


def test_a_table_that_a_stopped_process_began_is_not_waited_for(texts):
    lock = lock_of(texts)
    with held(lock) as pid, pytest.raises(InputError) as caught:
        encode(texts)
    (line,) = caught.value.faults
    assert line.startswith(f"{lock}: process {pid} (") and "has written nothing for 0.5 s" in line
    assert "M3COL_CACHE" in line and "data.cache=false" in line
    assert encode(texts).lengths().tolist() == [1, 1]  # the lock is free again


def test_a_table_that_another_process_writes_is_waited_for(texts):
    lock = lock_of(texts)
    grows = (
        "for size in range(12):\n"
        "    open(sys.argv[1].removesuffix('lock') + 'part', 'ab').write(b'x')\n"
        "    time.sleep(0.15)"
    )
    start = time.monotonic()
    with held(lock, then=grows):
        assert encode(texts).lengths().tolist() == [1, 1]
    assert time.monotonic() - start > 1  # longer than a process that writes nothing has


def test_who_holds_a_lock(tmp_path):
    path = tmp_path / "lock"
    assert atomic_files.holder(path) == ""
    with held(path) as pid:
        assert atomic_files.holder(path).startswith(f"process {pid} (")
    assert atomic_files.holder(path) == ""
    with path.open("w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert atomic_files.holder(path).startswith(f"process {os.getpid()} (")


# Downloads from the hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_HUB_CACHE", "HF_XET_CACHE"):
        monkeypatch.setattr(pretrained.constants, name, str(tmp_path / name))
    monkeypatch.setattr(pretrained, "_POLL_S", 0.1)
    monkeypatch.setattr(pretrained, "_STILL_S", 0.4)
    monkeypatch.setattr(pretrained, "_listed", lambda name: ["config.json", "model.safetensors"])
    return tmp_path / "HF_HUB_CACHE"


def test_a_download_that_stands_still_is_given_up(hub, monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *names, **named: ended.wait(30))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *names, **named: ended.wait(30))
    assert pretrained._fetch("a/b", ["config"]) == "the download failed (nothing came for 0.4 s)"
    assert pretrained._fetch_file("a/b", ["model.safetensors"]) == "the download failed (nothing came for 0.4 s)"
    ended.set()


def test_a_download_behind_the_lock_of_a_stopped_process_names_it(hub, monkeypatch):
    locks = hub / ".locks" / "models--a--b"
    locks.mkdir(parents=True)
    ended = threading.Event()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *names, **named: ended.wait(30))
    with held(locks / "x.lock") as pid:
        reason = pretrained._fetch("a/b", ["config"])
    ended.set()
    assert isinstance(reason, str) and f"nothing came for 0.4 s; locked: x.lock by process {pid} (" in reason


def test_a_slow_download_is_waited_for(hub, monkeypatch):
    def download(*names: str, **named: Any) -> str:
        folder = hub / "models--a--b" / "blobs"
        folder.mkdir(parents=True)
        for _ in range(8):
            time.sleep(0.15)
            with (folder / "x.incomplete").open("ab") as stream:
                stream.write(b"x")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert pretrained._fetch("a/b", ["config"]) == hub / "models--a--b" / "blobs"


# Files of a data set


class _Drip(http.server.BaseHTTPRequestHandler):
    """A body that never ends, a byte at a time."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"1")
                time.sleep(0.05)
        except OSError:
            return

    def log_message(self, *words: Any) -> None:
        """Nothing."""


def test_a_file_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(data_download, "WHOLE_S", 0.3)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Drip) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with pytest.raises(data_download.FetchError, match=r"could not be reached \(not through after 0.3 s\)"):
            data_download._download(f"http://127.0.0.1:{server.server_port}/x.csv")
        server.shutdown()


# The log of a job


class _Client:
    """A cluster whose log says one thing and is silent then. `states`: what it says of the job, one after the other."""

    def __init__(self, *states: str | None) -> None:
        self._states = list(states)

    async def tail_job_logs(self, id: str):
        yield "first\n"
        await asyncio.sleep(60)

    def get_job_status(self, id: str) -> SimpleNamespace:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        if state is None:
            raise ConnectionError("no route to host")
        return SimpleNamespace(value=state)

    def get_job_logs(self, id: str) -> str:
        return "first\nlast\n"


@pytest.fixture
def follow(monkeypatch):
    for name, seconds in {"_SILENT_S": 0.1, "_LOST_S": 0.5, "_POLL_S": 0.05}.items():
        monkeypatch.setattr(clusters, name, seconds)

    def called(*states: str | None) -> tuple[str, str]:
        written: list[str] = []
        state = clusters.Cluster(_Client(*states), "http://head:8265").follow("id", written.append)
        return state, "".join(written)

    return called


@pytest.mark.parametrize("states", [["SUCCEEDED"], ["RUNNING"] * 9 + ["FAILED"], ["RUNNING", None, "STOPPED"]])
def test_a_silent_log_ends_with_its_job(follow, states):
    assert follow(*states) == (states[-1], "first\nlast\n")


@pytest.mark.parametrize("states", [[None], ["RUNNING", None], ["RUNNING"] * 9 + [None]])
def test_a_silent_log_of_a_cluster_that_is_gone_is_given_up(follow, states):
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r"http://head:8265 answers no more \(no route to host\)"):
        follow(*states)
    assert time.monotonic() - start < 8


# MLflow


def test_a_store_that_is_not_there_in_time_is_told():
    ended = threading.Event()
    with pytest.raises(InputError, match=r"the MLflow store cannot be reached \(no answer within 0\.2 s\)"):
        connection.within(0.2, lambda: ended.wait(30) and None, store="sqlite:////runs/mlflow.db")
    ended.set()


# The page that lists them

_NAMED = re.compile(r"`([\w/]+)\.py (\w+) = (.+?)`")
_PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("module", "name", "value"), sorted(set(_NAMED.findall(_PAGE))))
def test_the_page_of_limits_says_what_the_code_does(module, name, value):
    assert getattr(importlib.import_module(module.replace("/", ".")), name) == ast.literal_eval(value)


def test_the_page_of_limits_is_read():
    assert len(_NAMED.findall(_PAGE)) > 20
