"""A search on real Ray nodes, started like a user or a job starts it, and observed from outside."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks import damage
from benchmarks.damage import Before, Running
from tests.support.ray_nodes import Nodes
from tests.support.servers import Server

REPOSITORY = Path(__file__).resolve().parents[1]
STUDY = "study"
PATIENCE_S = 1800.0


@dataclass
class Stage:
    """A search in progress, with everything that a fault may act on.

    Attributes:
        nodes: the Ray nodes.
        folder: a temporary folder for everything.
        config: path of the search config.
        tracking: an MLflow server, or None.
        outage_s: duration of an outage, in seconds.
        drivers: processes of m3col commands, the current driver last.
        logs: output files by process id.
        aimed: the process of a trial that is suspended until the fault.
        before: state of the study at the fault.
        struck: start of the fault, in Unix seconds.
        healed: end of the fault, in Unix seconds.
    """

    nodes: Nodes
    folder: Path
    config: Path
    tracking: Server | None = None
    outage_s: float = 0.0
    drivers: list[subprocess.Popen[Any]] = field(default_factory=list)
    logs: dict[int, Path] = field(default_factory=dict)
    aimed: psutil.Process | None = None
    before: Before | None = None
    struck: float = 0.0
    healed: float = 0.0

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def study(self) -> Path:
        return self.runs / STUDY

    @property
    def tracking_uri(self) -> str:
        return "none" if self.tracking is None else self.tracking.uri

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Starts an m3col command as a driver of the cluster."""
        common = ["--runs-dir", str(self.runs), "--tracking-uri", self.tracking_uri]
        path = self.folder / f"driver-{len(self.drivers)}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "jobs.cli", *words, *common], cwd=REPOSITORY, start_new_session=True,
                stdout=log, stderr=log,
                env=self.nodes.environment(HF_HUB_OFFLINE="1", PYTHONUNBUFFERED="1"),
            )  # fmt: skip
        self.drivers.append(process)
        self.logs[process.pid] = path
        return process

    def start_driver(self) -> subprocess.Popen[bytes]:
        """Starts or resumes the study, like a job does."""
        address = f"127.0.0.1:{self.nodes.port}"
        return self.start(
            "search", str(self.config), "--name", STUDY, "--resume", "auto", "--plain", "--address", address
        )

    def submit(self) -> subprocess.Popen[bytes]:
        """The same search as a job of the cluster, followed to its end."""
        address = self.nodes.address
        return self.start("submit", str(self.config), "--name", STUDY, "--shared", "--follow", "--address", address)

    def said(self, process: subprocess.Popen[bytes]) -> str:
        """The output of a driver, with shortened paths."""
        path = self.logs.get(process.pid)
        return "" if path is None else path.read_text(errors="replace").replace(f"{self.runs}/", "")

    def aim(self, node: int | None = None) -> bool:
        """Suspends a trial (on that node) that can resume from a checkpoint, so that it still runs at the fault.

        Returns False where there is none.
        """
        pid = self.target(node)
        if pid:
            process = psutil.Process(pid)
            process.suspend()
            if self.target(node) == pid:
                self.aimed = process
                return True
            process.resume()
        return False

    def strike(self) -> None:
        """Records the state of the study and the time. Call it right before the fault."""
        self.before = damage.inspect_study(self.study)
        if self.aimed is not None:
            self.aimed.resume()
        self.struck = self.healed = time.time()

    def running(self) -> Mapping[str, Running]:
        return damage.inspect_study(self.study).running

    def titled(self, *titles: str) -> list[psutil.Process]:
        """Processes on the nodes whose title starts with one of `titles`, by process id."""
        matching = [process for process in self.nodes.processes() if _title(process).startswith(titles)]
        return sorted(matching, key=lambda process: process.pid)

    def target(self, node: int | None = None) -> int:
        """The process id of a trial (on that node) that can resume from a checkpoint; 0 where there is none."""
        candidates = [item.process for item in self.running().values() if item.can_go_on()]
        return next(
            (pid for pid in candidates if psutil.pid_exists(pid) and (node is None or self.nodes.runs(node, pid))), 0
        )

    def all_at_work(self) -> None:
        """Waits until a trial has begun on every node.

        Trials that began earlier are suspended meanwhile. Ray Tune cancels an actor that is still starting as soon as
        another one is free. Without suspension, trials that are shorter than the start of an actor would all run on the
        nodes that already have one.
        """
        suspended: dict[int, psutil.Process] = {}

        def all_train() -> bool:
            processes = [item.process for item in self.running().values() if item.process]
            for pid in processes:
                if pid not in suspended and psutil.pid_exists(pid):
                    suspended[pid] = psutil.Process(pid)
                    suspended[pid].suspend()
            nodes = range(len(self.nodes.cpus))
            return all(any(self.nodes.runs(node, pid) for pid in processes) for node in nodes)

        try:
            self.wait(all_train)
        finally:
            for process in suspended.values():
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def finished(self) -> int:
        return len(list(self.study.glob("trials/*/result.json")))

    def wait(self, ready: Callable[[], object]) -> None:
        """Waits until `ready` is true. Raises RuntimeError if the driver ends first, or after a time limit."""
        until = time.monotonic() + PATIENCE_S
        while True:
            code = self.drivers[-1].poll()  # read before `ready`: the driver may end in between
            if ready():
                return
            if code is not None or time.monotonic() > until:
                output = self.said(self.drivers[-1])
                raise RuntimeError(f"the driver ended, or waited in vain (exit {code}):\n{output[-3000:]}")
            time.sleep(0.2)


def _title(process: psutil.Process) -> str:
    try:
        return (process.cmdline() or [""])[0]
    except psutil.Error:
        return ""
