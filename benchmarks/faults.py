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
    return "the process that looks after a trial's DDP workers, signal 9"


def kill_node(stage: Stage) -> str:
    stage.strike()
    stage.nodes.kill(1)
    return "all processes of the second node, signal 9; no other one comes"


def add_node(stage: Stage) -> str:
    stage.nodes.add(cpus=stage.nodes.cpus[0])  # the trial is held meanwhile: a short search would be over before
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
    """Trials in MLflow when the search has ended, and where some are missing, after the command that sends them."""
    trials = len(damage.values(stage.study))
    there = _in_mlflow(stage)
    text = f"{there} trials in MLflow at the end"
    if there < trials:
        stage.start("sync", STUDY).wait()
        text += f", {(there := _in_mlflow(stage))} after `m3col sync`"
    return text, [] if there == trials else [f"MLflow shows {there} of {trials} trials"]


def _in_mlflow(stage: Stage) -> int:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(stage.tracking_uri)
    found = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=1000)
    return sum(run.data.tags.get("m3col.kind") == "trial" and run.info.status == "FINISHED" for run in found)


def refuse_writes(stage: Stage) -> str:
    """Files of the driver and of the trials' processes may not grow: what a full disk or a quota does."""
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
    return f"a driver started beside the first {_turned_away(stage, second, 2)}"


def submit_twice(stage: Stage) -> str:
    """Two jobs of the same new study at the same time: which one has it is left to them."""
    both = [stage.submit(), stage.submit()]
    until = time.monotonic() + PATIENCE_S
    while all(process.poll() is None for process in both) and time.monotonic() < until:
        time.sleep(0.2)
    loser = min(both, key=lambda process: process.poll() is None)
    return f"of two `m3col submit` at once, one {_turned_away(stage, loser, 1)}"


def _turned_away(stage: Stage, process: subprocess.Popen[bytes], code: int) -> str:
    """How the second one of two ended, which is a driver no more. Raises RuntimeError unless it says who has the study,
    and that one is the other."""
    said = stage.said(process)
    holder = re.search(r"in use by process (\d+)", said)
    if process.poll() != code or holder is None or not _drives(stage, int(holder[1])):
        raise RuntimeError(f"one of the two ended with {process.poll()}:\n{said[-2000:]}")
    stage.drivers.append(stage.drivers.pop(1 - stage.drivers.index(process)))
    return f"ended with exit code {code}: {holder[0]}"


def _drives(stage: Stage, pid: int) -> bool:
    return stage.drivers[0].pid == pid or stage.nodes.runs(0, pid)


@dataclass(frozen=True)
class Fault:
    """`act`: strikes, and says what it did; `cuts`: whether a trial is to be cut off by it, on node number `on` where
    one is named; `begin`: starts the search in place of one driver; `after`: what is to be seen at the end, and what is
    wrong with it; `workers`: DDP workers per trial; `nodes`: of one CPU for each worker."""

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
    """What came of a row: each trial's value, its cells but for whether these are equal, and what misses the bar."""

    values: dict[int, float]
    cells: list[object]
    faults: list[str]


def play(name: str, options: argparse.Namespace) -> Played:
    """Runs the search with one fault. Raises RuntimeError where it does not come to its end."""
    fault = FAULTS[name]
    trials, epochs = (
        (options.trials, options.epochs) if fault.workers == 1 else (options.ddp_trials, options.ddp_epochs)
    )
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        folder, nodes = Path(temporary), Nodes()
        config = folder / "search.yaml"
        found = search_config(trials, workers=fault.workers, epochs=epochs, checkpoint_s=options.checkpoint)
        config.write_text(yaml_files.dump(found))
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
            return _judge(name, stage, trials, options.checkpoint, did)
        finally:
            for process in stage.drivers:
                end_tree(process.pid)
            nodes.end()
            if stage.tracking is not None:
                stage.tracking.kill()


def alone(options: argparse.Namespace) -> dict[int, float]:
    """The values that one process finds, without Ray."""
    config = search_config(options.trials, workers=1, epochs=options.epochs, checkpoint_s=options.checkpoint)
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        folder, ready = driving.prepare_study(Path(temporary), config)
        driving.drive(driving.coordinator(folder, ready), ready.dataset)
        return damage.values(folder.path)


def _judge(name: str, stage: Stage, trials: int, every_s: float, did: list[str]) -> Played:
    fault, values, twice = FAULTS[name], damage.values(stage.study), damage.twice(stage.study, stage.before)
    done = damage.Damage()
    if stage.before is not None:
        done = damage.damage(stage.study, stage.before, struck=stage.struck, healed=stage.healed, every_s=every_s)
    again = damage.begun_anew(stage.study)
    if fault.cuts and not done.cut:
        done.faults.append("the fault cut off no trial")
    if again and not fault.cuts:
        done.faults.append(f"trials that began anew although nothing had died: {', '.join(again)}")
    if len(values) < trials or twice:
        done.faults.append(f"{trials - len(values)} trials lost, {twice} run twice")
    if fault.after is not None:
        text, more = fault.after(stage)
        did.append(text)
        done.faults += more
    counts: list[object] = [name, len(values), trials - len(values), twice]
    damaged = [len(done.cut), f"{done.lost_work_s:.1f}", f"{done.recovery_s:.1f}", "; ".join(did)]
    return Played(values, [*counts, *damaged], done.faults)


def main(words: Sequence[str] | None = None) -> int:
    made = parser(__doc__)
    made.add_argument("--only", default="", help=f"comma-separated, of: {', '.join(FAULTS)}")
    made.add_argument("--trials", type=int, default=24)
    made.add_argument("--epochs", type=int, default=200)
    made.add_argument("--ddp-trials", type=int, default=4, help="trials in the rows with two workers per trial")
    made.add_argument("--ddp-epochs", type=int, default=400)
    made.add_argument("--checkpoint", type=float, default=1.0, help="seconds between two checkpoints")
    made.add_argument("--outage", type=float, default=60.0, help="seconds, of the storage and the tracking server")
    options = made.parse_args(words)
    if options.quick:
        options.trials, options.epochs, options.ddp_trials, options.ddp_epochs = 4, 120, 2, 120
        options.checkpoint, options.outage = 0.3, 6.0
    chosen = options.only.split(",") if options.only else list(FAULTS)
    unknown = [name for name in chosen if name not in FAULTS]
    if unknown:
        made.error(f"--only {','.join(unknown)}: nearest valid: {', '.join(FAULTS)}")
    leave_in_order()
    print(machine())
    print(f"{options.trials} trials of {options.epochs} epochs; with two workers {options.ddp_trials} of "
          f"{options.ddp_epochs}; a checkpoint every {options.checkpoint:g} s, two nodes\n", flush=True)  # fmt: skip
    calm: dict[int, dict[int, float]] = {}
    rows, wrong = [], []
    for name in chosen:
        try:
            row, faults = _row(name, options, calm)
        except Exception as error:  # the other rows are worth having
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
    """The cells of a row, and what misses the bar. `calm`: the undisturbed values by workers, completed here."""
    workers = FAULTS[name].workers
    if workers not in calm and not name.startswith("undisturbed"):
        calm[workers] = alone(options) if workers == 1 else play("undisturbed DDP", options).values
    played = play(name, options)
    same = played.values == calm.setdefault(workers, played.values)
    cells = [*played.cells[:4], "equal" if same else "DIFFER", *played.cells[4:]]
    return cells, [*played.faults, *([] if same else ["a trial's value is not that of the undisturbed search"])]


if __name__ == "__main__":
    sys.exit(main())
