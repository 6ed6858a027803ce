"""One table over several studies of the same data."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from m3col.methods import registry
from m3col.metrics.spec import higher_is_better
from tune.results.report import Report
from tune.results.study_results import WINNER
from tune.study.record import StudyFolder

BOARD = ("study", "dataset", "method", "metric", "cv", "test", "low", "high", "difference", "difference_low",
         "difference_high", "samples", "winner")  # fmt: skip


def leaderboard(folders: Sequence[StudyFolder], reports: Sequence[Report]) -> pd.DataFrame:
    """Returns the winners of several studies, sorted by data set and CV value.

    Not sorted by test value, because the test score of a model that was selected by it is biased. `difference` is the
    winner's difference from the default of the same study.
    """
    lines = []
    for folder, report in zip(folders, reports, strict=True):
        described, table = folder.described(), report.test_table
        spec = registry.find(described["config"]["run"]["method"])
        method = spec.display_name
        if spec.one_modality:
            method = f"{method}:{described['dataset']['modalities'][0]}"
        line: dict[str, Any] = {"study": described["name"], "dataset": described["dataset"]["name"], "method": method}
        winner = table[table["row"] == WINNER]
        if not winner.empty:
            first = winner.iloc[0]
            line |= {name: first[name] for name in BOARD[3:-1]} | {"winner": first["label"]}
        lines.append(line)
    board = pd.DataFrame(lines, columns=list(BOARD))
    better = board["metric"].map(lambda name: isinstance(name, str) and not higher_is_better(name))
    board["_rank"] = board["cv"].where(better, -board["cv"])
    board = board.sort_values(["dataset", "_rank", "study"], kind="stable", na_position="last")
    return board.drop(columns="_rank").reset_index(drop=True)
