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
from contextlib import suppress
from pathlib import Path

import psutil

from tests.support.servers import free_port

_START_S = 120.0
_TRIES = 3
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
        self._dead = 0
        self.cpus: list[int] = []

    def environment(self, **more: str) -> dict[str, str]:
        """That of a process which may use the cluster."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        ours = {"RAY_AUTH_TOKEN_PATH": str(self.token), "RAY_USAGE_STATS_ENABLED": "0"}
        # `python` on the nodes is to be this one, as after activating a virtual environment.
        return {**kept, **ours, "PATH": f"{_BIN}:{os.environ.get('PATH', '')}", "OMP_NUM_THREADS": "1", **more}

    def start_head(self, *, cpus: int) -> None:
        self._bring_up(
            ["--head", f"--port={self.port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={self._dashboard}",
             f"--ray-client-server-port={free_port()}"], cpus
        )  # fmt: skip

    def add(self, *, cpus: int) -> int:
        """Starts another node; returns its number."""
        self._bring_up([f"--address=127.0.0.1:{self.port}"], cpus)
        return len(self._processes) - 1

    def _bring_up(self, words: list[str], cpus: int) -> None:
        """`ray start` waits 30 s for its own processes and then gives up, which a busy machine can make it do."""
        for _ in range(_TRIES):
            self._start(words, cpus)
            if self._is_up():
                self.cpus.append(cpus)
                return
            failed = self._processes.pop()
            end_tree(failed.pid)
            failed.wait()
        logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(self.folder.glob("*.log")))
        raise TimeoutError(f"Ray node {len(self._processes)} is not up\n{logs}")

    def _start(self, words: list[str], cpus: int) -> None:
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

    def pids(self) -> list[int]:
        """Process ids of the nodes' `ray start`; everything on a node is below it."""
        return [process.pid for process in self._processes]

    def processes(self) -> list[psutil.Process]:
        """Everything that runs on the nodes."""
        return [process for pid in self.pids() for process in tree(pid)[1:]]

    def runs(self, number: int, pid: int) -> bool:
        """Whether a process runs on that node, the head being number 0."""
        return any(process.pid == pid for process in tree(self._processes[number].pid))

    def kill(self, number: int) -> None:
        """A node fails: all of its processes at once, without a word to the others."""
        end_tree(self._processes[number].pid)
        self._dead += 1

    def _is_up(self) -> bool:
        """Whether the node that was started last joins in time."""
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._processes[-1].poll() is None:
            if self._alive() >= len(self._processes) - self._dead:
                return True
            time.sleep(0.3)
        return False

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


def tree(pid: int) -> list[psutil.Process]:
    """A process and everything below it; nothing where it has ended."""
    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def end_tree(pid: int) -> None:
    """Kills a process and everything below it at once, as when a machine fails."""
    for process in tree(pid):
        with suppress(psutil.NoSuchProcess):
            process.kill()
