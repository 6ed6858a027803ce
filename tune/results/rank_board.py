"""Compares rows over several data sets by their ranks (PROTOCOL 9): a table, and the critical-difference figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from m3col.errors import InputError
from m3col.metrics import ranks, spec
from m3col.metrics.ranks import RankComparison
from tune.results.formatting import p_value, shown
from tune.results.sections import Section, to_markdown


@dataclass(frozen=True)
class RankBoard:
    """Rows that every data set has, and how they rank.

    Attributes:
        scores: one line per row, one column per data set.
        metrics: the metric of each data set.
        comparison: mean ranks, Friedman's test, critical difference.
        left_out: rows that some data set lacks.
    """

    scores: pd.DataFrame
    metrics: Mapping[str, str]
    comparison: RankComparison
    left_out: tuple[str, ...]


def board(tables: Mapping[str, pd.DataFrame]) -> RankBoard:
    """Ranks rows within each data set.

    Args:
        tables: by data set the lines of one metric, with the columns row, metric and score.

    Raises:
        InputError: fewer than two data sets, or fewer than two rows that all of them have.
    """
    faults = []
    if len(tables) < 2:
        faults.append(f"leaderboard: ranks need two or more data sets, but there is {', '.join(tables)} alone")
    by_name = {name: table.dropna(subset=["score"]).set_index("row")["score"] for name, table in tables.items()}
    every = list(dict.fromkeys(row for scores in by_name.values() for row in scores.index))
    rows = [row for row in every if all(row in scores for scores in by_name.values())]
    if len(rows) < 2:
        faults.append(f"leaderboard: fewer than two rows are in every data set; the rows are {', '.join(every)}")
    if faults:
        raise InputError(faults)
    metrics = {name: str(table["metric"].iloc[0]) for name, table in tables.items()}
    scores = pd.DataFrame({name: by_name[name].loc[rows] for name in tables})
    signed = scores * [1.0 if spec.higher_is_better(metric) else -1.0 for metric in metrics.values()]
    comparison = ranks.compare(signed.to_numpy().T, rows)
    return RankBoard(scores, metrics, comparison, tuple(row for row in every if row not in rows))


def sections(result: RankBoard, *, figure: str | None = None) -> list[Section]:
    """Returns the comparison as sections. `figure`: file name of the critical-difference figure."""
    ranked, names = result.comparison, list(result.scores.columns)
    order = sorted(range(len(ranked.methods)), key=lambda m: ranked.mean_ranks[m])
    rows = [ranked.methods[m] for m in order]
    cells: dict[str, Sequence[str]] = {"": rows}
    for name in names:
        metric = result.metrics[name]
        cells[f"{name}: {metric}"] = [shown(float(value), metric) for value in result.scores[name].loc[rows]]
    cells["mean rank"] = [f"{ranked.mean_ranks[m]:.2f}" for m in order]
    differ = "the rows differ" if ranked.p_value < ranked.alpha else "the rows cannot be told apart"
    text = (
        f"Friedman's test over {ranked.datasets} data sets (F of Iman and Davenport): p {p_value(ranked.p_value)}, "
        f"{differ}. Mean ranks that differ by less than {ranked.critical_difference:.2f} (Nemenyi, "
        f"{100 * ranked.alpha:.0f} %) are not distinguishable."
    )
    groups = [
        f"Not distinguishable from each other: {', '.join(f'`{row}`' for row in group)}." for group in ranked.groups()
    ]
    missing = [f"Left out, because a data set lacks them: {', '.join(result.left_out)}."] if result.left_out else []
    few = ["With so few data sets only large differences of rank can be seen."] if ranked.datasets < _FEW else []
    return [
        Section(f"Ranks over {ranked.datasets} data sets", level=1, paragraphs=[text], table=cells,
                notes=[*groups, *few, *missing], figure=figure)
    ]  # fmt: skip


_FEW = 6


def markdown(result: RankBoard, *, figure: str | None = None) -> str:
    """Returns `sections` as Markdown."""
    return to_markdown(sections(result, figure=figure))
