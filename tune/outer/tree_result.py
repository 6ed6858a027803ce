"""The result of a search over outer splits, in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from m3col.config import yaml_files
from tune.outer import table as tables
from tune.outer import tree_board
from tune.outer.tree_folder import DELIVERED, TreeFolder
from tune.outer.tree_report import TreeReport
from tune.results import report as reports
from tune.results.study_results import WINNER
from tune.search_result import SearchResult


@dataclass(frozen=True)
class TreeResult:
    """A tree that has ended, and its results."""

    folder: TreeFolder
    report: TreeReport


def of(trees: Sequence[TreeResult]) -> SearchResult:
    """Returns the result of a search; with several trees most of its fields are those of the first."""
    first = trees[0]
    studies = list(first.folder.studies())
    delivered = [study for study in studies if study.path.name == DELIVERED]
    best = ((delivered or studies)[0].results / "best_config.yaml").read_text(encoding="utf-8")
    trials = [reports.read(study).trials.assign(study=study.path.name) for study in studies]
    board = leaderboard(trees) if len(trees) > 1 else None
    if board is not None:
        path = first.folder.path.parent / f"leaderboard-{first.folder.described()['search_id']}.csv"
        board.to_csv(path, index=False)
    own = first.report.table[first.report.table["row"] == WINNER]
    return SearchResult(
        best_config=yaml_files.parse(best),
        best_metrics={f"test/{line['metric']}": float(line["mean"]) for _, line in own.iterrows()},
        trials=pd.concat(trials, ignore_index=True),
        test_table=first.report.declared,
        summary="\n\n".join(tree.report.summary for tree in trees),
        studies=tuple(study.path for tree in trees for study in tree.folder.studies()),
        leaderboard=board,
        trees=tuple(tree.folder.path for tree in trees),
    )


def leaderboard(trees: Sequence[TreeResult]) -> pd.DataFrame:
    """Returns the winners of several trees in the declared metric, by data set, with differences from the first tree.

    See `tune.outer.tree_board.compare`: differences are paired by split, and p is adjusted over the rows of a data set.
    """
    by_data: dict[str, list[TreeFolder]] = {}
    for tree in trees:
        by_data.setdefault(tree.folder.described()["dataset"]["name"], []).append(tree.folder)
    parts = [tables.declared(tree_board.compare(folders)).assign(dataset=name) for name, folders in by_data.items()]
    board = pd.concat(parts, ignore_index=True)
    return board[["dataset", *(column for column in board.columns if column not in ("dataset", "label"))]]
