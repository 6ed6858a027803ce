"""Where the time of a trial with two DDP workers goes, with our settings of Ray Train and with Ray's own.

    python benchmarks/nested.py

Such a trial starts processes of its own for the trial, Ray Train's controller and helpers, and each worker; training is
tiny here. Each phase ends when the named process, or what it does, is first seen (its title, looked at 20 times a
second), or when the driver hears of it. The first trial warms the disk's cache and is left out.

    ours         reports fetched 5 times a second, no watcher of preemptions, no metrics
    Ray's own    every 2 s, with both

Workers report at most once a second in both.
"""

import contextlib
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import common
import psutil
import ray

from tune.engine import ray_cluster, ray_tune
from tune.scheduling.coordinator import Coordinator, Event

DEFAULTS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "2.0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "1",
    "RAY_TRAIN_METRICS_ENABLED": "1",
}
# Title of a process, or event -> the phase that ends when it is first seen.
PHASES = {
    "ray::ImplicitFunc.train": "the trial's process",
    "ray::TrainController.run": "queue and controller",
    "ray::RayTrainWorker.init_train_context": "placement, two workers, helpers",
    "ray::RayTrainWorker.run_train_fn": "data manager, process group",
    "progress": "data, model, epochs to the first report",
    "complete": "the other epochs and reports",
}


def search(epochs: int, trials: int) -> dict[str, Any]:
    return {
        "base": "digits",
        "overrides": {"train.epochs": epochs, "model.embedding_dim": 16, "model.classifier_dim": 16},
        "validation": {"folds": 2},
        "space": {"objective.beta": {"low": 0.01, "high": 1.0, "log": True}},
        "search": {"trials": trials, "sampler": "random", "pruner": "none", "concurrency": 1},
        "resources": {"workers_per_trial": 2},
    }


class Clock:
    """When each phase of each trial ended, in seconds from the trial's start."""

    def __init__(self) -> None:
        self.trials: list[dict[str, float]] = []
        self._began = 0.0
        self._seen: set[int] = set()

    def observe(self, event: Event) -> None:
        now = time.monotonic()
        if event.what == "started":
            self._began = now
            self.trials.append({})
        elif event.what == "complete":
            self.trials[-1].setdefault("progress", now - self._began)
            self.trials[-1]["complete"] = now - self._began
            self._seen |= {process.pid for process in psutil.Process().children(recursive=True)}
        else:
            self.trials[-1].setdefault(event.what, now - self._began)

    def watch(self, stop: threading.Event) -> None:
        while not stop.wait(0.05):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    title = (process.cmdline() or [""])[0]
                    if title in PHASES and process.pid not in self._seen and self.trials:
                        self.trials[-1].setdefault(title, time.monotonic() - self._began)


def measure(epochs: int, trials: int) -> list[dict[str, float]]:
    """Seconds of each phase of every trial except the first. A late report counts for the next phase."""
    clock, stop = Clock(), threading.Event()
    ray_cluster.start_ray(address=None, threads=1, num_cpus=2, dashboard=True)
    thread = threading.Thread(target=clock.watch, args=(stop,), daemon=True)
    thread.start()
    try:
        with tempfile.TemporaryDirectory() as runs:
            study = common.open_study(Path(runs), search(epochs, trials))
            ray_tune.check(study.config.request)
            coordinator = Coordinator(study.plan, observe=clock.observe)
            ray_tune.run(coordinator, study.dataset, study.config.request)
    finally:
        stop.set()
        thread.join()
        ray.shutdown()
    durations = []
    for ends in clock.trials[1:] or clock.trials:
        before, phases = 0.0, {}
        for key, name in PHASES.items():
            end = max(ends.get(key, before), before)
            phases[name], before = end - before, end
        durations.append(phases)
    return durations


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=50)
    options = parser.parse_args()
    if options.quick:
        options.trials, options.epochs = 1, 5
    print(common.machine())
    columns = {"ours": measure(options.epochs, options.trials)}
    os.environ.update(DEFAULTS)
    columns["Ray's own"] = measure(options.epochs, options.trials)
    rows: list[list[object]] = [
        [name, *(f"{statistics.median(trial[name] for trial in measured):.1f}" for measured in columns.values())]
        for name in PHASES.values()
    ]
    totals = [statistics.median(sum(trial.values()) for trial in measured) for measured in columns.values()]
    rows.append(["whole trial", *(f"{total:.1f}" for total in totals)])
    print(
        f"\n{options.trials} trials of {options.epochs} epochs, two workers each, one trial at a time; median seconds\n"
    )
    print(common.table(["phase", *columns], rows))
    print(f"\nRay's own / ours: {totals[1] / totals[0]:.2f}")


if __name__ == "__main__":
    sys.exit(main())
