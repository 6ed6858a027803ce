"""One search, undisturbed and then once for each fault: what is lost, what runs twice, and how long it takes to go on.

Real processes throughout: two Ray nodes on this machine in token mode, the driver as a person starts it, an MLflow
server. A fault strikes when a quarter of the trials is through, and a trial runs that has a checkpoint and is not about
to end; for a node that dies, one on that node. Columns:

    finished, lost     trials with a result, and without one
    twice              trials that reached their end in two attempts, or ran again although they had ended
    values             whether every trial's value equals the undisturbed run's, to the last bit, and so the best one
                       (where that row is left out: those of one process without Ray)
    cut off            trials that the fault ended and that went on in a new attempt
    lost work s        of those, the longest: from the last checkpoint to the fault; it is done again
    recovery s         from the fault (or its end, for an outage) to the next epoch of the last disturbed trial

Exit code 1, and the reasons below the table, where a row misses the bar: nothing lost, nothing twice, equal values, no
more work lost than a checkpoint may be old, and a fault that is meant to cut off a trial did so.

    python benchmarks/faults.py [--only actor,driver] [--trials 24]
"""

import argparse
import math
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import damage
from benchmarks.common import leave_in_order, machine, parser, table
from benchmarks.stage import PATIENCE_S, STUDY, Stage
from m3col.config import yaml_files
from tests.support import driving
from tests.support.ray_nodes import Nodes, end_tree
from tests.support.servers import Server

_TRIAL = ("ray::TrialActor", "ray::ResourceTrainable")


def search_config(trials: int, *, workers: int, epochs: int, checkpoint_s: float) -> dict[str, Any]:
    return {
        "base": "digits",
        "overrides": {
            "train": {"epochs": epochs, "shards": 2}, "model": {"embedding_dim": 64, "classifier_dim": 64},
            "checkpoint": {"every_s": checkpoint_s},
        },
        "space": {"objective.beta": {"low": 0.01, "high": 1.0, "log": True}},
        "search": {"sampler": "random", "pruner": "none", "trials": trials, "replicates": 0, "confirm": None},
        "validation": {"folds": 2},
        "resources": {"workers_per_trial": workers},
        "final": {"seeds": 1, "baselines": False, "draws": 100, "rows": {}},
    }  # fmt: skip


def kill_actor(stage: Stage) -> str:
    assert stage.aimed is not None
    stage.strike()
    stage.aimed.kill()
    return "a trial's process, signal 9"


def kill_worker(stage: Stage) -> str:
    victim = next(process for process in stage.titled("ray::RayTrainWorker")[::-1] if process != stage.aimed)
    stage.strike()
    victim.kill()
    return "one of a trial's DDP workers, signal 9"


def kill_controller(stage: Stage) -> str:
    victim = stage.titled("ray::TrainController")[-1]
    stage.strike()
    victim.kill()
    return "the process that controls a trial's DDP workers, signal 9"


def kill_node(stage: Stage) -> str:
    stage.strike()
    stage.nodes.kill(1)
    return "all processes of the second node, signal 9; no other one comes"


def add_node(stage: Stage) -> str:
    stage.nodes.add(cpus=stage.nodes.cpus[0])  # the trial is suspended meanwhile: a short search would end before
    stage.strike()
    stage.all_at_work()
    stage.healed = time.time()
    return "a second node joins"


def come_and_go(stage: Stage) -> str:
    did = add_node(stage)
    stage.wait(lambda: stage.aim(1))
    return f"{did}; {kill_node(stage)}"


def _used(stage: Stage) -> tuple[str, list[str]]:
    most = damage.overlap(stage.study)
    return f"{most} trials trained at the same time", [] if most == 2 else ["the new node was not used"]


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
    return f"MLflow server away for {stage.healed - stage.struck:.0f} s"


def _shown(stage: Stage) -> tuple[str, list[str]]:
    """Counts the trials in MLflow after the search and, where some are missing, after `m3col sync`."""
    trials = len(damage.values(stage.study))
    stored = _in_mlflow(stage)
    text = f"{stored} trials in MLflow at the end"
    if stored < trials:
        stage.start("sync", STUDY).wait()
        text += f", {(stored := _in_mlflow(stage))} after `m3col sync`"
    return text, [] if stored == trials else [f"MLflow shows {stored} of {trials} trials"]


def _in_mlflow(stage: Stage) -> int:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(stage.tracking_uri)
    stored = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=1000)
    return sum(run.data.tags.get("m3col.kind") == "trial" and run.info.status == "FINISHED" for run in stored)


def refuse_writes(stage: Stage) -> str:
    """Prevents files of the driver and of the trials from growing, like a full disk or a quota does."""
    victims = [*stage.titled(*_TRIAL), psutil.Process(stage.drivers[-1].pid)]
    stage.strike()
    for process in victims:
        process.rlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    time.sleep(stage.outage_s)
    for process in victims:
        with suppress(psutil.NoSuchProcess):
            process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    stage.healed = time.time()
    return f"files could not grow for {stage.outage_s:.0f} s"


def start_second(stage: Stage) -> str:
    stage.strike()
    second = stage.start_driver()
    second.wait(timeout=PATIENCE_S)
    return f"a driver started beside the first {_rejected(stage, second, 2)}"


def submit_twice(stage: Stage) -> str:
    """Submits two jobs of the same new study at the same time. Only one of them may get it."""
    both = [stage.submit(), stage.submit()]
    until = time.monotonic() + PATIENCE_S
    while all(process.poll() is None for process in both) and time.monotonic() < until:
        time.sleep(0.2)
    loser = min(both, key=lambda process: process.poll() is None)
    return f"of two `m3col submit` at once, one {_rejected(stage, loser, 1)}"


def _rejected(stage: Stage, process: subprocess.Popen[bytes], code: int) -> str:
    """How the rejected one of two drivers ended; removes it from the current drivers.

    Raises RuntimeError unless its message names the other driver as the owner of the study.
    """
    output = stage.said(process)
    holder = re.search(r"in use by process (\d+)", output)
    if process.poll() != code or holder is None or not _drives(stage, int(holder[1])):
        raise RuntimeError(f"one of the two ended with {process.poll()}:\n{output[-2000:]}")
    stage.drivers.append(stage.drivers.pop(1 - stage.drivers.index(process)))
    return f"ended with exit code {code}: {holder[0]}"


def _drives(stage: Stage, pid: int) -> bool:
    return stage.drivers[0].pid == pid or stage.nodes.runs(0, pid)


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        act: causes the fault and returns a description.
        begin: starts the search; None to start one driver.
        after: returns an observation at the end, and violated requirements.
        cuts: whether the fault must cut off a trial.
        on: number of the node with that trial; None for any.
        workers: DDP workers per trial.
        nodes: number of Ray nodes, with one CPU per worker.
        tracking: whether an MLflow server runs.
    """

    act: Callable[[Stage], str] | None = None
    begin: Callable[[Stage], str] | None = None
    after: Callable[[Stage], tuple[str, list[str]]] | None = None
    cuts: bool = False
    on: int | None = None
    workers: int = 1
    nodes: int = 2
    tracking: bool = False


FAULTS = {
    "undisturbed": Fault(),
    "actor": Fault(kill_actor, cuts=True),
    "node": Fault(kill_node, cuts=True, on=1),
    "new node": Fault(add_node, after=_used, nodes=1),
    "driver": Fault(kill_driver, cuts=True),
    "tracking": Fault(kill_tracking, after=_shown, tracking=True),
    "storage": Fault(refuse_writes),
    "second driver": Fault(start_second),
    "submitted twice": Fault(begin=submit_twice),
    "all in one": Fault(come_and_go, submit_twice, _used, cuts=True, nodes=1),
    "undisturbed DDP": Fault(workers=2, nodes=1),
    "DDP worker": Fault(kill_worker, cuts=True, workers=2, nodes=1),
    "DDP controller": Fault(kill_controller, cuts=True, workers=2, nodes=1),
    "node DDP": Fault(kill_node, cuts=True, on=1, workers=2),
}


@dataclass(frozen=True)
class Played:
    """Result of a row: the value of each trial, the cells without `values`, and the requirements it misses."""

    values: dict[int, float]
    cells: list[object]
    faults: list[str]


def play(name: str, options: argparse.Namespace) -> Played:
    """Runs the search with one fault. Raises RuntimeError where the search does not end."""
    fault = FAULTS[name]
    trials, epochs = (
        (options.trials, options.epochs) if fault.workers == 1 else (options.ddp_trials, options.ddp_epochs)
    )
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        folder, nodes = Path(temporary), Nodes()
        config = folder / "search.yaml"
        settings = search_config(trials, workers=fault.workers, epochs=epochs, checkpoint_s=options.checkpoint)
        config.write_text(yaml_files.dump(settings))
        tracking = Server(folder) if fault.tracking else None
        stage = Stage(nodes, folder, config, tracking, options.outage)
        try:
            nodes.start_head(cpus=fault.workers)
            for _ in range(fault.nodes - 1):
                nodes.add(cpus=fault.workers)
            if stage.tracking is not None:
                stage.tracking.start()
            did = [fault.begin(stage)] if fault.begin is not None else []
            if not stage.drivers:
                stage.start_driver()
            if fault.workers == 1:
                stage.all_at_work()
            if fault.act is not None:
                stage.wait(lambda: stage.finished() >= trials // 4 and stage.aim(fault.on))
                did.append(fault.act(stage))
            stage.wait(lambda: stage.drivers[-1].poll() == 0)
            # Tiny sizes say nothing about times: with --quick a checkpoint may be of any age.
            oldest = math.inf if options.quick else options.checkpoint
            return _judge(name, stage, trials, oldest, did)
        finally:
            for process in stage.drivers:
                end_tree(process.pid)
            nodes.end()
            if stage.tracking is not None:
                stage.tracking.kill()


def alone(options: argparse.Namespace) -> dict[int, float]:
    """The values of the same search in one process, without Ray."""
    config = search_config(options.trials, workers=1, epochs=options.epochs, checkpoint_s=options.checkpoint)
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        folder, ready = driving.prepare_study(Path(temporary), config)
        driving.drive(driving.coordinator(folder, ready), ready.dataset)
        return damage.values(folder.path)


def _judge(name: str, stage: Stage, trials: int, every_s: float, did: list[str]) -> Played:
    fault, values, twice = FAULTS[name], damage.values(stage.study), damage.twice(stage.study, stage.before)
    effect = damage.Damage()
    if stage.before is not None:
        effect = damage.damage(stage.study, stage.before, struck=stage.struck, healed=stage.healed, every_s=every_s)
    restarted = damage.begun_anew(stage.study)
    if fault.cuts and not effect.cut:
        effect.faults.append("the fault cut off no trial")
    if restarted and not fault.cuts:
        effect.faults.append(f"trials that began anew although nothing had died: {', '.join(restarted)}")
    if len(values) < trials or twice:
        effect.faults.append(f"{trials - len(values)} trials lost, {twice} run twice")
    if fault.after is not None:
        text, problems = fault.after(stage)
        did.append(text)
        effect.faults += problems
    counts: list[object] = [name, len(values), trials - len(values), twice]
    damaged = [len(effect.cut), f"{effect.lost_work_s:.1f}", f"{effect.recovery_s:.1f}", "; ".join(did)]
    return Played(values, [*counts, *damaged], effect.faults)


def main(words: Sequence[str] | None = None) -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--only", default="", help=f"comma-separated, of: {', '.join(FAULTS)}")
    arguments.add_argument("--trials", type=int, default=24)
    arguments.add_argument("--epochs", type=int, default=200)
    arguments.add_argument("--ddp-trials", type=int, default=4, help="trials in the rows with two workers per trial")
    arguments.add_argument("--ddp-epochs", type=int, default=400)
    arguments.add_argument("--checkpoint", type=float, default=1.0, help="seconds between two checkpoints")
    arguments.add_argument("--outage", type=float, default=60.0, help="seconds, of the storage and the tracking server")
    options = arguments.parse_args(words)
    if options.quick:
        options.trials, options.epochs, options.ddp_trials, options.ddp_epochs = 4, 120, 2, 120
        options.checkpoint, options.outage = 0.3, 6.0
    chosen = options.only.split(",") if options.only else list(FAULTS)
    unknown = [name for name in chosen if name not in FAULTS]
    if unknown:
        arguments.error(f"--only {','.join(unknown)}: nearest valid: {', '.join(FAULTS)}")
    leave_in_order()
    print(machine())
    print(f"{options.trials} trials of {options.epochs} epochs; with two workers {options.ddp_trials} of "
          f"{options.ddp_epochs}; a checkpoint every {options.checkpoint:g} s, two nodes\n", flush=True)  # fmt: skip
    calm: dict[int, dict[int, float]] = {}
    rows, wrong = [], []
    for name in chosen:
        try:
            row, faults = _row(name, options, calm)
        except Exception as error:  # the other rows still run
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            row, faults = [name, *["–"] * 7, "did not come to its end"], ["did not come to its end"]
        rows.append(row)
        wrong += [f"{name}: {line}" for line in faults]
        print(f"{name}: {row}", file=sys.stderr, flush=True)
    header = ["fault", "finished", "lost", "twice", "values", "cut off", "lost work s", "recovery s", "what happened"]
    print(table(header, rows, words=("values", "what happened")))
    for line in wrong:
        print(f"MISSES THE BAR: {line}")
    return 1 if wrong else 0


def _row(name: str, options: argparse.Namespace, calm: dict[int, dict[int, float]]) -> tuple[list[object], list[str]]:
    """The cells of a row and the requirements it misses. `calm`: undisturbed values by workers, filled on demand."""
    workers = FAULTS[name].workers
    if workers not in calm and not name.startswith("undisturbed"):
        calm[workers] = alone(options) if workers == 1 else play("undisturbed DDP", options).values
    played = play(name, options)
    same = played.values == calm.setdefault(workers, played.values)
    cells = [*played.cells[:4], "equal" if same else "DIFFER", *played.cells[4:]]
    return cells, [*played.faults, *([] if same else ["a trial's value is not that of the undisturbed search"])]


if __name__ == "__main__":
    sys.exit(main())
