"""The result of a search."""

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from m3col.metrics import spec


@dataclass(frozen=True)
class SearchResult:
    """The result of a search. With several studies, `best_config` to `test_table` are those of the first.

    Attributes:
        best_config: the winner's config, for `m3col.train`.
        best_metrics: the winner's scores, cross-validated and on the test split.
        trials: one row per trial.
        test_table: one row per model that was compared on the test split.
        summary: the results in sentences, as Markdown.
        studies: folders, one per pair of data set and method.
        leaderboard: all studies in one table; None for a single study.
        trees: folders of the trees, one per pair, of a search over outer splits. Then `best_metrics` and `test_table`
            are over the splits, `trials` are those of all studies of the first tree, and `best_config` is the winner of
            its study on all samples (`outer.deliver`), or of its first split.
    """

    best_config: dict[str, Any]
    best_metrics: dict[str, float]
    trials: pd.DataFrame
    test_table: pd.DataFrame
    summary: str
    studies: tuple[Path, ...]
    leaderboard: pd.DataFrame | None = None
    trees: tuple[Path, ...] = ()

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {spec.text(name, value)}" for name, value in self.best_metrics.items())
        names = ", ".join(path.name for path in self.trees or self.studies)
        return f"SearchResult({names}: {len(self.trials)} trials; {scores})"

    def _repr_html_(self) -> str:
        table = self.test_table if self.leaderboard is None else self.leaderboard
        text = html.escape(self.summary.partition("\n## ")[0].replace("#", "").strip())
        shown = table.to_html(index=False, border=0, float_format="{:.4f}".format, na_rep="")
        return f"<pre style='white-space: pre-wrap'>{text}</pre>{shown}"
