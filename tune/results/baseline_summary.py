"""What the baselines say about a study, in sentences: whether the searched model beats them, and what to look at."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from m3col.metrics import spec
from tune.results import formatting, prediction_table
from tune.results.formatting import shown
from tune.results.study_results import ENSEMBLE, WINNER, StudyResults

_MOST_LISTED = 12

# Guessing beats a constant answer in these metrics, or nothing beats it in ece. Whether something was learnt is then
# judged by the first of the others.
_GUESSED = ("macro_f1", "weighted_f1", "micro_f1", "samples_f1", "f1", "ece", "confidence_auroc")

_JUDGED_BY = ("balanced_accuracy", "map")


def against_best(results: StudyResults, table: pd.DataFrame) -> Iterator[str]:
    """Whether the winner beats the best baseline, and by how much.

    Args:
        results: the study.
        table: the lines of its test table for the declared metric.
    """
    best = results.best_baseline
    lines = {line["row"]: line for _, line in table.iterrows()}
    if best is None or best not in lines or WINNER not in lines:
        return
    winner, baseline = lines[WINNER], lines[best]
    if not np.isfinite(winner.get("over_baseline", np.nan)):
        better = (winner["cv"] > baseline["cv"]) == spec.higher_is_better(results.declared)
        yield f"In cross-validation the winner is {'better' if better else 'worse'} than the best baseline, `{best}`"
        yield f"({_score(results, winner['cv'])} against {_score(results, baseline['cv'])})."
        return
    yield f"The best baseline by cross-validation is `{best}`, with {_score(results, baseline['test'])} on the test"
    yield f"split. **{_verdict(results, winner, 'The winner')}**."
    ensemble = lines.get(ENSEMBLE)
    if ensemble is not None and np.isfinite(ensemble["over_baseline"]) and winner["seeds"] > 1:
        yield f"{_verdict(results, ensemble, 'The ensemble')}."


def _verdict(results: StudyResults, line: Any, name: str) -> str:
    low, high = line["over_baseline_low"], line["over_baseline_high"]
    span = f"({_score(results, low, sign=True)} to {_score(results, high, sign=True)})"
    value = line["over_baseline"]
    if not (low > 0 or high < 0):
        return f"{name} is not distinguishable from it: {_score(results, value, sign=True)} {span}"
    better = (value > 0) == spec.higher_is_better(results.declared)
    return f"{name} {'beats it' if better else 'is worse'}: {_score(results, value, sign=True)} {span}"


def nothing_learnt(results: StudyResults, table: pd.DataFrame) -> list[str]:
    """What to look at where no row is distinguishably better than the constant baseline; else nothing.

    Args:
        results: the study.
        table: every metric of every row.
    """
    constant, judged = results.task.constant_baseline, results.declared
    if judged in _GUESSED:
        judged = next((name for name in _JUDGED_BY if name in results.task.metrics), judged)
    if constant not in results.baselines() or _any_better(results, table[table["metric"] == judged], constant):
        return []
    table = table[table["metric"] == results.declared]
    lines = [
        f"No row is distinguishably better than `{constant}`, which ignores its input, so that nothing was learnt that "
        "can be seen. What to look at:"
    ]
    lines += [f"{name}: {text}." for name, text in _clues(results, table) if text]
    return lines


def _any_better(results: StudyResults, table: pd.DataFrame, constant: str) -> bool:
    sign = 1.0 if spec.higher_is_better(str(table["metric"].iloc[0])) else -1.0
    floor = table[table["row"] == constant].iloc[0]
    others = table[table["row"] != constant]
    if results.test_labels is not None:
        edge = others["low"] if sign > 0 else others["high"]
        return bool((sign * edge > sign * floor["test"]).any())
    noise = 0.0 if results.noise is None else 2 * results.noise.sd
    return bool((sign * others["cv"] > sign * floor["cv"] + noise).any())


def _clues(results: StudyResults, table: pd.DataFrame) -> Iterator[tuple[str, str]]:
    yield "Training samples", _class_counts(results)
    linear = results.task.linear_baseline
    alone = [
        f"{row.removeprefix(linear).strip()} {_score(results, value)}"
        for row, value in zip(table["row"], table["cv"], strict=True)
        if row in results.baselines() and row.removeprefix(f"{linear} ") in results.described["dataset"]["modalities"]
    ]
    yield f"Each modality alone, `{linear}` in cross-validation", ", ".join(alone)
    noise = results.noise
    yield (
        "Noise of a score, one standard deviation over seeds",
        "" if noise is None else _score(results, noise.sd, sign=True).lstrip("+"),
    )


def _class_counts(results: StudyResults) -> str:
    rows = results.predictions
    job = f"{prediction_table.BASELINES}{results.task.constant_baseline}"
    labels = results.task.labels_of(rows[(rows["job"] == job) & (rows["kind"] == prediction_table.OOF)])
    if labels is None:
        return ""
    if not results.task.exact_strata:
        return f"{len(labels):,}"
    counts = np.bincount(results.task.strata(labels), minlength=results.task.num_strata)
    listed = [f"{count:,} of {results.task.stratum(number)}" for number, count in enumerate(counts)]
    rest = f" and {len(listed) - _MOST_LISTED} more classes" if len(listed) > _MOST_LISTED else ""
    return ", ".join(listed[:_MOST_LISTED]) + rest


def left_out(results: StudyResults) -> list[str]:
    """The baselines that are not in the table, and why."""
    remarks = results.read_baseline_remarks().get("left_out", {})
    return [f"Baseline `{name}` is left out: {reason}." for name, reason in remarks.items()]


def chosen(results: StudyResults) -> list[str]:
    """The settings of baselines that were chosen on the folds."""
    remarks = results.read_baseline_remarks().get("chosen", {})
    listed = [f"`{row}` {key} {value}" for row, setting in remarks.items() for key, value in setting.items()]
    if not listed:
        return []
    return [
        f"Chosen for baselines on the folds of the CV column, which is therefore a little too good for them: "
        f"{', '.join(listed)}."
    ]


def _score(results: StudyResults, value: float, *, sign: bool = False) -> str:
    """A value of the declared metric with its unit."""
    unit = (" points" if sign else " %") if formatting.is_percent(results.declared) else ""
    return shown(value, results.declared, sign=sign) + unit
