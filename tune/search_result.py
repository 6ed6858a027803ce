"""The result of a search."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class SearchResult:
    """`best_config`: what `m3col.train` takes; `best_metrics`: the winner's scores, CV and test; `trials` and
    `test_table`: one row per trial, per row of the comparison; `studies`: folders, one per pair of data set and method;
    `leaderboard`: all of them in one table, None for a single study. Of several studies, the first four fields are
    those of the first."""

    best_config: dict[str, Any]
    best_metrics: dict[str, float]
    trials: pd.DataFrame
    test_table: pd.DataFrame
    summary: str
    studies: tuple[Path, ...]
    leaderboard: pd.DataFrame | None = None
