"""The results of a study, written from its files alone: nothing is trained, and writing again changes no number."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial

from m3col.config import yaml_files
from m3col.plots import fonts
from m3col.storage import atomic_files
from tune.results import plots, summary
from tune.results import test_table as results_test_table
from tune.results.study_results import WINNER, StudyResults
from tune.scheduling import selection
from tune.study.record import StudyFolder

PLOTS = {
    "history.png": plots.history,
    "importance.png": plots.importance,
    "slice.png": plots.slices,
    "parallel_coordinate.png": plots.parallel_coordinates,
}


@dataclass(frozen=True)
class Report:
    """`test_table`: the declared metric, one line per row; `trials`: one line per trial; `summary`: Markdown;
    `decision`: None where no trial finished; `best_metrics`: the winner's, as val/... and test/..."""

    test_table: pd.DataFrame
    trials: pd.DataFrame
    summary: str
    decision: selection.Decision | None
    best_metrics: dict[str, float] = field(default_factory=dict)


def write(folder: StudyFolder) -> Report:
    """Writes results/ of a study that has come to its end, each file in one step, summary.md last.

    Raises InputError where the study has no predictions yet (`predictions.collect` writes them).
    """
    results = StudyResults.read(folder)
    target = folder.results
    target.mkdir(exist_ok=True)
    every = results_test_table.all_metrics(results)
    declared = results_test_table.declared_table(every)
    trials = trials_table(results)
    text = summary.write(results, every)
    _csv(target / "test_table.csv", declared)
    _csv(target / "test_metrics.csv", every)
    _csv(target / "trials.csv", trials)
    _write_best(results, target / "best_config.yaml")
    for name, draw in PLOTS.items():
        _picture(target / name, draw(results))
    atomic_files.write_text(target / "summary.md", text)
    return Report(declared, trials, text, results.decision, _best_metrics(every))


def trials_table(results: StudyResults) -> pd.DataFrame:
    """One line per trial: number, state, value, mean of its confirmations, parameters, length, and why it failed."""
    lines = [_trial(results, trial) for trial in results.trials]
    columns = ["number", "state", "role", "value", "loss", "confirmed", *results.config.space, "epochs", "seconds",
               "failure"]  # fmt: skip
    return pd.DataFrame(lines, columns=columns)


def _trial(results: StudyResults, trial: FrozenTrial) -> dict[str, Any]:
    result = results.outcomes.get(f"trials/{trial.number}", {})
    confirmed = results.confirmed(trial.number)
    roles = ["default"] if trial.number == results.default else []
    if results.decision is not None and trial.number == results.decision.winner:
        roles.append("winner")
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "role": " and ".join(roles),
        "value": trial.value if trial.value is not None else result.get("value"),
        "loss": result.get("loss"),
        "confirmed": float(np.mean(confirmed)) if confirmed else None,
        **trial.params,
        "epochs": result.get("epochs"),
        "seconds": result.get("seconds"),
        "failure": result.get("failure") or trial.user_attrs.get("failure"),
    }


def _best_metrics(table: pd.DataFrame) -> dict[str, float]:
    found = {}
    for _, line in table[table["row"] == WINNER].iterrows():
        for split, column in (("val", "cv"), ("test", "test")):
            if np.isfinite(line[column]):
                found[f"{split}/{line['metric']}"] = float(line[column])
    return found


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


def _picture(path: Path, figure: Figure | None) -> None:
    """A plot that has nothing to show leaves no file, nor an older one."""
    if figure is None:
        path.unlink(missing_ok=True)
        return
    part = path.with_name(f".{path.name}.part")
    fonts.settle(figure)
    figure.savefig(part, format="png", dpi=140, bbox_inches="tight", metadata={"Software": None})
    os.replace(part, path)
