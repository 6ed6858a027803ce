"""The result of a search over outer splits, in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from m3col.config import yaml_files
from m3col.methods import registry
from m3col.metrics import spec
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
    own = first.report.table[first.report.table["row"] == WINNER]
    return SearchResult(
        best_config=yaml_files.parse(best),
        best_metrics={f"test/{line['metric']}": float(line["mean"]) for _, line in own.iterrows()},
        trials=pd.concat(trials, ignore_index=True),
        test_table=first.report.declared,
        summary="\n\n".join(tree.report.summary for tree in trees),
        studies=tuple(study.path for tree in trees for study in tree.folder.studies()),
        leaderboard=leaderboard(trees) if len(trees) > 1 else None,
        trees=tuple(tree.folder.path for tree in trees),
    )


def leaderboard(trees: Sequence[TreeResult]) -> pd.DataFrame:
    """Returns the winners of several trees, sorted by data set and mean score in the declared metric."""
    lines = []
    for tree in trees:
        described, own = tree.folder.described(), tree.report.declared
        winner = own[own["row"] == WINNER]
        line = {"tree": described["name"], "dataset": described["dataset"]["name"]}
        line |= {"method": registry.find(described["config"]["run"]["method"]).display_name}
        if len(winner):
            line |= {name: winner.iloc[0][name] for name in ("metric", "splits", "mean", "sd")}
        lines.append(line)
    board = pd.DataFrame(lines, columns=["tree", "dataset", "method", "metric", "splits", "mean", "sd"])
    lower = board["metric"].map(lambda name: isinstance(name, str) and not spec.higher_is_better(name))
    board["_rank"] = board["mean"].where(lower, -board["mean"])
    board = board.sort_values(["dataset", "_rank", "tree"], kind="stable", na_position="last")
    return board.drop(columns="_rank").reset_index(drop=True)
