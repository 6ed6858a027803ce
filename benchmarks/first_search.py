"""The first search of the README, ten times: does the winner beat the default setting and the free baselines?

    python benchmarks/first_search.py --out first_search       # about half an hour on one core

Each seed draws the images of the splits and their pairs anew (m3col.data.formats.digit_sums) and is the seed of the
search. Seed 0 has the data and the seed of `make search`. The coordinator and executor of a real search run in one
plain loop, without Ray and with one trial at a time, so that the scores are a function of the seed. Each search is a
study in the folder `--out`; a second call resumes what an earlier one left.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import pandas as pd

from m3col.data import splits
from m3col.data.formats import digit_sums
from m3col.metrics.spec import higher_is_better
from tune import checks, study_run
from tune.engine.run_executor import RunExecutor, SharedStudyData
from tune.results import collect
from tune.results import report as results_report
from tune.scheduling.coordinator import Coordinator
from tune.scheduling.optuna_study import Trials
from tune.scheduling.plan import NextRun, Plan
from tune.study import partitions
from tune.study.record import StudyFolder

QUICK: dict[str, Any] = {
    "train.epochs": 2, "search.trials": 2, "search.replicates": 0, "search.confirm": None, "final.seeds": 2,
    "final.baselines": ["linear"], "final.draws": 100,
}  # fmt: skip

ROWS = ("concat", "mixup", "late")


def main(arguments: Sequence[str] | None = None) -> int:
    """Searches with each seed and prints the table. Returns the exit code."""
    parser = common.parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)), help="default: 0 to 9")
    parser.add_argument("--out", type=Path, help="folder of the studies; default: a temporary one")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        tables = {}
        for seed in options.seeds:
            tables[seed] = search(out, seed, QUICK if options.quick else {})
            print(f"seed {seed}: {out / f'seed-{seed}' / 'results'}", file=sys.stderr, flush=True)
    print(common.machine() + "\n")
    print(report(tables))
    return 0


def search(out: Path, seed: int, overrides: dict[str, Any]) -> pd.DataFrame:
    """The lines of one study's test table in the declared metric, by row. A study that has ended is only read.

    Args:
        out: folder of the studies.
        seed: seed of the data and of the search.
        overrides: changes of the search config.

    Returns:
        The table; column `seconds` has the CPU time of the search, NaN where it was resumed.
    """
    name = f"seed-{seed}" + ("-quick" if overrides else "")
    file = out / name / "first_search.csv"
    if not file.exists():
        is_new, started = not file.parent.exists(), time.process_time()
        changed = {"search.seed": seed, "search.concurrency": 1, **overrides}
        (ready,) = checks.validate(
            "digit_sums", data=digit_sums.read(seed=seed), overrides=changed, options=checks.Options(runs=out)
        )
        folder = StudyFolder(out / name)
        if is_new:
            folder = study_run.create(ready, out, name, name)
        if not (folder.path / "splits.csv").exists():
            samples = splits.pool(ready.dataset, str(ready.config.run.validation.kind))
            splits.write_csv(
                folder.path / "splits.csv", samples.ids, partitions.partitions(ready.config, ready.dataset)
            )
        table = run(folder, ready)
        seconds = time.process_time() - started if is_new else float("nan")
        table[table["metric"] == table["metric"].iloc[0]].assign(seconds=seconds).to_csv(file, index=False)
    return pd.read_csv(file).set_index("row")


def run(folder: StudyFolder, ready: checks.CheckedStudy) -> pd.DataFrame:
    """Executes the plan of a study in this process, one run at a time. Returns its test table."""
    config, dataset = ready.config, ready.dataset
    trials = Trials(
        folder.storage(), name=folder.database_name(), settings=config.settings.search,
        maximize=higher_is_better(str(config.run.metric)), space=config.space,
    )  # fmt: skip
    coordinator = Coordinator(Plan(folder, config, trials), concurrency=1)
    inputs = None if dataset.test is None else dataset.test.inputs
    shared = SharedStudyData(str(folder.path), dataset.without_test(), splits.read_csv(folder.path / "splits.csv"))
    while not isinstance(spec := coordinator.next(), NextRun):
        executor = RunExecutor(spec, shared, test_inputs=lambda: inputs)
        while True:
            event = executor.step()
            if coordinator.on_report(event) or event.done:
                break
    collect.collect(folder, config, dataset)
    return results_report.write(folder).test_table


def report(tables: dict[int, pd.DataFrame]) -> str:
    """The table of all seeds, its means, and how often the winner is better beyond the noise."""
    header = [
        "seed",
        "winner",
        "ensemble",
        "default",
        *ROWS,
        "best baseline",
        "winner - default",
        "winner - baseline",
        "CPU s",
    ]
    lines, better = [], []
    for seed, table in tables.items():
        best = table["over_baseline"].isna() & table["cv"].notna() & ~table.index.isin(["winner", "default", *ROWS])
        name = str(table.index[best][0])
        winner = table.loc["winner"]
        default_row = "default" if "default" in table.index else "winner"  # a default that won has one row
        scores = [_percent(table.loc[row, "test"]) for row in ("winner", "ensemble", default_row, *ROWS)]
        default = [winner[key] for key in ("difference", "difference_low", "difference_high")]
        baseline = [winner[key] for key in ("over_baseline", "over_baseline_low", "over_baseline_high")]
        better.append((default[1] > 0, baseline[1] > 0))
        lines.append(
            [
                seed, *scores, f"{name} {_percent(table.loc[name, 'test'])}", _interval(*default), _interval(*baseline),
                "-" if pd.isna(winner["seconds"]) else f"{winner['seconds']:.0f}",
            ]
        )  # fmt: skip
    over_default, over_baseline = (sum(column) for column in zip(*better, strict=True))
    both = sum(all(pair) for pair in better)
    return common.table(header, lines, words=("best baseline", "winner - default", "winner - baseline")) + (
        f"\n\nOf {len(tables)} seeds, the winner is better beyond the noise (interval above 0) than the default in "
        f"{over_default}, than the best baseline in {over_baseline}, than both in {both}."
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _interval(middle: float, low: float, high: float) -> str:
    """A difference in points with its interval; of a default that won there is none."""
    return "the default won" if pd.isna(middle) else f"{100 * middle:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


if __name__ == "__main__":
    sys.exit(main())
