"""`m3col ui` with a real server: a link that lands on the runs, and nothing left running after Ctrl-C."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from jobs.terminal import mlflow_ui
from m3col.errors import InputError
from m3col.tracking import mlflow_store
from tests.support.servers import free_port
from tests.support.sockets import LOOPBACK, listening

SERVE = "import sys; from pathlib import Path; from jobs.terminal.mlflow_ui import serve; " + (
    "sys.exit(serve(Path(sys.argv[1]), uri=None, port=int(sys.argv[2]), open_browser=False, "
    "say=lambda line: print(line, flush=True)))"
)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_it_serves_the_runs_prints_their_link_and_ends_with_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = mlflow_store.connect(None, tmp_path)
    assert tracker is not None
    experiment = tracker.experiment("rosmap")
    tracker.tag_experiment(experiment, {mlflow_store.LATEST_VIEW: "m3col-rosmap-1"})
    port = free_port()
    command = [sys.executable, "-c", SERVE, str(tmp_path), str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(mlflow_ui.__file__).parents[1]
    ) as process:
        try:
            assert process.stdout is not None
            link = process.stdout.readline().strip()
            assert link == mlflow_store.link(f"http://127.0.0.1:{port}", experiment, "m3col-rosmap-1")
            address = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get-by-name?experiment_name=rosmap"
            with urllib.request.urlopen(address, timeout=30) as answer:
                assert json.load(answer)["experiment"]["experiment_id"] == experiment
            addresses = set().union(*listening(process.pid).values())
            assert addresses and addresses <= LOOPBACK
            # Everybody on the machine can read arguments, and the URL of a store may hold a password.
            words = [word for other in psutil.Process(process.pid).children(recursive=True) for word in other.cmdline()]
            assert "server" in words and not any("mlflow.db" in word for word in words)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert not _listens(port)


def test_a_taken_port_is_bad_input_that_names_a_free_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SimpleNamespace(uri="sqlite:///x.db", landing=lambda: None)
    monkeypatch.setattr(mlflow_store, "connect", lambda uri, runs: store)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with pytest.raises(InputError, match=r"--port \d+: in use .*such as \d+") as caught:
            mlflow_ui.serve(tmp_path, uri=None, port=holder.getsockname()[1], open_browser=False)
    assert not _listens(int(re.findall(r"\d+", str(caught.value))[-1]))


def test_a_server_that_is_there_already_is_only_linked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SimpleNamespace(uri="https://mlflow.example.org/", landing=lambda: ("7", None))
    opened, lines = list[str](), list[str]()
    monkeypatch.setattr(mlflow_store, "connect", lambda uri, runs: store)
    monkeypatch.setattr(mlflow_ui.webbrowser, "open", opened.append)
    code = mlflow_ui.serve(tmp_path, uri=store.uri, port=5000, open_browser=True, say=lines.append)
    link = "https://mlflow.example.org/#/experiments/7/runs?workflowType=machine_learning"
    assert (code, opened, lines) == (0, [link], [link])


def test_tracking_that_is_off_has_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to show"):
        mlflow_ui.serve(tmp_path, uri="none", port=5000, open_browser=False)
