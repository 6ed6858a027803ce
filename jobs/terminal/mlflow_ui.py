"""`m3col ui`: starts MLflow's web pages on the store of the runs and opens the experiment that was used last."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from m3col.errors import InputError
from m3col.storage.redaction import without_login
from m3col.tracking import mlflow_store

HOST = "127.0.0.1"

_START_S = 180.0  # 5 s on an idle machine

_END_S = 10.0

_LOG = "mlflow-server.log"

# Without server-side jobs and with one worker: 0.5 GB instead of 2.3.
_ENVIRONMENT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def serve(runs: Path, *, uri: str | None, port: int, open_browser: bool, say: Callable[[str], None] = print) -> int:
    """Shows the store of a runs folder until Ctrl-C; for a store that is a server, only prints the link.

    Returns the exit code. Raises InputError if the store cannot be reached or the port is in use.
    """
    tracker = mlflow_store.connect(uri, runs)
    if tracker is None:
        raise InputError(["--tracking-uri none: there is nothing to show"])
    landing = tracker.landing()
    if tracker.uri.startswith(("http://", "https://")):
        _show(without_login(tracker.uri), landing, open_browser=open_browser, say=say)
        return 0
    if _taken(port):
        raise InputError([f"--port {port}: in use on {HOST}; choose another, such as {_free_port()}"])
    base = f"http://{HOST}:{port}"
    with _interrupts() as stopped:
        server = _start(tracker.uri, runs, port)
        try:
            if not _answers(base, server, stopped):
                if stopped.is_set():
                    return 0
                say(f"MLflow's server did not start within {_START_S:.0f} s; its log: {runs / _LOG}")
                return 1
            _show(base, landing, open_browser=open_browser, say=say)
            say("Ctrl-C ends it")
            while not stopped.wait(0.5):
                if server.poll() is not None:
                    say(f"MLflow's server ended by itself; its log: {runs / _LOG}")
                    return 1
            return 0
        finally:
            _end(server)


def _show(base: str, landing: tuple[str, str | None] | None, *, open_browser: bool, say: Callable[[str], None]) -> None:
    link = base if landing is None else mlflow_store.link(base, *landing)
    if landing is None:
        say("Nothing is tracked there yet; m3col search fills it")
    say(link)
    if open_browser:
        webbrowser.open(link)


def _start(uri: str, runs: Path, port: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1",
               "--artifacts-destination", (runs.absolute() / "mlartifacts").as_uri()]  # fmt: skip
    # Not as an argument: everybody on the machine can read those, and a database's URL may hold a password.
    store = {"MLFLOW_BACKEND_STORE_URI": uri}
    # A session of its own: Ctrl-C in the terminal reaches only this process, which ends the server.
    return subprocess.Popen(
        command, env=os.environ | _ENVIRONMENT | store, cwd=runs, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=(runs / _LOG).open("wb"),
    )  # fmt: skip


def _answers(base: str, server: "subprocess.Popen[bytes]", stopped: threading.Event) -> bool:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and server.poll() is None and not stopped.is_set():
        try:
            with urllib.request.urlopen(f"{base}/health", timeout=2) as answer:
                if answer.status == 200:
                    return True
        except OSError:
            stopped.wait(0.2)
    return False


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Yields an event that SIGINT and SIGTERM set. Restores the previous handlers at the end."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal(server: "subprocess.Popen[bytes]", number: int) -> None:
    # Its whole session: the server is a supervisor with a worker.
    with suppress(ProcessLookupError):
        os.killpg(server.pid, number)


def _end(server: "subprocess.Popen[bytes]") -> None:
    _signal(server, signal.SIGTERM)
    try:
        server.wait(_END_S)
    except subprocess.TimeoutExpired:
        _signal(server, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # it may hang in the kernel, on a lost disk
            server.wait(_END_S)


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
