"""A search in progress on real Ray nodes, started as a person or a job starts it, and watched from outside."""

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
    """A search in progress, and what a fault may touch. `outage_s`: how long one lasts; `aimed`: the process of a
    trial that is held until the fault; `before`: the study when the fault came; `struck`, `healed`: when it came and
    went."""

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
        """An m3col command beside the cluster, as one of the drivers."""
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
        """As a job does it: begins the study, or goes on with it."""
        address = f"127.0.0.1:{self.nodes.port}"
        return self.start(
            "search", str(self.config), "--name", STUDY, "--resume", "auto", "--plain", "--address", address
        )

    def submit(self) -> subprocess.Popen[bytes]:
        """The same search as a job of the cluster, followed to its end."""
        address = self.nodes.address
        return self.start("submit", str(self.config), "--name", STUDY, "--shared", "--follow", "--address", address)

    def said(self, process: subprocess.Popen[bytes]) -> str:
        """What a driver has written, with short paths."""
        path = self.logs.get(process.pid)
        return "" if path is None else path.read_text(errors="replace").replace(f"{self.runs}/", "")

    def aim(self, node: int | None = None) -> bool:
        """Holds a trial (on that node) which can be gone on with from a checkpoint, so that it is still there when the
        fault comes. False where there is none."""
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
        """Notes the study and the time: the next step is the fault."""
        self.before = damage.look(self.study)
        if self.aimed is not None:
            self.aimed.resume()
        self.struck = self.healed = time.time()

    def running(self) -> Mapping[str, Running]:
        return damage.look(self.study).running

    def titled(self, *titles: str) -> list[psutil.Process]:
        """The processes on the nodes whose name begins like that, oldest first."""
        found = [process for process in self.nodes.processes() if _title(process).startswith(titles)]
        return sorted(found, key=lambda process: process.pid)

    def target(self, node: int | None = None) -> int:
        """The process of a trial (on that node) which can be gone on with from a checkpoint; 0 where there is none."""
        found = [item.process for item in self.running().values() if item.can_go_on()]
        return next(
            (pid for pid in found if psutil.pid_exists(pid) and (node is None or self.nodes.runs(node, pid))), 0
        )

    def all_at_work(self) -> None:
        """Until a trial has begun on every node.

        One that began earlier is held meanwhile. Tune takes an actor that is still starting away from its trial as soon
        as another one is free, so that trials shorter than such a start would stay on the nodes that they know.
        """
        held: dict[int, psutil.Process] = {}

        def all_train() -> bool:
            processes = [item.process for item in self.running().values() if item.process]
            for pid in processes:
                if pid not in held and psutil.pid_exists(pid):
                    held[pid] = psutil.Process(pid)
                    held[pid].suspend()
            nodes = range(len(self.nodes.cpus))
            return all(any(self.nodes.runs(node, pid) for pid in processes) for node in nodes)

        try:
            self.wait(all_train)
        finally:
            for process in held.values():
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def finished(self) -> int:
        return len(list(self.study.glob("trials/*/result.json")))

    def wait(self, ready: Callable[[], object]) -> None:
        """Until something holds. Raises RuntimeError where the driver ends before, or it takes too long."""
        until = time.monotonic() + PATIENCE_S
        while True:
            code = self.drivers[-1].poll()  # looked at first: a driver may end between two looks
            if ready():
                return
            if code is not None or time.monotonic() > until:
                said = self.said(self.drivers[-1])
                raise RuntimeError(f"the driver ended, or waited in vain (exit {code}):\n{said[-3000:]}")
            time.sleep(0.2)


def _title(process: psutil.Process) -> str:
    try:
        return (process.cmdline() or [""])[0]
    except psutil.Error:
        return ""
