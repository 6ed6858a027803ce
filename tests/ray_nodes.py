"""Real Ray nodes for tests: a head with its dashboard and further nodes, in token mode, ended by their process ids."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from tests.servers import free_port

_START_S = 120.0
_BIN = Path(sys.executable).parent


class Nodes:
    """A cluster on this machine. Its files lie in a short path of its own: Ray's sockets need that."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rn", dir="/tmp"))
        self.token = self.folder / "token"
        self.token.write_text(secrets.token_hex(16))
        self.port, dashboard = free_port(), free_port()
        self.address = f"http://127.0.0.1:{dashboard}"
        self._dashboard = dashboard
        self._processes: list[subprocess.Popen[bytes]] = []
        self.cpus: list[int] = []

    def environment(self, **more: str) -> dict[str, str]:
        """That of a process which may use the cluster."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        ours = {"RAY_AUTH_TOKEN_PATH": str(self.token), "RAY_USAGE_STATS_ENABLED": "0"}
        # `python` on the nodes is to be this one, as after activating a virtual environment.
        return {**kept, **ours, "PATH": f"{_BIN}:{os.environ.get('PATH', '')}", "OMP_NUM_THREADS": "1", **more}

    def start_head(self, *, cpus: int) -> None:
        self._start(
            ["--head", f"--port={self.port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={self._dashboard}",
             f"--ray-client-server-port={free_port()}"], cpus
        )  # fmt: skip
        self._wait_for(1)

    def add(self, *, cpus: int) -> int:
        """Starts another node; returns the process id of its `ray start`."""
        process = self._start([f"--address=127.0.0.1:{self.port}"], cpus)
        self._wait_for(len(self._processes))
        return process.pid

    def _start(self, words: list[str], cpus: int) -> "subprocess.Popen[bytes]":
        # Each node has its share of the ports below those that the system hands out.
        first = 20_000 + 400 * len(self._processes) + 1_200 * (os.getpid() % 8)
        # And its own folder: in a common one each unpacks a job's files over those that the other one is using.
        place = self.folder / str(len(self._processes))
        command = [str(_BIN / "ray"), "start", "--block", f"--num-cpus={cpus}", "--object-store-memory=100000000",
                   f"--min-worker-port={first}", f"--max-worker-port={first + 399}",
                   f"--temp-dir={place}", f"--dashboard-agent-listen-port={free_port()}", *words]  # fmt: skip
        log = (self.folder / f"node-{len(self._processes)}.log").open("wb")
        # Said explicitly: `ray start` looks for a token only where a file is in the home directory.
        process = subprocess.Popen(
            command, env=self.environment(RAY_AUTH_MODE="token"), start_new_session=True, stdout=log, stderr=log
        )
        self._processes.append(process)
        self.cpus.append(cpus)
        return process

    def pids(self) -> list[int]:
        """Process ids of the nodes' `ray start`; everything on a node is below it."""
        return [process.pid for process in self._processes]

    def kill(self, number: int) -> None:
        """A node fails: all of its processes at once, without a word to the others."""
        end_tree(self._processes[number].pid)

    def _wait_for(self, count: int) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if any(process.poll() is not None for process in self._processes):
                break
            if self._alive() >= count:
                return
            time.sleep(0.3)
        logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(self.folder.glob("*.log")))
        raise TimeoutError(f"{count} Ray nodes are not up\n{logs}")

    def _alive(self) -> int:
        request = urllib.request.Request(
            f"{self.address}/nodes?view=summary", headers={"Authorization": f"Bearer {self.token.read_text()}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.read().count(b'"state": "ALIVE"') or 0
        except (OSError, urllib.error.URLError):
            return 0

    def end(self) -> None:
        """Ends all nodes, with what runs on them."""
        for process in reversed(self._processes):
            end_tree(process.pid)
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def end_tree(pid: int) -> None:
    """Kills a process and everything below it at once, as when a machine fails."""
    try:
        top = psutil.Process(pid)
        below = top.children(recursive=True)
    except psutil.NoSuchProcess:
        return
    for process in (top, *below):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
