"""One search, undisturbed and then once for each fault: what is lost, what runs twice, and how long it takes to go on.

Real processes throughout: two Ray nodes on this machine in token mode, the driver as a person starts it, an MLflow
server. A fault strikes when a quarter of the trials is through. Columns:

    finished, lost     trials with a result, and without one
    twice              trials of which two attempts reached their end
    values             whether every trial's value equals the undisturbed run's, to the last bit, and so the best one
    lost work s        of the trials on what died, the longest: from the last checkpoint to the fault; it is done again
    recovery s         from the fault (or its end, for an outage) to the next epoch of the last disturbed trial

    python benchmarks/faults.py [--only actor,driver] [--trials 24]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import leave_in_order, machine, parser, table
from m3col import yamlio
from tests.ray_nodes import Nodes, end_tree
from tests.servers import Server

REPOSITORY = Path(__file__).resolve().parents[1]
STUDY = "study"
CHECKPOINT_S = 1.0
_PATIENCE_S = 1800.0


def search_config(trials: int, *, workers: int, epochs: int) -> dict[str, Any]:
    return {
        "base": "digits",
        "overrides": {
            "train": {"epochs": epochs, "shards": 2}, "model": {"embedding_dim": 64, "classifier_dim": 64},
            "checkpoint": {"every_s": CHECKPOINT_S},
        },
        "space": {"objective.beta": {"low": 0.01, "high": 1.0, "log": True}},
        "search": {"sampler": "random", "pruner": "none", "trials": trials, "replicates": 0, "confirm": None},
        "validation": {"folds": 2},
        "resources": {"workers_per_trial": workers},
        "final": {"seeds": 1, "baselines": False, "draws": 100, "rows": {}},
    }  # fmt: skip


@dataclass
class Stage:
    """A search in progress, and what a fault may touch. `struck`, `healed`: when the fault came and went."""

    nodes: Nodes
    folder: Path
    config: Path
    tracking: Server | None
    outage_s: float
    drivers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    struck: float = 0.0
    healed: float = 0.0

    @property
    def study(self) -> Path:
        return self.folder / "runs" / STUDY

    def start_driver(self) -> subprocess.Popen[bytes]:
        """As a job does it: begins the study, or goes on with it."""
        uri = "none" if self.tracking is None else self.tracking.uri
        words = ["search", str(self.config), "--name", STUDY, "--resume", "auto", "--plain", "--tracking-uri", uri]
        words += ["--runs-dir", str(self.folder / "runs"), "--address", f"127.0.0.1:{self.nodes.port}"]
        log = (self.folder / f"driver-{len(self.drivers)}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", *words], cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True,
            env=self.nodes.environment(RAY_AUTH_MODE="token", HF_HUB_OFFLINE="1", PYTHONUNBUFFERED="1"),
        )  # fmt: skip
        self.drivers.append(process)
        return process

    def strike(self, *, titles: tuple[str, ...] = ()) -> list[psutil.Process]:
        """Notes the time; the processes of the cluster with one of these titles, those that train first."""
        self.struck = self.healed = time.time()
        return self.processes(*titles)

    def processes(self, *titles: str) -> list[psutil.Process]:
        found = []
        for top in self.nodes.pids():
            with suppress(psutil.Error):
                found += psutil.Process(top).children(recursive=True)
        named = [(_title(process), process) for process in found]
        chosen = [pair for pair in named if pair[0].startswith(titles) and titles]
        return [process for title, process in sorted(chosen, key=lambda pair: not pair[0].endswith(".train"))]

    def running(self) -> list[Path]:
        """Folders of the trials that have begun and not ended."""
        begun = [path.parent for path in self.study.glob("trials/*/config.yaml")]
        return [path for path in begun if not (path / "result.json").exists()]

    def finished(self) -> int:
        return len(list(self.study.glob("trials/*/result.json")))

    def wait(self, ready: Callable[[], bool]) -> None:
        """Until something holds. Raises RuntimeError where the driver ends before, or it takes too long."""
        until = time.monotonic() + _PATIENCE_S
        while True:
            code = self.drivers[-1].poll()  # looked at first: a driver may end between two looks
            if ready():
                return
            if code is not None or time.monotonic() > until:
                log = (self.folder / f"driver-{len(self.drivers) - 1}.log").read_text(errors="replace")
                raise RuntimeError(f"the driver ended, or waited in vain (exit {code}):\n{log[-3000:]}")
            time.sleep(0.1)

    def has_checkpoint(self) -> bool:
        """Whether every running trial has one, so that something can be gone on from."""
        running = self.running()
        return bool(running) and all(list(path.glob("attempt-*/epoch-*")) for path in running)


def _title(process: psutil.Process) -> str:
    try:
        return (process.cmdline() or [""])[0]
    except psutil.Error:
        return ""


def kill_actor(stage: Stage) -> str:
    victims = stage.strike(titles=("ray::TrialActor", "ray::ResourceTrainable"))
    victims[0].kill()
    return "a trial's process, signal 9"


def kill_worker(stage: Stage) -> str:
    stage.wait(lambda: bool(stage.processes("ray::RayTrainWorker")) and stage.has_checkpoint())
    victims = stage.strike(titles=("ray::RayTrainWorker",))
    victims[-1].kill()
    return "one of a trial's DDP workers, signal 9"


def kill_controller(stage: Stage) -> str:
    stage.wait(lambda: bool(stage.processes("ray::RayTrainWorker")) and stage.has_checkpoint())
    stage.strike(titles=("ray::TrainController",))[-1].kill()
    return "the process that looks after a trial's DDP workers, signal 9"


def kill_node(stage: Stage) -> str:
    stage.strike()
    stage.nodes.kill(1)
    return "all processes of the second node, signal 9; no other one comes"


def add_node(stage: Stage) -> str:
    before = len(stage.running())
    stage.nodes.add(cpus=stage.nodes.cpus[0])
    stage.strike()
    stage.wait(lambda: len(stage.running()) > before)
    return f"{before} trial at a time, then {len(stage.running())}"


def kill_driver(stage: Stage) -> str:
    stage.strike()
    end_tree(stage.drivers[-1].pid)
    stage.start_driver()
    return "signal 9; started again with the same command"


def kill_tracking(stage: Stage) -> str:
    assert stage.tracking is not None
    stage.strike()
    stage.tracking.kill()
    time.sleep(stage.outage_s)
    stage.tracking.start()
    stage.healed = time.time()
    return f"MLflow server away for {stage.healed - stage.struck:.0f} s; {{in_mlflow}} trials in MLflow at the end"


def refuse_writes(stage: Stage) -> str:
    """Files of the driver and of the trials' processes may not grow: what a full disk or a quota does."""
    victims = stage.strike(titles=("ray::TrialActor", "ray::ResourceTrainable"))
    victims.append(psutil.Process(stage.drivers[-1].pid))
    for process in victims:
        process.rlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    time.sleep(stage.outage_s)
    for process in victims:
        with suppress(psutil.NoSuchProcess):
            process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    stage.healed = time.time()
    return f"files could not grow for {stage.outage_s:.0f} s"


def submit_twice(stage: Stage) -> str:
    stage.strike()
    first, second = stage.drivers[-1], stage.start_driver()
    second.wait(timeout=_PATIENCE_S)
    stage.drivers.remove(second)
    said = (stage.folder / "driver-1.log").read_text()
    if second.returncode != 2 or "in use by" not in said:
        raise RuntimeError(f"the second driver ended with {second.returncode}:\n{said[-2000:]}")
    return f"the second one ended with exit code {second.returncode}: in use by process {first.pid}"


@dataclass(frozen=True)
class Fault:
    """`workers`: DDP workers per trial; `nodes`: of one CPU for each worker; `act`: strikes, and says what it did."""

    act: Callable[[Stage], str] | None
    workers: int = 1
    nodes: int = 2
    tracking: bool = False


FAULTS = {
    "undisturbed": Fault(None),
    "actor": Fault(kill_actor),
    "node": Fault(kill_node),
    "new node": Fault(add_node, nodes=1),
    "driver": Fault(kill_driver),
    "tracking": Fault(kill_tracking, tracking=True),
    "storage": Fault(refuse_writes),
    "twice": Fault(submit_twice),
    "undisturbed DDP": Fault(None, workers=2, nodes=1),
    "DDP worker": Fault(kill_worker, workers=2, nodes=1),
    "DDP controller": Fault(kill_controller, workers=2, nodes=1),
    "node DDP": Fault(kill_node, workers=2),
}


def play(name: str, options: argparse.Namespace) -> tuple[dict[int, float], list[object]]:
    """Runs the search with one fault: the value of each trial, and the row of the table."""
    fault = FAULTS[name]
    trials = options.trials if fault.workers == 1 else options.ddp_trials
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        folder, nodes = Path(temporary), Nodes()
        config = folder / "search.yaml"
        config.write_text(yamlio.dump(search_config(trials, workers=fault.workers, epochs=options.epochs)))
        tracking = Server(folder) if fault.tracking else None
        try:
            nodes.start_head(cpus=fault.workers)
            for _ in range(fault.nodes - 1):
                nodes.add(cpus=fault.workers)
            if tracking is not None:
                tracking.start()
            stage = Stage(nodes, folder, config, tracking, options.outage)
            stage.start_driver()
            did = ""
            if fault.act is not None:
                stage.wait(lambda: stage.finished() >= trials // 4 and stage.has_checkpoint())
                did = fault.act(stage)
            stage.wait(lambda: stage.drivers[-1].poll() == 0)
            return _judge(name, stage, trials, did)
        finally:
            for process in stage.drivers:
                end_tree(process.pid)
            nodes.end()
            if tracking is not None:
                tracking.kill()


def _judge(name: str, stage: Stage, trials: int, did: str) -> tuple[dict[int, float], list[object]]:
    results, twice, lost_work, recovery = {}, 0, 0.0, 0.0
    for path in stage.study.glob("trials/*"):
        found = json.loads((path / "result.json").read_text()) if (path / "result.json").exists() else {}
        if found.get("state") == "complete":
            results[int(path.name)] = float(found["value"])
        twice += len(list(path.glob("attempt-*/outcome.json"))) > 1
        times = [json.loads(line)["time"] for line in (path / "history.jsonl").read_text().splitlines()]
        if not stage.struck or not times or times[0] > stage.struck or times[-1] < stage.struck:
            continue
        if len(list(path.glob("attempt-*"))) > 1:
            lost_work = max(lost_work, stage.struck - max(moment for moment in times if moment <= stage.struck))
        recovery = max(recovery, min(moment for moment in times if moment > stage.struck) - stage.healed)
    if "{in_mlflow}" in did:
        did = did.format(in_mlflow=_in_mlflow(stage))
    row: list[object] = [name, len(results), trials - len(results), twice]
    return results, [*row, f"{lost_work:.1f}", f"{recovery:.1f}", did]


def _in_mlflow(stage: Stage) -> int:
    """Trials that MLflow shows as finished."""
    from mlflow.tracking import MlflowClient

    assert stage.tracking is not None
    client = MlflowClient(stage.tracking.uri)
    found = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=1000)
    return sum(run.data.tags.get("m3col.kind") == "trial" and run.info.status == "FINISHED" for run in found)


def main(words: Sequence[str] | None = None) -> int:
    made = parser(__doc__)
    made.add_argument("--only", default="", help=f"comma-separated, of: {', '.join(FAULTS)}")
    made.add_argument("--trials", type=int, default=24)
    made.add_argument("--ddp-trials", type=int, default=4, help="trials in the rows with several workers")
    made.add_argument("--epochs", type=int, default=300)
    made.add_argument("--outage", type=float, default=60.0, help="seconds, of the storage and the tracking server")
    options = made.parse_args(words)
    if options.quick:
        options.trials, options.ddp_trials, options.epochs, options.outage = 4, 2, 120, 6.0
    chosen = options.only.split(",") if options.only else list(FAULTS)
    leave_in_order()
    print(machine())
    print(f"{options.trials} trials ({options.ddp_trials} with 2 workers) of {options.epochs} epochs, "
          f"a checkpoint every {CHECKPOINT_S:g} s, two nodes\n")  # fmt: skip
    calm: dict[int, dict[int, float]] = {}
    rows, good = [], True
    for name in chosen:
        workers = FAULTS[name].workers
        if workers not in calm and FAULTS[name].act is not None:
            calm[workers], _ = play("undisturbed" if workers == 1 else "undisturbed DDP", options)
        values, row = play(name, options)
        calm.setdefault(workers, values)
        same = values == calm[workers]
        good &= same and not row[2] and not row[3]
        rows.append([*row[:4], "equal" if same else "DIFFER", *row[4:]])
        print(f"{name}: {rows[-1]}", file=sys.stderr, flush=True)
    print(table(["fault", "finished", "lost", "twice", "values", "lost work s", "recovery s", "what happened"], rows))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
