"""Columns of the test table that look at the test split, as published numbers do. No decision uses them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from m3col.metrics import spec
from m3col.tasks.base import Task
from tune.results import collect
from tune.results.study_results import StudyResults

EPOCH = "optimistic"  # the column of the best test epoch

PREFIX = "optimistic_"  # of the columns of published linear evaluations

HEADINGS = {
    EPOCH: "optimistic (best test epoch)",
    f"{PREFIX}grid": "optimistic (grid probe)",
    f"{PREFIX}notebook": "optimistic (notebook probe)",
    f"{PREFIX}ridge": "optimistic (ridge, penalty by test)",
}

_PUBLISHED = "Not honest, for comparison with published values alone"

EXPLAINED = {
    EPOCH: "the best epoch on the test split itself, as the published numbers were chosen",
    f"{PREFIX}grid": "the linear evaluation of the scripts of CoMM (arXiv 2409.07402). It chooses the penalty on "
    f"validation samples and is then fitted to these too. {_PUBLISHED}",
    f"{PREFIX}notebook": "the linear evaluation of the notebooks of CoMM. It chooses the penalty by balanced accuracy "
    f"in five folds of embeddings whose encoder has seen all of them. {_PUBLISHED}",
    f"{PREFIX}ridge": "ridge regression as in the scripts of CoMM, with the penalty that is best on the test split "
    f"itself. {_PUBLISHED}",
}

Candidates = list[list[np.ndarray]]  # by seed the predictions [N, C] among which the test split chooses


def candidates(results: StudyResults, jobs: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Candidates]]:
    """By column and row the candidates of each seed: predictions at stored epochs, or of stored linear evaluations.

    Args:
        results: the study.
        jobs: the refits of each row.

    Returns:
        Empty where the config does not ask for these columns, or test labels are withheld.
    """
    columns: dict[str, dict[str, Candidates]] = {}
    if not results.config.settings.final.optimistic or results.test_labels is None:
        return columns
    for row, names in jobs.items():
        for job in names:
            by_column: dict[str, list[np.ndarray]] = {}
            for name, value in (collect.arrays_of(results.folder.run(job)) or {}).items():
                kind, _, rest = name.partition(".")
                if kind in ("epoch", "probe"):
                    column = EPOCH if kind == "epoch" else PREFIX + rest.partition(".")[0]
                    by_column.setdefault(column, []).append(results.task.link(value))
            for column, values in by_column.items():
                columns.setdefault(column, {}).setdefault(row, []).append(values)
    return columns


def scores(
    columns: Mapping[str, Mapping[str, Candidates]],
    metric: str,
    labels: np.ndarray,
    task_of: Callable[[str, str], Task],
) -> dict[str, dict[str, float]]:
    """By column and row the mean over seeds of the best candidate on the test split, by this metric.

    `task_of(column, row)` has the thresholds of the decisions.
    """
    best = max if spec.of(metric).higher_is_better else min

    def mean(task: Task, by_seed: Candidates) -> float:
        score = partial(task.score, metric, labels)
        return float(np.mean([best(score(value) for value in values) for values in by_seed]))

    return {
        column: {row: mean(task_of(column, row), by_seed) for row, by_seed in rows.items()}
        for column, rows in columns.items()
    }
