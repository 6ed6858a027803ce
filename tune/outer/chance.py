"""What the whole procedure reaches on permuted labels, where nothing can be learnt (`search.null`).

The score of the winner in cross-validation is then above chance, because it was selected; its test score shows what
chance reaches on so few samples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from m3col.metrics import spec
from tune.outer import table as tables
from tune.outer.table import SplitResult
from tune.results import formatting
from tune.results.formatting import shown
from tune.results.sections import Section
from tune.results.study_results import DEFAULT, WINNER

COLUMNS = ("row", "label", "studies", "cv", "cv_best", "test", "test_sd", "test_best", "reached", "p")


def table(splits: Sequence[SplitResult], nulls: Sequence[SplitResult], *, metric: str) -> pd.DataFrame:
    """Returns one line per row of the test tables.

    Args:
        splits: the studies of the labels as they are.
        nulls: the studies of permuted labels.
        metric: the declared metric.

    Returns:
        Columns: `cv`, `test`: means over the studies of permuted labels; `cv_best`, `test_best`: their best values;
        `reached`: in how many of them the test score is at least as good as the mean with the labels as they are;
        `p`: (`reached` + 1) / (`studies` + 1), the p-value of a permutation test. With several outer splits the mean
        over them is compared with scores of single ones, which vary more, so that p is too large rather than too small.
    """
    sign = 1.0 if spec.higher_is_better(metric) else -1.0
    observed = _scores(splits, metric)
    lines: list[dict[str, Any]] = []
    drawn = _scores(nulls, metric)
    for row, part in drawn.groupby("row", sort=False):
        test = part["test"].to_numpy(dtype=np.float64)
        test, cv = test[np.isfinite(test)], part["cv"].to_numpy(dtype=np.float64)
        cv = cv[np.isfinite(cv)]
        if not len(test):
            continue
        cv_best = sign * float((sign * cv).max()) if len(cv) else np.nan
        # Where the default won every split, the winner's row is the default's.
        own = WINNER if row == DEFAULT and DEFAULT not in set(observed["row"]) else row
        real = observed.loc[observed["row"] == own, "test"].astype(float).mean()
        known = bool(np.isfinite(real))
        reached = int((sign * test >= sign * real).sum()) if known else np.nan
        lines.append(
            {
                "row": row, "label": str(part["label"].iloc[0]).partition(" (")[0], "studies": len(test),
                "cv": float(cv.mean()) if len(cv) else np.nan, "cv_best": cv_best,
                "test": float(test.mean()), "test_sd": float(test.std(ddof=1)) if len(test) > 1 else np.nan,
                "test_best": sign * float((sign * test).max()),
                "reached": reached, "p": (reached + 1) / (len(test) + 1),
            }
        )  # fmt: skip
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _scores(studies: Sequence[SplitResult], metric: str) -> pd.DataFrame:
    """Scores by study and row. Where the default won, its row has the winner's scores."""
    long = tables.scores(studies)
    return long[long["metric"] == metric]


def sections(lines: pd.DataFrame, *, metric: str, asked: int) -> list[Section]:
    """Returns the part of a tree's summary on permuted labels; none without such studies.

    Args:
        lines: from `table`.
        metric: the declared metric.
        asked: `search.null`.
    """
    if not asked:
        return []
    title = "What chance reaches"
    if lines.empty:
        return [Section(title, paragraphs=["No study of permuted labels has ended yet."])]
    unit = " (%)" if formatting.is_percent(metric) else ""
    winner = lines[lines["row"] == WINNER]
    paragraphs = [
        "The whole procedure on permuted labels, where nothing can be learnt. What it reaches there is chance."
    ]
    ended = int(lines["studies"].max())
    if ended < asked:
        paragraphs.append(f"{ended} of {asked} studies of permuted labels have ended.")
    if not winner.empty and np.isfinite(winner["p"].iloc[0]):
        first = winner.iloc[0]
        count, reached = int(first["studies"]), int(first["reached"])
        studies = f"{count} stud{'y' if count == 1 else 'ies'}"
        by_chance, best, cv_best = (_text(first[name], metric) for name in ("test", "test_best", "cv_best"))
        paragraphs.append(
            f"**The winner's test score was reached by chance in {reached} of {studies}** "
            f"(p = {first['p']:.2g}; no p can be below {1 / (count + 1):.2g}). By chance it was {by_chance} on average "
            f"and {best} at best, and {cv_best} at best in the cross-validation that selected it."
        )
    cells = {
        "": lines["label"].tolist(),
        f"CV {metric}{unit}, mean": [shown(value, metric) for value in lines["cv"]],
        "best CV": [shown(value, metric) for value in lines["cv_best"]],
        f"test {metric}{unit}, mean": [shown(value, metric) for value in lines["test"]],
        "sd": [shown(value, metric) for value in lines["test_sd"]],
        "best": [shown(value, metric) for value in lines["test_best"]],
        "reached the real score": [
            f"{int(row['reached'])} of {int(row['studies'])}" if np.isfinite(row["p"]) else formatting.EMPTY
            for _, row in lines.iterrows()
        ],
    }
    return [Section(title, paragraphs=paragraphs, table=cells)]


def _text(value: float, metric: str) -> str:
    return shown(value, metric) + (" %" if formatting.is_percent(metric) else "")
