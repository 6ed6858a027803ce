"""Trial turnaround: seconds between the end of one trial and the first step of the next, one trial at a time.

    python benchmarks/turnaround.py

reused: the engine as a search runs it (coordinator, Optuna in SQLite, one actor that serves trial after trial).
fresh: the same trial actor under Ray Tune with `reuse_actors=False`, a new process for each trial; without coordinator
and Optuna, which favours this row. A gap runs from the end of a trial's last epoch to the end of the next one's first,
so that one tiny epoch is part of it. The bar for the median of the reused row is 0.5 s.
"""

import argparse
import itertools
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import common
import ray
import ray.tune

from tune.engine import ray_cluster, ray_tune
from tune.engine import trials as engine_trials
from tune.scheduling.coordinator import Coordinator
from tune.study.partitions import SEARCH_PARTITION
from tune.study.run_spec import TRIAL, RunSpec

BAR_S = 0.5
SEARCH: dict[str, Any] = {
    "base": "digits",
    "overrides": {"train.epochs": 3},
    "validation": {"folds": 2},
    "space": {"objective.beta": {"low": 0.01, "high": 1.0, "log": True}},
}


def gaps(spans: list[tuple[float, float]]) -> list[float]:
    """Seconds between trials, from the ends of each trial's first and last epoch."""
    ordered = sorted(spans)
    return [after[0] - before[1] for before, after in itertools.pairwise(ordered)]


def reused(runs: Path, trials: int) -> list[float]:
    study = common.open_study(runs, {**SEARCH, "search": {"trials": trials, "sampler": "tpe", "concurrency": 1}})
    coordinator = Coordinator(study.plan, concurrency=1)
    ray_tune.run(coordinator, study.dataset, study.config.request)
    histories = [study.folder.run(f"trials/{number}").history() for number in range(trials)]
    return gaps([(history[0]["time"], history[-1]["time"]) for history in histories if history])


class _Times(ray.tune.Callback):
    """Collects when the epochs of each trial ended. Tune hands a trial's last result to `on_trial_complete` only."""

    def __init__(self) -> None:
        self.by_trial: dict[str, list[float]] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self.by_trial.setdefault(trial.trial_id, []).extend(record["time"] for record in result["records"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.on_trial_result(iteration, trials, trial, trial.last_result)


def fresh(runs: Path, trials: int) -> list[float]:
    study = common.open_study(runs, {**SEARCH, "search": {"trials": trials}})
    specs = [
        RunSpec(f"trials/{number}", TRIAL, study.config.run.to_dict(), SEARCH_PARTITION) for number in range(trials)
    ]
    for spec in specs:
        study.folder.run(spec.name).path.mkdir(parents=True)  # a coordinator does it before a run begins
    actor = ray.tune.with_parameters(
        engine_trials.TrialActor,
        shared_data=[ray.put(common.shared_data(study.folder, study.dataset))],
        test_inputs=[ray.put(None)],
        request=study.config.request,
    )
    times = _Times()
    ray.tune.Tuner(
        ray.tune.with_resources(actor, {"CPU": 1}),
        param_space={"run": ray.tune.grid_search([spec.to_dict() for spec in specs])},
        tune_config=ray.tune.TuneConfig(reuse_actors=False, max_concurrent_trials=1),
        run_config=ray.tune.RunConfig(
            name="fresh",
            storage_path=str(runs / "tune"),
            verbose=0,
            callbacks=[times],
            checkpoint_config=ray.tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()
    return gaps([(min(epoch_ends), max(epoch_ends)) for epoch_ends in times.by_trial.values()])


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--trials", type=int, default=10, help="of each kind (default: 10)")
    parser.add_argument("--cpus", type=int, default=2, help="of the local Ray cluster (default: 2)")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    trials = 3 if options.quick else options.trials
    processes = 2 if options.quick else trials
    print(common.machine())
    print(f"Ray {ray.__version__}, up to {trials} trials of {SEARCH['overrides']['train.epochs']} epochs each\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="m3col-benchmark-") as scratch:
        ray_cluster.start_ray(address=None, threads=1, num_cpus=options.cpus)
        try:
            measured = {
                "reused": reused(Path(scratch) / "reused", trials),
                "fresh": fresh(Path(scratch) / "fresh", processes),
            }
        finally:
            ray_cluster.stop_ray()
    rows = [
        [name, len(values), *(f"{value:.2f}" for value in (statistics.median(values), min(values), max(values)))]
        for name, values in measured.items()
    ]
    print(common.table(["actor", "gaps", "median s", "least s", "most s"], rows))
    medians = {name: statistics.median(values) for name, values in measured.items()}
    verdict = "met" if medians["reused"] <= BAR_S else "NOT met"
    print(f"\nfresh / reused: {medians['fresh'] / medians['reused']:.1f}; bar {BAR_S} s: {verdict}")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    sys.exit(main())
