"""A cluster of two nodes on this machine, a search sent to it as a job, and one node killed half-way.

Both nodes have the CPUs of one whole trial, which trains with two DDP workers. The job goes through the Jobs API with a
token. ROSMAP where its files are found, else the embedded digits. The search must end with its table all the same.

    make demo-cluster        or: python benchmarks/demo_cluster.py [--trials 6] [--epochs 10]
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import leave_in_order, machine, parser
from m3col import data
from m3col.data import mogonet
from m3col.faults import BadInput
from tests.ray_nodes import Nodes

REPOSITORY = Path(__file__).resolve().parents[1]
WORKERS = 2
STUDY = "demo"


def data_set() -> tuple[str, Path | None]:
    """The name of the search config, and the folder that holds the data."""
    try:
        found = data.locate("rosmap")
    except BadInput:
        return "digits", None
    return ("rosmap", found.resolve().parent) if mogonet.looks_like(found) else ("digits", None)


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def submit(nodes: Nodes, runs: Path, options: argparse.Namespace) -> "subprocess.Popen[str]":
    name, folder = data_set()
    settings = {
        "search.trials": options.trials, "search.replicates": 0, "search.confirm": "null", "final.seeds": 1,
        "final.draws": 200, "train.epochs": options.epochs, "resources.workers_per_trial": WORKERS,
        "checkpoint.every_s": 2,
    }  # fmt: skip
    words = ["submit", name, *(f"{key}={value}" for key, value in settings.items()), "--name", STUDY]
    words += ["--address", nodes.address, "--runs-dir", str(runs), "--shared", "--follow"]
    words += ["--data-dir", str(folder)] if folder else []
    say(f"$ m3col {' '.join(words)}")
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *words], cwd=REPOSITORY, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=nodes.environment(HF_HUB_OFFLINE="1"),
    )  # fmt: skip


def kill_half_way(nodes: Nodes, study: Path, trials: int, killed: list[str]) -> None:
    """Waits until half of the trials have ended and one trains, then ends the second node."""
    while not killed:
        time.sleep(0.2)
        begun = [path.parent for path in study.glob("trials/*/config.yaml")]
        running = [path for path in begun if not (path / "result.json").exists()]
        if len(begun) - len(running) >= trials // 2 and any((path / "history.jsonl").exists() for path in running):
            names = ", ".join(sorted(f"trial {path.name}" for path in running))
            killed.append(names)
            say(f"*** the second node is killed (signal 9 for all of its processes); running: {names} ***")
            nodes.kill(1)


def main(words: Sequence[str] | None = None) -> int:
    made = parser(__doc__)
    made.add_argument("--trials", type=int, default=6)
    made.add_argument("--epochs", type=int, default=10)
    options = made.parse_args(words)
    if options.quick:
        options.trials, options.epochs = 2, 10
    leave_in_order()
    print(machine())
    killed: list[str] = []
    nodes = Nodes()
    with tempfile.TemporaryDirectory(prefix="demo-") as temporary:
        runs = Path(temporary) / "runs"
        try:
            say(f"starting two Ray nodes with {WORKERS} CPUs each, in token mode")
            nodes.start_head(cpus=WORKERS)
            nodes.add(cpus=WORKERS)
            job = submit(nodes, runs, options)
            threading.Thread(
                target=kill_half_way, args=(nodes, runs / STUDY, options.trials, killed), daemon=True
            ).start()
            assert job.stdout is not None
            for line in job.stdout:
                print(line, end="", flush=True)
            code = job.wait()
        finally:
            nodes.end()
        return judge(runs / STUDY, options.trials, code, killed)


def judge(study: Path, trials: int, code: int, killed: Sequence[str]) -> int:
    """Whether the search ended as if nothing had happened; says so."""
    states = [json.loads(path.read_text())["state"] for path in study.glob("trials/*/result.json")]
    again = [
        f"{path.parent.relative_to(study)} {found[0]}"
        for path in sorted(study.glob("*/**/log.txt"))
        if (found := re.findall(r"goes on from epoch \d+", path.read_text()))
    ]
    say(f"the job ended with exit code {code}; a node was killed: {'yes' if killed else 'no'}")
    say(f"{len(states)} of {trials} trials have a result: {', '.join(sorted(states))}")
    say(f"went on from a checkpoint: {'; '.join(again) or 'none'}")
    whole = code == 0 and bool(killed) and len(states) == trials and (study / "results" / "summary.md").exists()
    say("the table is there and nothing was lost" if whole else "FAILED")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
