"""The leaderboard of a study and the table of its trials, as tables that sort and filter."""

import math
from typing import Any

import pandas as pd

from tune.page import tables
from tune.page.markup import Html, escaped, joined, tag, without_folders
from tune.page.tables import Cell, number
from tune.results import formatting, optimistic
from tune.results.formatting import p_value, shown
from tune.results.study_results import DEFAULT, ENSEMBLE, WINNER, StudyResults
from tune.results.summary import rounded


def kind(results: StudyResults, row: str) -> str:
    """Returns what a row of the test table is: searched, fixed row, ensemble, free baseline, published."""
    if row in (WINNER, DEFAULT):
        return "searched"
    if row == ENSEMBLE:
        return "ensemble"
    if row in results.config.rows:
        return "fixed row"
    return "free baseline" if row in results.baselines() else "published"


def board(results: StudyResults, table: pd.DataFrame) -> Html:
    """Returns the leaderboard in one metric.

    Args:
        results: the study.
        table: the lines of `test_table.all_metrics` of this metric.
    """
    metric, samples = str(table["metric"].iloc[0]), int(table["samples"].iloc[0])
    unit = " (%)" if formatting.is_percent(metric) else ""
    columns: dict[str, tuple[str, bool]] = {
        f"CV{unit}": ("cv", False), f"test{unit}": ("test", False), "sd over seeds": ("sd_seeds", False),
        "interval from": ("low", False), "to": ("high", False), "against default": ("difference", True),
        "p (Holm)": ("p_holm", False), "against best baseline": ("over_baseline", True),
        "published": ("published", False),
    }  # fmt: skip
    columns |= {heading: (name, False) for name, heading in optimistic.HEADINGS.items() if name in table}
    columns = {head: (name, sign) for head, (name, sign) in columns.items() if table[name].notna().any()}
    kinds = [kind(results, str(row)) for row in table["row"]]
    rows = []
    for at, (_, line) in enumerate(table.iterrows()):
        cells = [_named(str(line["label"]), kinds[at], strong=line["row"] in (WINNER, results.best_baseline))]
        for name, sign in columns.values():
            value = float(line[name])
            text = p_value(value) if name == "p_holm" else shown(value, metric, samples=samples, sign=sign)
            cells.append(number(text, value))
        rows.append(cells)
    marked = [at for at, row in enumerate(table["row"]) if row == WINNER]
    return tables.table(["row", *columns], rows, name=f"leaderboard, {metric}", marked=marked, kinds=kinds)


def _named(label: str, what: str, *, strong: bool) -> Cell:
    name = tag("strong", label) if strong else escaped(label)
    return Cell(joined([name, " ", tag("span", what, class_="kindtag")]), label, "name")


def trials(results: StudyResults, table: pd.DataFrame) -> Html:
    """Returns the table of trials; empty without trials.

    Args:
        results: the study.
        table: one line per trial, from `tune.results.report.trials_table`.
    """
    if table.empty:
        return escaped("")
    metric = results.metric.partition("/")[2]
    unit = " (%)" if formatting.is_percent(metric) else ""
    space = [path for path in results.config.space if path in table]
    is_number = {path: all(isinstance(value, int | float) for value in table[path].dropna()) for path in space}
    heads = ["trial", "state", f"{metric}{unit}", f"confirmed{unit}", *space, "epochs", "seconds"]
    failures = table["failure"].notna().any()
    rows, marked = [], []
    for at, (_, line) in enumerate(table.iterrows()):
        role = str(line["role"] or "")
        label = f"{line['number']}" + (f" ({role})" if role else "")
        cells = [number(label, line["number"]), Cell(line["state"], None, None)]
        cells += [_score(line["value"], metric), _score(line["confirmed"], metric)]
        cells += [_setting(line[path], number_column=is_number[path]) for path in space]
        cells += [number(_whole(line["epochs"]), line["epochs"]), number(_whole(line["seconds"]), line["seconds"])]
        cells += [Cell(without_folders(_text(line["failure"])), None, "text")] if failures else []
        rows.append(cells)
        if WINNER in role:
            marked.append(at)
    heads += ["failure"] if failures else []
    return tables.table(heads, rows, name="trials", marked=marked, kinds=[str(state) for state in table["state"]])


def _score(value: Any, metric: str) -> Cell:
    value = float("nan") if value is None else float(value)
    return number(shown(value, metric), value)


def _setting(value: Any, *, number_column: bool) -> Cell:
    if _missing(value):
        return Cell(formatting.EMPTY, "", "num" if number_column else None)
    return number(rounded(value), value) if number_column else Cell(rounded(value))


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _whole(value: Any) -> str:
    return "" if _missing(value) else f"{float(value):,.0f}"


def _text(value: Any) -> str:
    return "" if _missing(value) else str(value)
