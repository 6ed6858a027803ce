"""The table over outer splits: scores of each row, and differences from the reference row (PROTOCOL 9)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from m3col.metrics import intervals, resplits, spec
from tune.results.study_results import DEFAULT, WINNER

COLUMNS = ("metric", "row", "label", "splits", "mean", "sd", "difference", "difference_low", "difference_high",
           "standard_error", "p", "p_holm", "won", "reference")  # fmt: skip

SCORES = ("split", "row", "label", "metric", "cv", "test")


@dataclass(frozen=True)
class SplitResult:
    """The results of the study on one outer split.

    Attributes:
        name: of the study, such as "split_00".
        train: number of training samples.
        test: number of test samples.
        metrics: its test table in every metric, see `tune.results.test_table.all_metrics`.
    """

    name: str
    train: int
    test: int
    metrics: pd.DataFrame

    @property
    def winner_is_default(self) -> bool:
        """Whether the default won, so that the table has no row of its own for it."""
        rows = set(self.metrics["row"])
        return WINNER in rows and DEFAULT not in rows


def scores(splits: Sequence[SplitResult]) -> pd.DataFrame:
    """Returns the test scores of all rows on all splits in long form, see `SCORES`.

    Where the default won a split, its row has the winner's scores. Rows without a test score are left out.
    """
    parts = []
    for each in splits:
        table = each.metrics[["row", "label", "metric", "cv", "test"]].copy()
        if each.winner_is_default:
            same = table[table["row"] == WINNER].assign(row=DEFAULT, label=DEFAULT)
            table = pd.concat([table, same], ignore_index=True)
        parts.append(table[np.isfinite(table["test"].astype(float))].assign(split=each.name))
    joined = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(SCORES))
    if splits and all(each.winner_is_default for each in splits):
        joined = joined[joined["row"] != DEFAULT]
    return joined[list(SCORES)].reset_index(drop=True)


def table(splits: Sequence[SplitResult], *, reference: str = WINNER) -> pd.DataFrame:
    """Returns one line per metric and row, the declared metric first; see `COLUMNS`.

    Values are fractions, not percent. `difference` is row minus reference, over the splits that have both; its interval
    is m3col.metrics.resplits.paired_difference. `p_holm` is adjusted over the rows of one metric. `won`: the share of
    splits on which the row is better than the reference; a tie counts half.

    Args:
        splits: the results of the studies.
        reference: the row with which the others are compared; the winner where no split has this row.
    """
    long = scores(splits)
    if long.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    base = reference if reference in set(long["row"]) else WINNER
    ratio = float(np.mean([each.test / each.train for each in splits]))
    names, rows = [each.name for each in splits], list(dict.fromkeys(long["row"]))
    labels = {row: _label(part["label"]) for row, part in long.groupby("row", sort=False)}
    lines: list[dict[str, Any]] = []
    for metric in dict.fromkeys(long["metric"]):
        wide = long[long["metric"] == metric].pivot(index="split", columns="row", values="test").reindex(names)
        better = spec.higher_is_better(metric)
        own = [_line(wide, row, base, ratio, better) for row in rows if row in wide]
        adjusted = intervals.holm([line.get("p", np.nan) for line in own])
        lines += [
            {**line, "metric": metric, "label": labels[line["row"]], "p_holm": p, "reference": base}
            for line, p in zip(own, adjusted, strict=True)
        ]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _line(wide: pd.DataFrame, row: str, base: str, ratio: float, higher_is_better: bool) -> dict[str, Any]:
    values = wide[row].to_numpy(dtype=np.float64)
    present = values[np.isfinite(values)]
    spread = float(present.std(ddof=1)) if len(present) > 1 else float("nan")
    line: dict[str, Any] = {"row": row, "splits": len(present), "mean": float(present.mean()), "sd": spread}
    if row == base or base not in wide:
        return line
    differences = values - wide[base].to_numpy(dtype=np.float64)
    compared = resplits.paired_difference(differences, test_to_train=ratio)
    return {
        **line,
        "difference": compared.estimate,
        "difference_low": compared.low,
        "difference_high": compared.high,
        "standard_error": compared.standard_error,
        "p": compared.p_value,
        "won": resplits.share_won(differences, higher_is_better=higher_is_better),
    }


def _label(labels: pd.Series) -> str:
    """The label of a row that has another one on some splits, such as `winner (trial 3)`: what they have in common."""
    distinct = list(dict.fromkeys(labels))
    return str(distinct[0]) if len(distinct) == 1 else str(distinct[0]).partition(" (")[0]


def declared(lines: pd.DataFrame) -> pd.DataFrame:
    """Returns the lines of `table` for the declared metric."""
    if lines.empty:
        return lines
    return lines[lines["metric"] == lines["metric"].iloc[0]].reset_index(drop=True)
