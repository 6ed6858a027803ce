"""What MLflow costs: time to write a search of 1,000 trials with 50 epochs each, and the share of the search it takes.

    python benchmarks/mlflow_cost.py --trial-seconds 5 60

Makes the files of a finished search (histories with the metrics of a real trial), then measures
`tune.tracking.study_to_mlflow`:
  all at once     one `m3col sync` of everything, as after a search without its store
  again           the same once more: it must add nothing
  trial finished  one pass of the driver's thread in which one more trial, with all its epochs, is new
  epochs of one   one pass in which a running trial has new epochs
  nothing new     one pass in which nothing happened
The driver's thread passes every 5 s. From these the share for given trial lengths is computed, one trial at a time:
one "trial finished" each, and "epochs of one" for each further pass during the trial.
"""

import argparse
import copy
import dataclasses
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
import optuna

from m3col.tracking import mlflow_store
from m3col.tracking.mlflow_store import Tracker
from tune.scheduling.coordinator import Coordinator
from tune.scheduling.plan import NextRun
from tune.study.run_folder import RunFolder
from tune.tracking import study_to_mlflow, sync
from tune.tracking import sync as tracking_sync

EVERY_S = 5.0  # between two passes of the driver's thread
PASSES = 10
BAR = 0.05
SPACE = {
    "objective.alpha": (0.05, 1.0),
    "objective.beta": (0.01, 1.0),
    "objective.temperature": (0.03, 1.0),
    "objective.switch_point": (0.0, 1.0),
}
_STORED = ("metrics", "params", "tags", "runs", "latest_metrics", "inputs")


@dataclass(frozen=True)
class Cost:
    seconds: float
    cpu_s: float


def timed(call: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def median(costs: list[Cost]) -> Cost:
    return Cost(statistics.median(cost.seconds for cost in costs), statistics.median(cost.cpu_s for cost in costs))


class Fabricated:
    """A study with the files of any number of trials: a real one, and copies of it with changed values."""

    def __init__(self, runs: Path, *, trials: int, epochs: int) -> None:
        search = {"trials": trials, "sampler": "random", "pruner": "none", "concurrency": 1}
        space = {path: {"low": low, "high": high} for path, (low, high) in SPACE.items()}
        overrides = {"train.epochs": epochs, "model.embedding_dim": 8, "model.classifier_dim": 8}
        self._study = common.open_study(
            runs,
            {"base": "digits", "overrides": overrides, "validation": {"folds": 2}, "space": space, "search": search},
            # MLflow gets its data from the files of the runs, so that the study's own database may be empty.
            storage=optuna.storages.InMemoryStorage(),
        )
        self.folder = self._study.folder
        self._random = np.random.default_rng(0)
        self._history, self._result = self._real_trial()
        self.count = 1

    def _real_trial(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        coordinator = Coordinator(self._study.plan, concurrency=1)
        spec = coordinator.next()
        assert not isinstance(spec, NextRun)
        executor = common.executor_for(spec, self.folder, self._study.dataset)
        while not coordinator.on_report(executor.step()):
            pass
        run = self.folder.run(spec.name)
        result = run.outcome()
        assert result is not None and result.is_complete
        return run.history(), result

    @property
    def numbers_per_epoch(self) -> int:
        return len(self._history[0]["metrics"])

    def begin(self) -> tuple[RunFolder, list[dict[str, Any]]]:
        """Creates a trial without epochs. Returns its folder and the records that it will get."""
        number, self.count = self.count, self.count + 1
        run = self.folder.run(f"trials/{number}")
        params = {path: float(self._random.uniform(low, high)) for path, (low, high) in SPACE.items()}
        run.create(self._study.config.point(params).to_dict())
        records = copy.deepcopy(self._history)
        shift, offset = float(self._random.normal(0, 0.01)), number * EVERY_S
        for record in records:
            record["time"] += offset
            record["value"] += shift
            record["metrics"] = {name: value + shift for name, value in record["metrics"].items()}
        return run, records

    def finish(self, run: RunFolder, records: list[dict[str, Any]]) -> None:
        last = records[-1]
        run.write_outcome(
            dataclasses.replace(
                self._result, value=last["value"], metrics=last["metrics"], started=records[0]["time"],
                ended=last["time"],
            )
        )  # fmt: skip

    def add(self) -> None:
        """Adds a finished trial."""
        run, records = self.begin()
        run.append(records, restart=True)
        self.finish(run, records)


def stored_rows(database: Path) -> dict[str, int]:
    """Number of rows by table of MLflow's database."""
    with closing(sqlite3.connect(database)) as connection:
        existing = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return {
            name: connection.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0]
            for name in _STORED
            if name in existing
        }


def passes(study: Fabricated, tracker: Tracker) -> dict[str, Cost]:
    """Costs of the passes of the driver's thread near the end of a search, where they are highest."""
    mlflow_study = study_to_mlflow.StudyToMlflow(study.folder, tracker)

    def one_pass() -> None:
        sync.send(mlflow_study, None)

    one_pass()
    idle = [timed(one_pass) for _ in range(PASSES)]
    finished = []
    for _ in range(PASSES):
        study.add()
        finished.append(timed(one_pass))
    run, records = study.begin()
    piece = max(1, len(records) // PASSES)
    partial = []
    for start in range(0, len(records), piece):
        run.append(records[start : start + piece], restart=start == 0)
        partial.append(timed(one_pass))
    study.finish(run, records)
    one_pass()
    return {"trial finished": median(finished), "epochs of one": median(partial), "nothing new": median(idle)}


def share(costs: dict[str, Cost], trial_s: float) -> Cost:
    """The share of MLflow's thread in a search of such trials, one at a time: of wall time, and of one CPU."""
    further = max(0.0, trial_s / EVERY_S - 1)
    finished, partial = costs["trial finished"], costs["epochs of one"]
    return Cost(
        (finished.seconds + further * partial.seconds) / trial_s, (finished.cpu_s + further * partial.cpu_s) / trial_s
    )


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--trial-seconds", type=float, nargs="+", default=[5.0, 60.0], help="lengths of a trial")
    return parser.parse_args()


def measure(runs: Path, *, trials: int, epochs: int) -> tuple[dict[str, Cost], dict[str, int], int, Fabricated]:
    """Costs, rows before and after the second sync (equal: none was added), bytes of the store, the study."""
    study = Fabricated(runs, trials=trials + PASSES + 1, epochs=epochs)
    for _ in range(trials - 1):
        study.add()
    tracker = mlflow_store.connect(f"sqlite:///{runs}/mlflow.db", runs)
    assert tracker is not None
    costs = {"all at once": timed(lambda: sync.sync(study.folder, tracker))}
    before = stored_rows(runs / "mlflow.db")
    costs["again"] = timed(lambda: tracking_sync.sync(study.folder, tracker))
    added = {name: count - before[name] for name, count in stored_rows(runs / "mlflow.db").items()}
    size = (runs / "mlflow.db").stat().st_size
    costs |= passes(study, tracker)
    return costs, added, size, study


def main() -> int:
    options = arguments()
    trials, epochs = (4, 10) if options.quick else (options.trials, options.epochs)
    print(common.machine())
    with tempfile.TemporaryDirectory(prefix="m3col-benchmark-") as scratch:
        costs, added, size, study = measure(Path(scratch), trials=trials, epochs=epochs)
    print(f"{trials} trials of {epochs} epochs, {study.numbers_per_epoch} numbers per epoch\n")
    rows = [[name, f"{cost.seconds:.3f}", f"{cost.cpu_s:.3f}"] for name, cost in costs.items()]
    print(common.table(["what", "seconds", "CPU seconds"], rows))
    per_trial = Cost(costs["all at once"].seconds / trials, costs["all at once"].cpu_s / trials)
    print(f"\nall at once, per trial: {per_trial.seconds:.3f} s, {per_trial.cpu_s:.3f} CPU s")
    print(f"rows that the second sync added: {sum(added.values())}; store: {size / 1e6:.0f} MB")
    print("\nshare of a search, one trial at a time")
    lines = []
    for trial_s in options.trial_seconds:
        busy = share(costs, trial_s)
        shares = [per_trial.seconds / trial_s, busy.cpu_s, busy.seconds]
        verdict = "met" if busy.seconds <= BAR else "NOT met"
        lines.append([f"trials of {trial_s:g} s", *(f"{value:.2%}" for value in shares), verdict])
    print(common.table(["search", "all at once", "passes, of a CPU", "passes, of the time", f"bar {BAR:.0%}"], lines))
    if any(added.values()):
        print(f"the second sync added rows: {added}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
