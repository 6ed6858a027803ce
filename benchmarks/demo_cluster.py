"""A cluster of two nodes on this machine, a search sent to it as a job, and one node killed half-way.

Both nodes have the CPUs of one whole trial, which trains with two DDP workers. The job goes through the Jobs API with a
token. ROSMAP where its files are found, else the embedded digits. The second node dies when half of the trials are
through and it runs one that has a checkpoint. Then the same search runs on what is left, undisturbed and with one
process per trial: values and tables must be equal (in float64, so that the order of sums cannot be seen, and without
dropout, whose masks each worker draws for itself).

    make demo-cluster        or: python benchmarks/demo_cluster.py [--trials 6] [--epochs 200]
"""

import argparse
import math
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import damage
from benchmarks.common import leave_in_order, machine, parser
from benchmarks.stage import REPOSITORY, STUDY, Stage
from m3col.data import loading
from m3col.data.formats import numbered_csv
from m3col.errors import InputError
from tests.support.ray_nodes import Nodes

CALM = "undisturbed"
_EQUAL = 1e-9  # relative; two workers sum in another order than one


def data_set(*, quick: bool) -> tuple[str, Path | None]:
    """The name of the search config, and the folder that holds the data."""
    try:
        folder = None if quick else loading.locate("rosmap")
    except InputError:
        folder = None
    if folder is None or not numbered_csv.looks_like(folder):
        return "digits", None
    return "rosmap", folder.resolve().parent


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def command_arguments(options: argparse.Namespace, *, workers: int) -> list[str]:
    """The arguments of the search command. The result of a trial must not depend on when it runs or on other trials."""
    name, folder = data_set(quick=options.quick)
    settings = {
        "search.trials": options.trials, "search.sampler": "random", "search.pruner": "none", "search.replicates": 0,
        "search.confirm": "null", "final.seeds": 1, "final.draws": 200, "train.epochs": options.epochs,
        "train.shards": 2, "train.precision": "float64", "model.embedding_dim": 64, "model.classifier_dim": 64,
        "model.dropout": 0.0,
        "resources.workers_per_trial": workers, "checkpoint.every_s": options.checkpoint,
    }  # fmt: skip
    if options.quick:
        settings |= {"validation.folds": 2, "final.baselines": "false", "final.rows": "{}"}
    words = [name, *(f"{key}={value}" for key, value in settings.items())]
    return [*words, *(["--data-dir", str(folder)] if folder else [])]


def start(
    stage: Stage, command: str, words: Sequence[str], name: str, address: str, *more: str
) -> "subprocess.Popen[str]":
    command_line = [command, *words, "--name", name, "--runs-dir", str(stage.runs), "--address", address, *more]
    say(f"$ m3col {' '.join(command_line)}")
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *command_line], cwd=REPOSITORY, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=stage.nodes.environment(HF_HUB_OFFLINE="1", PYTHONUNBUFFERED="1"),
    )  # fmt: skip


def kill_half_way(stage: Stage, trials: int) -> None:
    """Kills the second node as soon as half of the trials have ended and it runs one with a checkpoint."""
    try:
        stage.all_at_work()
        stage.wait(lambda: stage.finished() >= trials // 2 and stage.aim(1))
    except RuntimeError:
        return  # the job has ended: `judge` reports it
    stage.strike()
    stage.nodes.kill(1)
    assert stage.before is not None and stage.aimed is not None
    running = [
        f"trial {name} at epoch {len(item.history)} of {item.epochs}, checkpoint at {item.checkpoint}"
        + (" <- there" if item.process == stage.aimed.pid else "")
        for name, item in stage.before.running.items()
    ]
    say(f"*** the second node is killed (signal 9 for all of its processes); {'; '.join(running)} ***")


def main(words: Sequence[str] | None = None) -> int:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--trials", type=int, default=6, help="at least 6, so that half-way both nodes have more to do"
    )
    arguments.add_argument("--epochs", type=int, default=200)
    arguments.add_argument("--workers", type=int, default=2, help="DDP workers per trial")
    arguments.add_argument("--checkpoint", type=float, default=1.0, help="seconds between two checkpoints")
    options = arguments.parse_args(words)
    if options.quick:
        options.trials, options.epochs, options.workers, options.checkpoint = 6, 80, 1, 0.3
    leave_in_order()
    print(machine())
    nodes = Nodes()
    with tempfile.TemporaryDirectory(prefix="demo-") as temporary:
        stage = Stage(nodes, Path(temporary), Path())
        try:
            say(f"starting two Ray nodes with {options.workers} CPUs each, in token mode")
            nodes.start_head(cpus=options.workers)
            nodes.add(cpus=options.workers)
            return play(stage, options)
        finally:
            nodes.end()


def play(stage: Stage, options: argparse.Namespace) -> int:
    arguments = command_arguments(options, workers=options.workers)
    job = start(stage, "submit", arguments, STUDY, stage.nodes.address, "--shared", "--follow")
    stage.drivers.append(job)
    threading.Thread(target=kill_half_way, args=(stage, options.trials), daemon=True).start()
    assert job.stdout is not None
    for line in job.stdout:
        if not _is_rays(line):
            print(line, end="", flush=True)
    code = job.wait()
    address = f"127.0.0.1:{stage.nodes.port}"
    undisturbed = start(
        stage, "search", command_arguments(options, workers=1), CALM, address, "--plain", "--tracking-uri", "none"
    )
    output, _ = undisturbed.communicate()
    if undisturbed.returncode:
        print(output, end="", flush=True)
    return judge(stage, stage.runs / CALM, options.trials, code, every_s=options.checkpoint)


def _is_rays(line: str) -> bool:
    """Whether a line is output of Ray, which prints two screens about a dead node."""
    return "(raylet)" in line or line.startswith((" ", "\t"))


def judge(stage: Stage, undisturbed: Path, trials: int, code: int, *, every_s: float) -> int:
    """Compares the search with the undisturbed one, prints the result and returns an exit code.

    `code`: the exit code of the job.
    """
    faults = [] if code == 0 else [f"the job ended with exit code {code}"]
    if stage.before is None:
        say("FAILED: the job ended before the second node ran a trial with a checkpoint")
        return 1
    effect = damage.damage(stage.study, stage.before, struck=stage.struck, healed=stage.healed, every_s=every_s)
    faults += effect.faults
    for name in effect.cut:
        log = (stage.study / "trials" / name / "log.txt").read_text(encoding="utf-8")
        resumed = re.findall(r"resumes from epoch \d+", log)
        say(f"trial {name} was cut off: {resumed[-1] if resumed else 'began anew'}")
        faults += [] if resumed else [f"trial {name} did not go on from its checkpoint"]
    if not effect.cut:
        faults.append("no trial was cut off")
    values = damage.values(stage.study)
    twice = damage.twice(stage.study, stage.before)
    say(f"{len(values)} of {trials} trials have a result, {twice} ran twice; {effect.lost_work_s:.1f} s of work lost")
    if len(values) < trials or twice:
        faults.append("trials are lost, or ran twice")
    faults += differences(values, damage.values(undisturbed))
    tables = [damage.tables(path) for path in (stage.study, undisturbed)]
    if not tables[0] or tables[0] != tables[1]:
        faults.append("the tables are not those of the undisturbed search")
    say("FAILED: " + "; ".join(faults) if faults else "values and tables are those of the undisturbed search")
    return 1 if faults else 0


def differences(disturbed: Mapping[int, float], undisturbed: Mapping[int, float]) -> list[str]:
    """The trials whose value is not that of the undisturbed search."""
    wrong = sorted(
        number for number in disturbed.keys() | undisturbed.keys()
        if not math.isclose(disturbed.get(number, math.nan), undisturbed.get(number, math.nan), rel_tol=_EQUAL)
    )  # fmt: skip
    return [f"trial {number}: {disturbed.get(number)}, undisturbed {undisturbed.get(number)}" for number in wrong]


if __name__ == "__main__":
    sys.exit(main())
