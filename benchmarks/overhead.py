"""What a search costs beyond its training: `m3col search` against plain loops over Optuna with the same trainer.

    python benchmarks/overhead.py                   # digits and ROSMAP, in turns
    python benchmarks/overhead.py --only digits --rounds 1

Three contenders train the same number of trials of the same length, drawn at random, without pruning, one thread each:
one plain loop; two plain loops side by side with half of the trials each, which is what two cores can do at best; and
`m3col search` with two trials at a time, which also fits its baselines, trains its refits, scores the test split, and
writes report, plots and MLflow. The bar: its time is at most 1.15 times that of the two loops, plus 8 s.

Wall time runs from the start of the process to its end. CPU seconds are those of the process and of all that it
started.
"others" is how many cores other programs used meanwhile: with a busy machine compare CPU seconds.
"""

import argparse
import ctypes
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common

FACTOR, PLUS_S = 1.15, 8.0
SPACE = {
    "objective.alpha": {"low": 0.05, "high": 1.0, "log": True},
    "objective.beta": {"low": 0.01, "high": 1.0, "log": True},
    "objective.temperature": {"low": 0.03, "high": 1.0, "log": True},
    "objective.switch_point": {"low": 0.0, "high": 1.0},
}
TASKS: dict[str, dict[str, Any]] = {
    "digits": {"base": "digits", "search": {"trials": 24}},
    "rosmap": {"base": "rosmap", "overrides": {"train.epochs": 20}, "search": {"trials": 10}},
}
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: processes that outlive their parent become children of this one


def config_of(task: str, trials: int, *, seed: int) -> dict[str, Any]:
    """The search config of a task."""
    raw = TASKS[task]
    search = {
        "trials": trials, "seed": seed, "sampler": "random", "pruner": "none", "replicates": 0, "confirm": None,
        "concurrency": 2,
    }  # fmt: skip
    overrides = {**raw.get("overrides", {}), "resources.threads": 1}
    return {"base": raw["base"], "overrides": overrides, "space": SPACE, "search": search, "final": {"seeds": 1}}


def plain_loop(task: str, trials: int, seed: int) -> None:
    """One plain loop over Optuna, in this process."""
    import optuna
    import torch

    from m3col.data import splits
    from m3col.tasks import registry
    from m3col.training.history import TrainingJob
    from m3col.training.loop import LockstepTrainer
    from tune import checks
    from tune.study.partitions import SEARCH_PARTITION, partitions

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as runs:
        raw = config_of(task, trials, seed=seed)
        (ready,) = checks.validate(raw, data=None, overrides={}, options=checks.Options(runs=Path(runs)))
    study, dataset = ready.config, ready.dataset
    samples = splits.pool(dataset, str(study.run.validation.kind))
    folds = partitions(study, dataset)[SEARCH_PARTITION]

    def score(trial: optuna.Trial) -> float:
        params = {name: trial._suggest(name, distribution) for name, distribution in study.space.items()}
        run = study.point(params)
        job = TrainingJob(samples, folds, dataset.features, registry.of(run, dataset.classes))
        training = LockstepTrainer(run, job)
        training.advance(run.train.epochs)
        return float(training.history[-1].value or 0.0)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed)).optimize(
        score, n_trials=trials
    )


def search(task: str, trials: int, seed: int, runs: Path) -> int:
    """`m3col search` in this process. Writes when each of its phases ended to `runs`/phases.jsonl."""
    from jobs import cli

    class Phases(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with (runs / "phases.jsonl").open("a") as stream:
                stream.write(json.dumps([record.getMessage(), record.created]) + "\n")

    logger = logging.getLogger("m3col.phases")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(Phases())
    (runs / "search.json").write_text(json.dumps(config_of(task, trials, seed=seed)))
    return cli.main(["search", str(runs / "search.json"), "--plain", "--runs-dir", str(runs)])


@dataclass(frozen=True)
class Cost:
    """What a contender cost: wall and CPU seconds, and the cores that other programs used meanwhile."""

    wall_s: float
    cpu_s: float
    others: float


def _busy_s() -> float:
    """CPU seconds of all programs on this machine since it started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system = (int(field) for field in fields[:3])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def run_together(commands: Sequence[Sequence[str]], log: Path) -> Cost:
    """Runs commands side by side until all have ended, and waits for what they left running."""
    before, children, started = _busy_s(), os.times(), time.monotonic()
    with log.open("a") as stream:
        running = [subprocess.Popen(command, stdout=stream, stderr=stream) for command in commands]
        codes = [process.wait() for process in running]
    wall = time.monotonic() - started
    while True:  # daemons of Ray, which are children of this process now
        try:
            os.wait()
        except ChildProcessError:
            break
    after = os.times()
    cpu = after.children_user + after.children_system - children.children_user - children.children_system
    if any(codes):
        raise SystemExit(f"a contender failed:\n{log.read_text()[-3000:]}")
    elapsed = time.monotonic() - started
    return Cost(wall, cpu, max(0.0, (_busy_s() - before - cpu) / elapsed))


def command(kind: str, task: str, trials: int, seed: int, runs: Path) -> list[str]:
    words = ["--child", kind, "--only", task, "--trials", str(trials), "--seed", str(seed), "--runs", str(runs)]
    return [sys.executable, __file__, *words]


def phases(runs: Path, started: float) -> dict[str, float]:
    """Seconds from the start of a search's process to the end of each phase, in order; needs the folder of its runs."""
    lines = (runs / "phases.jsonl").read_text().splitlines()
    times = {name: at for name, at in map(json.loads, lines)}
    (study,) = (path.parent for path in runs.glob("*/study.json"))
    attempts = [path.stat().st_mtime for path in study.glob("trials/*/attempt-1/attempt.json")]
    records = [json.loads(path.read_text().splitlines()[0])["time"] for path in study.glob("trials/*/history.jsonl")]
    ended = {path: json.loads(path.read_text())["ended"] for path in study.rglob("result.json")}
    begun = [json.loads(path.read_text())["started"] for path in study.rglob("result.json")]
    times |= {
        "first run handed out": min(begun),
        "first actor works": min(attempts),
        "first epoch trained": min(records),
        "last trial ended": max(at for path, at in ended.items() if path.parent.parent.name == "trials"),
        "last refit ended": max(ended.values()),
        "predictions and baselines": (study / "predictions.parquet").stat().st_mtime,
        "test table": (study / "results/test_table.csv").stat().st_mtime,
        "report complete": (study / "results/summary.md").stat().st_mtime,
    }
    return {name: at - started for name, at in sorted(times.items(), key=lambda item: item[1])}


def round_of(task: str, trials: int, seed: int, folder: Path) -> tuple[dict[str, Cost], dict[str, float]]:
    """One run of each contender, one after the other, and the phases of the search."""
    runs, log = folder / "runs", folder / "log.txt"
    runs.mkdir(parents=True)
    costs = {
        "one loop": run_together([command("plain", task, trials, seed, runs)], log),
        "two loops": run_together([command("plain", task, trials // 2, seed + half, runs) for half in (0, 1)], log),
    }
    started = time.time()
    costs["m3col search"] = run_together([command("search", task, trials, seed, runs)], log)
    ends = {"process ended": costs["m3col search"].wall_s}
    return costs, dict(sorted({**phases(runs, started), **ends}.items(), key=lambda item: item[1]))


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--only", choices=[*TASKS], help="one data set (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contender, in turns (default: 3)")
    parser.add_argument("--trials", type=int, help="trials of a search (default: 24 on digits, 10 on ROSMAP)")
    parser.add_argument("--child", choices=["plain", "search"], help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def report(task: str, costs: Sequence[Mapping[str, Cost]], profile: Mapping[str, float]) -> None:
    """Prints the table of a task, the ratios and the phases of the last search."""
    two, ours = ([each[name].wall_s for each in costs] for name in ("two loops", "m3col search"))
    rows = [
        [name, *(f"{value:.1f}" for value in (cost.wall_s, cost.cpu_s)), f"{cost.others:.2f}"]
        for each in costs
        for name, cost in each.items()
    ]
    print(f"\n{task}\n\n{common.table(['contender', 'wall s', 'CPU s', 'others'], rows)}")
    over = sorted(mine - FACTOR * limit for mine, limit in zip(ours, two, strict=True))
    print(f"\nwall: m3col search / two loops {common.median_ratio(ours, two):.2f}; ", end="")
    beyond = over[len(over) // 2]
    print(
        f"beyond {FACTOR} times two loops: {beyond:.1f} s; bar {PLUS_S:g} s: {'met' if beyond <= PLUS_S else 'NOT met'}"
    )
    cpu = [[each[name].cpu_s for each in costs] for name in ("m3col search", "two loops")]
    print(f"CPU: m3col search / two loops {common.median_ratio(*cpu):.2f}\n")
    before = 0.0
    lines = []
    for name, at in profile.items():
        lines.append([name, f"{at:.1f}", f"{at - before:.1f}"])
        before = at
    print(common.table(["phase of the last search", "ended at s", "took s"], lines), flush=True)


def main() -> int:
    options = arguments()
    if options.child == "plain":
        plain_loop(options.only, options.trials, options.seed)
        return 0
    if options.child == "search":
        return search(options.only, options.trials, options.seed, options.runs)
    # Ray's workers have a niceness of 15 by default: beside other programs they would get less than a plain loop.
    os.environ.update({"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"})
    os.environ["PYTHONPATH"] = os.pathsep.join(str(path) for path in (Path(__file__).parents[1], Path(__file__).parent))
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    print(common.machine(), flush=True)
    for task in [options.only] if options.only else TASKS:
        trials = 2 if options.quick else options.trials or TASKS[task]["search"]["trials"]
        costs = []
        for number in range(1 if options.quick else options.rounds):
            with tempfile.TemporaryDirectory(prefix="m3col-benchmark-") as scratch:
                cost, profile = round_of(task, trials, 2 * number, Path(scratch))
            costs.append(cost)
        report(task, costs, profile)
        if options.quick:
            break
    return 0


if __name__ == "__main__":
    sys.exit(main())
