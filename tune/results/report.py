"""Writes the results of a study from its files alone. Trains nothing; writing again gives the same numbers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial

from m3col.config import yaml_files
from m3col.errors import InputError
from m3col.plots import fonts
from m3col.storage import atomic_files
from tune.page import study_page, unfinished_page
from tune.results import plots, summary
from tune.results import test_table as results_test_table
from tune.results.study_results import WINNER, StudyResults
from tune.scheduling import selection
from tune.study.record import StudyFolder
from tune.study.run_name import RunName

if TYPE_CHECKING:
    from tune.outer.tree_folder import TreeFolder

TEST_TABLE, TEST_METRICS, TRIALS, SUMMARY = "test_table.csv", "test_metrics.csv", "trials.csv", "summary.md"

PLOTS = {
    "history.png": plots.history,
    "importance.png": plots.importance,
    "slice.png": plots.slices,
    "parallel_coordinate.png": plots.parallel_coordinates,
}


@dataclass(frozen=True)
class Report:
    """The results of a study, in memory.

    Args:
        test_table: the declared metric, one line per row of the test table.
        trials: one line per trial.
        summary: the summary as Markdown.
        test_metrics: every metric, one line per metric and row, the declared metric first.
        best_metrics: the winner's scores, named val/... and test/...
        decision: how the winner was selected; None if no trial finished, and in a report that `read` returned.
    """

    test_table: pd.DataFrame
    trials: pd.DataFrame
    summary: str
    test_metrics: pd.DataFrame
    best_metrics: dict[str, float] = field(default_factory=dict)
    decision: selection.Decision | None = None

    @classmethod
    def of(
        cls, *, test_metrics: pd.DataFrame, trials: pd.DataFrame, summary: str,
        decision: selection.Decision | None = None,
    ) -> "Report":  # fmt: skip
        """Returns the report with these tables; the other fields are derived from them."""
        declared = results_test_table.declared_table(test_metrics)
        return cls(declared, trials, summary, test_metrics, _best_metrics(test_metrics), decision)


def build(results: StudyResults) -> Report:
    """Returns the report of a study. Writes nothing."""
    metrics = results_test_table.all_metrics(results)
    text = summary.write(results, metrics)
    return Report.of(test_metrics=metrics, trials=trials_table(results), summary=text, decision=results.decision)


def write(folder: StudyFolder) -> Report:
    """Writes results/ of a study that has ended, each file atomically, summary.md last.

    Raises:
        InputError: the study has no predictions yet (`tune.results.collect` writes them).
    """
    results = StudyResults.read(folder)
    report = build(results)
    target = folder.results
    target.mkdir(exist_ok=True)
    _csv(target / TEST_TABLE, report.test_table)
    _csv(target / TEST_METRICS, report.test_metrics)
    _csv(target / TRIALS, report.trials)
    _write_best(results, target / "best_config.yaml")
    for name, draw in PLOTS.items():
        _write_plot(target / name, draw(results))
    page = study_page.page(results, report.test_metrics, report.trials)
    atomic_files.write_text(target / study_page.FILE, page)
    atomic_files.write_text(target / SUMMARY, report.summary)
    return report


def write_unfinished(folder: StudyFolder, *, running: bool) -> Path:
    """Writes the page of a study that has not ended: what is there so far. Needs no lock and writes nothing else.

    Args:
        folder: the study.
        running: whether a process drives it now.

    Returns:
        The file.
    """
    results = StudyResults.unfinished(folder)
    if results is None:
        page = unfinished_page.empty(folder.described(), folder.resume_name, running=running)
    else:
        page = unfinished_page.page(results, trials_table(results), running=running)
    return put_unfinished(folder, page)


def put_unfinished(folder: "StudyFolder | TreeFolder", page: str) -> Path:
    """Stores the page of a study or tree that had not ended when it was made, and returns the file.

    One that has ended meanwhile keeps the page that it wrote itself.
    """
    folder.results.mkdir(exist_ok=True)
    if not folder.finished():
        atomic_files.write_text(folder.results / study_page.FILE, page)
    return folder.results / study_page.FILE


def read(folder: StudyFolder) -> Report:
    """Reads the report that `write` wrote, without the study's database: for `m3col sync`.

    Raises:
        InputError: a file of the report is missing or damaged.
    """
    target = folder.results
    try:
        metrics, trials = pd.read_csv(target / TEST_METRICS), pd.read_csv(target / TRIALS)
        text = (target / SUMMARY).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = f"{target}: the report cannot be read ({error}); `m3col report {folder.name}` writes it again"
        raise InputError([reason]) from None
    return Report.of(test_metrics=metrics, trials=trials, summary=text)


def trials_table(results: StudyResults) -> pd.DataFrame:
    """Returns one line per trial: number, state, value, mean of its confirmations, parameters, epochs, failure."""
    lines = [_trial(results, trial) for trial in results.trials]
    columns = ["number", "state", "role", "value", "loss", "confirmed", *results.config.space, "epochs", "seconds",
               "failure"]  # fmt: skip
    return pd.DataFrame(lines, columns=columns)


def _trial(results: StudyResults, trial: FrozenTrial) -> dict[str, Any]:
    outcome = results.outcomes.get(str(RunName.trial(trial.number)))
    failure = None if outcome is None else outcome.failure
    confirmed = results.confirmed(trial.number)
    roles = ["default"] if trial.number == results.default else []
    if results.decision is not None and trial.number == results.decision.winner:
        roles.append("winner")
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "role": " and ".join(roles),
        "value": trial.value if trial.value is not None or outcome is None else outcome.value,
        "loss": None if outcome is None else outcome.loss,
        "confirmed": float(np.mean(confirmed)) if confirmed else None,
        **trial.params,
        "epochs": None if outcome is None else outcome.epochs,
        "seconds": None if outcome is None else outcome.seconds,
        "failure": failure or trial.user_attrs.get("failure"),
    }


def _best_metrics(table: pd.DataFrame) -> dict[str, float]:
    """Returns the winner's scores, named val/... and test/..."""
    metrics = {}
    for _, line in table[table["row"] == WINNER].iterrows():
        for split, column in (("val", "cv"), ("test", "test")):
            if np.isfinite(line[column]):
                metrics[f"{split}/{line['metric']}"] = float(line[column])
    return metrics


def _write_best(results: StudyResults, path: Path) -> None:
    if results.decision is None:
        path.unlink(missing_ok=True)
        return
    number = results.decision.winner
    config = results.config.point(results.plan.trials.get(number).params).to_dict()
    head = f"# The winner of {results.described['name']} (trial {number}): m3col train {path.name}\n"
    atomic_files.write_text(path, head + yaml_files.dump(config))


def _csv(path: Path, table: pd.DataFrame) -> None:
    atomic_files.write_text(path, table.to_csv(index=False))


def _write_plot(path: Path, figure: Figure | None) -> None:
    """Writes a plot; removes an existing file if there is no plot."""
    if figure is None:
        path.unlink(missing_ok=True)
        return
    fonts.settle(figure)
    with atomic_files.replaced(path) as part:
        figure.savefig(part, format="png", dpi=140, bbox_inches="tight", metadata={"Software": None})
