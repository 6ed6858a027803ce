"""Best score against compute: TPE with ASHA pruning, random without pruning, grid; the same number of trials each.

    python benchmarks/samplers.py --plot samplers.png

Searches M3CoL on the embedded digits with the coordinator and executor of a real search in one plain loop, without Ray
and with Optuna in memory: the scores are a function of the arguments. For each seed all three work on the same folds
with the same training seeds, and all begin with the default, so that they differ only in what they choose and prune.
Compute counts trained epochs; 100 % is what all trials take when none is pruned. A score is the cross-validated value
that a search ranks by, before any confirmation: the best of many is optimistic, for all three alike.
"""

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import optuna

from tune.scheduling.coordinator import Coordinator
from tune.scheduling.plan import NextRun

SHARES = (0.25, 0.5, 1.0)
CONTENDERS: dict[str, dict[str, Any]] = {
    "TPE + ASHA": {"sampler": "tpe", "pruner": "asha"},
    "random": {"sampler": "random", "pruner": "none"},
    "grid": {"sampler": "grid", "pruner": "none", "grid_points": 3},
}
# Three ranges with three values each: a grid of 27 points and the default are 28 trials, so that grid can end as well.
SPACE = {
    "objective.beta": {"low": 0.01, "high": 1.0, "log": True},
    "objective.temperature": {"low": 0.03, "high": 1.0, "log": True},
    "train.learning_rate": {"low": 0.0003, "high": 0.03, "log": True},
}


@dataclass(frozen=True)
class Course:
    """One search: after each trial the epochs trained so far and the best score, None before the first finished one."""

    epochs: tuple[int, ...]
    best: tuple[float | None, ...]

    def best_within(self, epochs: float) -> float | None:
        """The best score after at most so many trained epochs; None before the first score."""
        values = [value for spent, value in zip(self.epochs, self.best, strict=True) if spent <= epochs]
        return values[-1] if values else None


def search(runs: Path, settings: dict[str, Any], *, seed: int, trials: int, epochs: int) -> Course:
    """One search to its end, one trial at a time, over as many ranges as a grid of that many trials can cover."""
    ranges = max(1, int(math.log(trials, 3) + 1e-9))
    study = common.open_study(
        runs,
        {
            "base": "digits",
            "overrides": {"train.epochs": epochs, "train.seed": seed, "train.device": "cpu"},
            "validation": {"seed": seed},
            "space": dict(list(SPACE.items())[:ranges]),
            "search": {**settings, "trials": trials, "seed": seed, "concurrency": 1},
        },
        storage=optuna.storages.InMemoryStorage(),
    )
    coordinator = Coordinator(study.plan, concurrency=1)
    spent: list[int] = [0]
    best: list[float | None] = [None]
    while not isinstance(spec := coordinator.next(), NextRun):
        executor = common.executor_for(spec, study.folder, study.dataset)
        while not coordinator.on_report(executor.step()):
            pass
        result = study.folder.run(spec.name).outcome()
        assert result is not None
        scores = [best[-1], result.value if result.is_complete else None]
        spent.append(spent[-1] + result.epochs)
        best.append(max((score for score in scores if score is not None), default=None))
    return Course(tuple(spent), tuple(best))


def median(values: Sequence[float | None]) -> float:
    """The median over seeds. A seed without a score counts as the worst."""
    return statistics.median(float("-inf") if value is None else value for value in values)


def draw(courses: dict[str, list[Course]], whole: int, path: Path) -> None:
    """Draws the median over seeds, and the range from worst to best, over the share of the compute."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    shares = [step / 100 for step in range(101)]
    for name, by_seed in courses.items():
        end = max(course.epochs[-1] for course in by_seed) / whole
        points = [
            (share, [value for value in values if value is not None])
            for share in shares
            if share <= end + 0.01 and None not in (values := [course.best_within(share * whole) for course in by_seed])
        ]
        percent = [100 * share for share, _ in points]
        (line,) = axes.step(percent, [statistics.median(v) for _, v in points], where="post", label=name)
        low, high = [min(v) for _, v in points], [max(v) for _, v in points]
        axes.fill_between(percent, low, high, step="post", alpha=0.12, color=line.get_color())
    axes.set(xlabel="compute: epochs trained, % of all trials unpruned", ylabel="best macro F1 (cross-validated)")
    axes.set_title(f"digits, {len(next(iter(courses.values())))} seeds: median, and worst to best seed")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="searches of each kind (default: 5)")
    parser.add_argument("--trials", type=int, default=28, help="of each search (default: 28, the whole grid)")
    parser.add_argument("--epochs", type=int, default=30, help="of an unpruned trial (default: 30)")
    parser.add_argument("--plot", type=Path, help="write a PNG as well")
    return parser.parse_args()


def compare(
    runs: Path, *, seeds: int, trials: int, epochs: int, report: Callable[[str], None]
) -> dict[str, list[Course]]:
    courses: dict[str, list[Course]] = {name: [] for name in CONTENDERS}
    for seed in range(seeds):
        for name, settings in CONTENDERS.items():
            courses[name].append(search(runs, settings, seed=seed, trials=trials, epochs=epochs))
        report(f"seed {seed + 1} of {seeds} done")
    return courses


def main() -> int:
    options = arguments()
    seeds, trials, epochs = (2, 3, 4) if options.quick else (options.seeds, options.trials, options.epochs)
    with tempfile.TemporaryDirectory(prefix="m3col-benchmark-") as scratch:
        courses = compare(
            Path(scratch), seeds=seeds, trials=trials, epochs=epochs, report=lambda line: print(line, file=sys.stderr)
        )
    whole = trials * epochs
    print(f"digits, {seeds} seeds, {trials} trials of {epochs} epochs; median best macro F1 (5 folds)\n")
    rows = []
    for name, by_seed in courses.items():
        scores = [median([course.best_within(share * whole) for course in by_seed]) for share in SHARES]
        spent = statistics.median(course.epochs[-1] for course in by_seed)
        rows.append([name, *(f"{value:.4f}" for value in scores), f"{spent:g}", f"{spent / whole:.0%}"])
    header = ["search", *(f"at {share:.0%}" for share in SHARES), "epochs spent", "of all"]
    print(common.table(header, rows))
    if options.plot is not None:
        draw(courses, whole, options.plot)
        print(f"\nwritten: {options.plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
