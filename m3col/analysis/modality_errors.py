"""How often the heads of single modalities are right or wrong, compared with the fused prediction.

Paper: Kumar et al., arXiv 2409.17777, section 4.2 and Table 9.
Differs: the paper's unimodal columns are separate models; here they are the unimodal heads of the analysed model.
"""

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from m3col.analysis.context import AnalysisContext, Result
from m3col.data.checks import naming
from m3col.methods.supervised import FUSED
from m3col.plots import fonts, style
from m3col.plots.model_plots import FAINT, INK

_MOST_PATTERNS = 3  # up to so many modalities, patterns that never occur have a row too

_COUNTS = ["fused_right", "fused_wrong"]

_WORDS = ("heads", "all", *_COUNTS, "share_right", "share_wrong")  # names in the table that are no modality


def obstacle(case: AnalysisContext) -> str | None:
    """Returns why this analysis does not apply to a model, or None where it applies."""
    return None if case.heads else "the model has no head of a single modality (objective.unimodal_supervision)"


def run(case: AnalysisContext) -> Result:
    """Returns the table of `count` and its figure."""
    table = count(case)
    text = (
        "Rows say which modalities' own heads are right, columns whether the fused prediction is (Table 9 of the "
        "paper). Fusion helps where the left column is full although a head is wrong, and harms where the right column "
        "is full although a head is right."
    )
    return Result(table, {"errors": _draw(table, case)}, text)


def count(case: AnalysisContext) -> pd.DataFrame:
    """Counts how often the fused prediction is right or wrong for each pattern of right and wrong unimodal heads.

    The first rows have `heads` = "all" and one pattern each. Then follow two rows per head, with its name in `heads`.

    Columns: heads; one per modality with "right", "wrong" or (in the rows of other heads) "any"; fused_right and
    fused_wrong (counts); share_right and share_wrong (fractions of all test samples). With more than three modalities
    only patterns that occur have a row.
    """
    right = case.right | {_shown(name): case.right[name] for name in case.heads}
    heads = [_shown(name) for name in case.heads]
    rows: list[dict[str, Any]] = []
    for pattern in product((True, False), repeat=len(heads)):
        at = np.logical_and.reduce([right[name] == value for name, value in zip(heads, pattern, strict=True)])
        if at.any() or len(heads) <= _MOST_PATTERNS:
            words = {name: _word(value) for name, value in zip(heads, pattern, strict=True)}
            rows.append({"heads": "all", **words, **_counts(at, right[FUSED])})
    for head, value in product(heads, (True, False)):
        words = {name: _word(value) if name == head else "any" for name in heads}
        rows.append({"heads": head, **words, **_counts(right[head] == value, right[FUSED])})
    return pd.DataFrame(rows)


def _shown(head: str) -> str:
    return naming.apart(head, _WORDS)


def _word(right: bool) -> str:
    return "right" if right else "wrong"


def _counts(at: NDArray[np.bool_], fused: NDArray[np.bool_]) -> dict[str, float]:
    good, bad = int((at & fused).sum()), int((at & ~fused).sum())
    return {"fused_right": good, "fused_wrong": bad, "share_right": good / len(at), "share_wrong": bad / len(at)}


def _draw(table: pd.DataFrame, case: AnalysisContext) -> Figure:
    """Draws the patterns as a labelled matrix on the left, and two rows per head on the right."""
    heads = [_shown(name) for name in case.heads]
    shown = dict(zip(heads, fonts.names(heads, "modality"), strict=True))
    joint, title = table[table["heads"] == "all"], "Modalities' own heads"
    if len(heads) <= _MOST_PATTERNS:
        lines = joint.to_dict("records")
        labels = [", ".join(f"{shown[name]} {line[name]}" for name in heads) for line in lines]
        cells = joint[_COUNTS].to_numpy(np.int64)
    else:  # too many patterns to read: one row per number of heads that are right
        good = (joint[heads] == "right").sum(axis=1).to_numpy()
        cells = np.stack([joint[_COUNTS].to_numpy(np.int64)[good == k].sum(axis=0) for k in range(len(heads), -1, -1)])
        labels = [f"{k} of {len(heads)} right" for k in range(len(heads), -1, -1)]
    longest = max(map(len, labels))
    height = max(2.4, 1.3 + 0.55 * max(len(labels), 2 * len(heads)))
    figure = style.figure(8.4 + 0.07 * longest, height)
    left, others = figure.subplots(1, 2, width_ratios=(1, 1))
    _matrix(left, cells, labels, title, len(case.test))
    single = table[table["heads"] != "all"]
    names = [f"{shown[line['heads']]} {line[line['heads']]}" for line in single.to_dict("records")]
    _matrix(others, single[_COUNTS].to_numpy(np.int64), names, "One head at a time", len(case.test))
    return figure


def _matrix(axes: Any, cells: NDArray[np.int64], labels: list[str], title: str, total: int) -> None:
    """Draws counts [rows, 2] and their shares of all samples as a heat map."""
    share = cells / total
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    style.dress(axes, title=title, x="fused prediction", grid=None)
    axes.set_xticks([0, 1], ["right", "wrong"])
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(length=0)
    for row, column in np.ndindex(*cells.shape):
        colour = "white" if share[row, column] > 0.55 else INK if cells[row, column] else FAINT
        text = f"{cells[row, column]:,}  ({share[row, column]:.1%})"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    for line in range(1, len(labels)):
        axes.axhline(line - 0.5, color="white", linewidth=2)
    axes.axvline(0.5, color="white", linewidth=2)
