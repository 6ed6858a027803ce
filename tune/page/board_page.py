"""The page of a leaderboard: winners of several studies of the same data."""

import numpy as np
import pandas as pd

from tune.page import document, tables
from tune.page.document import Part
from tune.page.markup import Html
from tune.page.tables import Cell, number
from tune.results import formatting
from tune.results.formatting import shown
from tune.results.sections import Section

NOTE = (
    "Each row is the winner of a study on the same data, sorted by cross-validation: a row that was chosen by its test "
    "score would look better than it is. The difference is from the default of the same study. The rows are not "
    "compared with each other: a search with `outer` does that, split by split."
)


def section(board: pd.DataFrame) -> Section:
    """Returns the leaderboard as a section of a report. `board`: from `tune.results.leaderboard.leaderboard`."""
    metric = _metric(board)
    unit = " (%)" if formatting.is_percent(metric) else ""
    cells = {
        "study": [f"`{name}`" for name in board["study"]],
        "method": [str(name) for name in board["method"]],
        f"CV {metric}{unit}": [shown(value, metric) for value in board["cv"]],
        f"test {metric}{unit}": [shown(value, metric) for value in board["test"]],
        "95 % interval": [_span(line, "low", "high", metric) for _, line in board.iterrows()],
        "difference from its default": [shown(value, metric, sign=True) for value in board["difference"]],
    }
    return Section(f"Winners on {board['dataset'].iloc[0]}", level=1, table=cells, notes=[NOTE])


def page(board: pd.DataFrame) -> str:
    """Returns the leaderboard as HTML. `board`: from `tune.results.leaderboard.leaderboard`."""
    title = f"Winners on {board['dataset'].iloc[0]}"
    parts = [Part("", document.paragraphs([NOTE])), Part("Leaderboard", _table(board), "leaderboard")]
    footer = "Written by m3col from the stored files of these studies. This page loads nothing from a network."
    return document.document(title, f"{len(board)} studies of the same data", parts, footer=footer)


def _metric(board: pd.DataFrame) -> str:
    return str(board["metric"].dropna().iloc[0])


def _table(board: pd.DataFrame) -> Html:
    metric = _metric(board)
    unit = " (%)" if formatting.is_percent(metric) else ""
    columns = {
        f"CV {metric}{unit}": ("cv", False), f"test {metric}{unit}": ("test", False), "interval from": ("low", False),
        "to": ("high", False), "against its default": ("difference", True),
    }  # fmt: skip
    rows = []
    for _, line in board.iterrows():
        cells = [Cell(str(line["study"]), None, "name"), Cell(str(line["method"]))]
        cells += [number(shown(line[name], metric, sign=sign), line[name]) for name, sign in columns.values()]
        rows.append([*cells, Cell("" if pd.isna(line["winner"]) else str(line["winner"]))])
    return tables.table(["study", "method", *columns, "winner"], rows, name="leaderboard")


def _span(line: pd.Series, low: str, high: str, metric: str) -> str:
    if not np.isfinite(line[low]):
        return formatting.EMPTY
    return f"{shown(line[low], metric)} to {shown(line[high], metric)}"
