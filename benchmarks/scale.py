"""What a long search costs its driver: 1,000 trials of no training, 32 at a time, through the whole of the real path.

    python benchmarks/scale.py --sampler random tpe

Plan, coordinator, Optuna in SQLite, Ray Tune with 32 reused actors on logical CPUs, and the thread that writes to
MLflow (SQLite) are those of a search. Only the actor is another: it answers at once with records of a made-up curve,
and writes what a finished run leaves. So all that is measured is book-keeping, and the driver never waits for a trial.

Figures are taken in windows around 100, 300 and 1,000 ended trials of one search; each sampler has its own process.
  driver CPU ms   user and system time of the driver for each trial, the thread that writes to MLflow included
  without MLflow  the same without that thread
  daemons CPU ms  Ray's own processes on this machine (scheduler with object store, cluster store), for each trial
  wall ms         time for each trial, 32 at a time
  driver MB       resident memory of the driver
  folder, db      the study's folder and its database
  reads, opens    what a fresh process reads, and how long it takes, from a copy of the study as a killed driver leaves
                  it to the first run that a resume hands out
The bar: the driver's CPU time for each trial at the end is at most 3 times that at the first window.
"""

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common
import numpy as np
import psutil
import ray
import ray.tune
from safetensors.numpy import save_file

from tune import checks
from tune.engine import ray_cluster
from tune.study.run_messages import RunReport
from tune.study.run_name import RunName
from tune.study.run_spec import report_steps

BAR = 3.0
COUNTS = (100, 300, 1000)
QUICK = (4, 8, 16)
NUMBERS = 20  # metrics of an epoch, as many as a training of three modalities reports
SAMPLES, CLASSES = 100, 10  # of the predictions that a trial leaves
SPACE: dict[str, Any] = {
    "objective.alpha": {"low": 0.05, "high": 1.0},
    "objective.beta": {"low": 0.01, "high": 1.0, "log": True},
    "objective.temperature": {"low": 0.03, "high": 1.0, "log": True},
    "objective.switch_point": {"low": 0.0, "high": 1.0},
    "train.learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
}


class NoTraining(ray.tune.Trainable):
    """Sends the reports of `tune.engine.TrialActor` without a model. Needs neither torch nor data."""

    def setup(self, config: dict[str, Any], study: str = "") -> None:
        self._study = Path(study)
        self._open(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._open(new_config)
        return True

    def _open(self, config: Mapping[str, Any]) -> None:
        run = config["run"]
        self._run, self._begun = run["name"], time.time()
        self._epochs = run["config"]["train"]["epochs"]
        self._random = np.random.default_rng(int(RunName.parse(self._run).number))
        wide = abs(np.log10(run["config"]["train"]["learning_rate"]) + 3) + run["config"]["objective"]["beta"]
        self._best = 0.9 - 0.1 * wide + 0.02 * self._random.normal()
        self._history: list[dict[str, Any]] = []
        self._attempt = _new_attempt(self._study / self._run)

    def step(self) -> dict[str, Any]:
        first = len(self._history)
        until = next(epoch for epoch in report_steps(self._epochs) if epoch > first)
        self._history += [self._record(epoch) for epoch in range(first + 1, until + 1)]
        done = until == self._epochs
        if done:
            self._finish()
        return {"run": self._run, "epoch": until, "records": self._history[first:], "restart": first == 0, "log": [],
                "failure": None, "refused": None, "done": done}  # fmt: skip

    def _record(self, epoch: int) -> dict[str, Any]:
        value = float(self._best * (1 - np.exp(-3 * epoch / self._epochs)))
        metrics = {"train/loss": 1 - value, "val/loss": 1 - value, "val/accuracy": value}
        metrics |= {f"val/number_{index}": value for index in range(NUMBERS - len(metrics))}
        return {"epoch": epoch, "time": time.time(), "value": value, "metrics": metrics}

    def _finish(self) -> None:
        arrays = {
            "index": np.arange(SAMPLES), "fold": np.zeros(SAMPLES, int), "logits": np.zeros((SAMPLES, CLASSES)),
        }  # fmt: skip
        save_file(arrays, self._attempt / "predictions.safetensors")
        last = self._history[-1]
        outcome = {
            "value": last["value"], "loss": last["metrics"]["val/loss"], "metrics": last["metrics"],
            "epochs": self._epochs, "seconds": time.time() - self._begun, "attempt": self._attempt.name,
            "history": self._history,
        }  # fmt: skip
        (self._attempt / "outcome.json").write_text(json.dumps(outcome), encoding="utf-8")

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Does nothing: a restarted run begins at epoch 1."""


def _new_attempt(run: Path) -> Path:
    path = run / f"attempt-{len(list(run.glob('attempt-*'))) + 1}"
    path.mkdir(parents=True)
    return path


@dataclass(frozen=True)
class Reading:
    """The driver's clocks when `count` trials had ended."""

    count: int
    wall: float
    cpu: float
    mlflow: float
    daemons: float
    memory: int


@dataclass
class Meter:
    """Reads the clocks at the ends of the windows, which are `edges`, and keeps a copy of the study at some of them."""

    edges: frozenset[int]
    copies: Mapping[int, Path]
    readings: dict[int, Reading] = field(default_factory=dict)
    folder: Path | None = None
    count: int = 0
    actors: list[int] = field(default_factory=list)

    def observe(self, event: Any) -> None:
        if event.what not in ("complete", "pruned", "failed"):
            return
        self.count += 1
        if self.count in self.edges:
            self.readings[self.count] = self._read()
            if not self.actors:
                self.actors = actor_memory()
        if self.count in self.copies and self.folder is not None:
            copy_study(self.folder, self.copies[self.count])
            self.readings[self.count] = self._read()  # the time of the copy does not count for the next window

    def _read(self) -> Reading:
        process = psutil.Process()
        daemons = [child for child in process.children(recursive=True) if child.name() in ("raylet", "gcs_server")]
        spent = sum(sum(child.cpu_times()[:2]) for child in daemons)
        writers = [thread for thread in threading.enumerate() if thread.name == "mlflow" and thread.ident]
        written = sum(time.clock_gettime(time.pthread_getcpuclockid(thread.ident or 0)) for thread in writers)
        return Reading(self.count, time.perf_counter(), time.process_time(), written, spent, process.memory_info().rss)


def actor_memory() -> list[int]:
    """Memory of each trial actor in bytes (proportional set size)."""
    sizes = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "ImplicitFunc" in process.name() or "NoTraining" in process.name():
                sizes.append(process.memory_full_info().pss)
        except psutil.Error:
            continue
    return sizes


def copy_study(folder: Path, target: Path) -> None:
    """Copies a study that is in use; SQLite's backup function copies its database."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("study.db*", "lock"))
    with (
        closing(sqlite3.connect(folder / "study.db")) as source,
        closing(sqlite3.connect(target / "study.db")) as copied,
    ):
        source.backup(copied)


def opened(folder: Path) -> dict[str, Any]:
    """Opens a study as `--resume` does, up to the first run that it hands out: seconds, bytes read, that run."""
    from tune.scheduling.coordinator import Coordinator
    from tune.scheduling.plan import NextRun
    from tune.study.record import StudyFolder

    read, start = _bytes_read(), time.perf_counter()
    trials = StudyFolder(folder).config().settings.search.trials
    options = checks.Options(resume=folder.name, runs=folder.parent)
    # One more, so that a study which has ended has something to do.
    (ready,) = checks.validate(None, data=None, overrides={"search.trials": trials + 1}, options=options)
    assert ready.folder is not None
    study = common.opened(ready.folder, ready.config, ready.dataset)
    first = Coordinator(study.plan, concurrency=1).next()
    seconds, read = time.perf_counter() - start, _bytes_read() - read
    return {"seconds": seconds, "bytes": read, "first": "none" if isinstance(first, NextRun) else first.name}


def _bytes_read() -> int:
    """Bytes that this process has read, from cache or from disk."""
    return int(psutil.Process().io_counters().read_chars)


def search(runs: Path, sampler: str, options: argparse.Namespace) -> tuple[Meter, Path]:
    """Runs one search. Copies of the study are written to `runs/<count>/`."""
    from m3col.tracking import mlflow_store
    from tune.engine import ray_tune
    from tune.scheduling.coordinator import Coordinator
    from tune.tracking import live_sync

    trials = options.counts[-1]
    study = common.open_study(
        runs,
        {
            "base": "digits", "overrides": {"train.epochs": options.epochs}, "space": SPACE,
            "search": {
                "trials": trials, "sampler": sampler, "pruner": options.pruner, "concurrency": options.concurrency,
            },
        },
    )  # fmt: skip
    edges = windows(options.counts)
    ends = {end: runs / str(count) / study.folder.name for count, (_, end) in edges.items() if end < trials}
    meter = Meter(frozenset(edge for window in edges.values() for edge in window), ends, folder=study.folder.path)
    tracker = None if options.no_mlflow else mlflow_store.connect(f"sqlite:///{runs}/mlflow.db", runs)
    if options.by_hand:
        with live_sync.Background(study.folder, tracker):
            by_hand(Coordinator(study.plan, concurrency=options.concurrency, observe=meter.observe))
        return meter, study.folder.path
    ray_cluster.start_ray(address=None, threads=1, num_cpus=options.concurrency)
    try:
        with live_sync.Background(study.folder, tracker):
            coordinator = Coordinator(study.plan, observe=meter.observe)
            actor = ray.tune.with_parameters(NoTraining, study=str(study.folder.path))
            ray_tune.run(coordinator, study.dataset, study.config.request, actor=actor)
    finally:
        ray_cluster.stop_ray()
    return meter, study.folder.path


def by_hand(coordinator: Any) -> None:
    """Runs all actors in this process, in turn: measures plan, coordinator and database alone."""
    from tune.scheduling.plan import NextRun

    running: dict[str, NoTraining] = {}
    while True:
        spec = coordinator.next()
        if spec is NextRun.DONE:
            return
        if not isinstance(spec, NextRun):
            running[spec.name] = NoTraining.__new__(NoTraining)
            running[spec.name].setup({"run": spec.to_dict()}, study=str(coordinator.folder.path))
            continue
        for name, actor in list(running.items()):
            report = RunReport.from_dict(actor.step())
            if coordinator.on_report(report) or report.done:
                del running[name]


def windows(counts: tuple[int, ...]) -> dict[int, tuple[int, int]]:
    """From which ended trial to which one each count is measured: a tenth of all, the last window before the end."""
    width = max(2, counts[-1] // 10)
    return {
        count: (count - width, count) if count == counts[-1] else (count - width // 2, count + width // 2)
        for count in counts
    }


def rows_of(meter: Meter, folder: Path, options: argparse.Namespace, runs: Path) -> tuple[list[list[str]], float]:
    """A row for each count, and the cost of a trial in the last window divided by that in the first."""
    rows, costs = [], []
    for count, (start, end) in windows(options.counts).items():
        before, after = meter.readings[start], meter.readings[end]
        copy = runs / str(count) / folder.name if end < options.counts[-1] else folder
        opening = _in_fresh_process(copy)
        cpu, mlflow_cpu = after.cpu - before.cpu, after.mlflow - before.mlflow
        times = [cpu, cpu - mlflow_cpu, after.daemons - before.daemons, after.wall - before.wall]
        trials = after.count - before.count
        costs.append(cpu / trials)
        sizes = [
            _size(copy) / 1e6,
            (copy / "study.db").stat().st_size / 1e6,
            opening["bytes"] / 1e6,
            opening["seconds"],
        ]
        rows.append(
            [str(count), *(f"{1e3 * seconds / trials:.0f}" for seconds in times), f"{after.memory / 1e6:.0f}",
             *(f"{size:.2f}" for size in sizes)]
        )  # fmt: skip
    return rows, costs[-1] / costs[0]


def _in_fresh_process(folder: Path) -> dict[str, Any]:
    """`opened`, by a process that has read nothing yet."""
    done = subprocess.run(
        [sys.executable, __file__, "--open", str(folder)], stdout=subprocess.PIPE, text=True, check=True, timeout=600
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--sampler", nargs="+", default=["random", "tpe"], choices=["random", "tpe", "gp"])
    parser.add_argument("--pruner", default="asha", choices=["asha", "median", "none"])
    parser.add_argument(
        "--counts", type=int, nargs="+", default=list(COUNTS), help="where to measure; the last: trials"
    )
    parser.add_argument("--epochs", type=int, default=10, help="of a trial, each a report (default: 10)")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--no-mlflow", action="store_true", help="without the thread that writes to MLflow")
    parser.add_argument("--by-hand", action="store_true", help="without Ray: one process plays all actors")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.counts, options.epochs, options.concurrency = list(QUICK), 5, 2
    options.counts = tuple(sorted(set(options.counts)))
    return options


def main() -> int:
    options = arguments()
    if options.open is not None:
        print(json.dumps(opened(options.open)))
        return 0
    if len(options.sampler) > 1:  # each in its own process, because the second would inherit the memory of the first
        other_arguments = [word for word in sys.argv[1:] if word != "--sampler" and word not in options.sampler]
        command = [sys.executable, __file__, *other_arguments, "--sampler"]
        return max(subprocess.run([*command, sampler]).returncode for sampler in options.sampler)
    (sampler,) = options.sampler
    print(common.machine())
    size = f"{options.epochs} reports a trial, {options.concurrency} at a time"
    print(f"sampler {sampler}, pruner {options.pruner}, {size}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="m3col-benchmark-") as scratch:
        runs = Path(scratch)
        start = time.perf_counter()
        meter, folder = search(runs, sampler, options)
        seconds = time.perf_counter() - start
        rows, ratio = rows_of(meter, folder, options, runs)
        store = sum(path.stat().st_size for path in runs.glob("mlflow.db*"))
    header = ["trials", "driver CPU ms", "without MLflow", "daemons CPU ms", "wall ms", "driver MB", "folder MB",
              "db MB", "resume reads MB", "opens in s"]  # fmt: skip
    print(common.table(header, rows))
    private = f"; an actor has {np.median(meter.actors) / 1e6:.0f} MB" if meter.actors else ""
    print(f"\n{meter.count} trials in {seconds:.0f} s; MLflow's database: {store / 1e6:.1f} MB{private}")
    verdict = "met" if ratio <= BAR else "NOT met"
    print(f"a trial at {options.counts[-1]} / at {options.counts[0]}: {ratio:.2f}; bar {BAR:g}: {verdict}\n")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    sys.exit(main())
