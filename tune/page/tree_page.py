"""The page of a tree of studies: scores over outer splits, paired differences, and each split."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tune.config.schema import StudyConfig
from tune.page import document, forest, methods_text, study_page, tables, unfinished_page
from tune.page.document import Part
from tune.page.forest import Difference
from tune.page.markup import Html, escaped, joined, tag
from tune.page.tables import Cell, number
from tune.results import formatting
from tune.results.formatting import p_value, shown
from tune.results.sections import Section


def page(
    described: Mapping[str, Any], config: StudyConfig, sections: Sequence[Section], lines: pd.DataFrame,
    scores: pd.DataFrame, *, missing: bool = False, running: bool = False,
) -> str:  # fmt: skip
    """Returns the page of a tree as HTML.

    Args:
        described: content of tree.json.
        config: the study of the first outer split, with the section `outer` in its settings.
        sections: the summary, from `tune.outer.summary.sections`.
        lines: every metric of every row, from `tune.outer.table.table`.
        scores: the test score of every row on every split, from `tune.outer.table.scores`.
        missing: whether studies of the tree have not ended.
        running: whether a process drives it now.
    """
    first, rest = sections[0], sections[1:]
    metric = "" if lines.empty else str(lines["metric"].iloc[0])
    declared = lines[lines["metric"] == metric].reset_index(drop=True)
    remarks = next((section.notes for section in rest if section.title.startswith("Test over the splits")), ())
    own = [section for section in rest if section.table is not None and section.level == 2 and not section.notes]
    ended = None if not missing else 0 if lines.empty else int(lines["splits"].max())
    parts = [
        Part("", document.paragraphs(first.paragraphs)),
        Part("Leaderboard", leaderboard(lines), "leaderboard"),
        Part("Differences", differences(declared), "differences"),
        Part("Scores of the splits", strips(declared, scores), "scores"),
        *(Part(section.title, document.of_section(section), f"part-{at}") for at, section in enumerate(own)),
        Part("Remarks", document.notes(remarks), "remarks"),
        Part("Methods paragraph", study_page.methods_part(methods(described, config, ended=ended)), "methods"),
        Part("Versions and digests", study_page.provenance(described), "provenance"),
    ]
    banner = [unfinished_page.status(str(described["name"]), running=running)] if missing else []
    subtitle, footer = study_page.subtitle(described), study_page.footer(described)
    return document.document(first.title, subtitle, parts, banner=banner, footer=footer)


def leaderboard(lines: pd.DataFrame) -> Html:
    """Returns the table over the splits in every metric, one at a time. `lines`: from `tune.outer.table.table`."""
    panels = []
    for metric in lines["metric"].unique():
        part = lines[lines["metric"] == metric].reset_index(drop=True)
        panels.append((str(metric), board(part)))
    return document.choice(panels, name="metric", label="Metric")


_COLUMNS = {
    "mean": "mean", "sd": "sd over splits", "difference": "difference", "difference_low": "interval from",
    "difference_high": "to", "p": "p", "p_holm": "p (Holm)", "won": "splits won", "splits": "splits",
}  # fmt: skip


def board(lines: pd.DataFrame) -> Html:
    """Returns the leaderboard in one metric. `lines`: those of this metric."""
    metric, reference = str(lines["metric"].iloc[0]), str(lines["reference"].iloc[0])
    columns = [name for name in _COLUMNS if lines[name].notna().any()]
    rows = []
    for _, line in lines.iterrows():
        label = str(line["label"])
        cells = [Cell(tag("strong", label) if line["row"] == reference else label, label, "name")]
        cells += [number(_text(name, float(line[name]), metric), float(line[name])) for name in columns]
        rows.append(cells)
    heads = ["row", *(_COLUMNS[name] for name in columns)]
    unit = " (%)" if formatting.is_percent(metric) else ""
    heads = [f"{head}{unit}" if head == "mean" else head for head in heads]
    heads = [f"difference from {reference}" if head == "difference" else head for head in heads]
    marked = [at for at, row in enumerate(lines["row"]) if row == reference]
    return tables.table(heads, rows, name=f"leaderboard, {metric}", marked=marked)


def _text(name: str, value: float, metric: str) -> str:
    if not np.isfinite(value):
        return formatting.EMPTY
    if name in ("p", "p_holm"):
        return p_value(value)
    if name == "won":
        return f"{100 * value:.0f} %"
    return str(int(value)) if name == "splits" else shown(value, metric, sign=name.startswith("difference"))


def differences(declared: pd.DataFrame) -> Html:
    """Returns the forest plot of the rows against the reference. `declared`: the lines of the declared metric."""
    if declared.empty:
        return escaped("")
    reference, metric = str(declared["reference"].iloc[0]), str(declared["metric"].iloc[0])
    rows = [
        Difference(
            str(line["label"]), float(line["difference"]), float(line["difference_low"]), float(line["difference_high"])
        )
        for _, line in declared.iterrows()
    ]
    plot = forest.forest(rows, metric=metric, reference=reference)
    text = "Mean difference, paired by split; the 95 % interval is corrected for training sets that overlap."
    return joined([tag("p", text, class_="note"), plot]) if plot else escaped("")


def strips(declared: pd.DataFrame, scores: pd.DataFrame) -> Html:
    """Returns the test scores of each row on all splits, one dot each, with a line at their mean.

    Args:
        declared: the lines of the declared metric.
        scores: the test score of every row on every split.
    """
    if declared.empty:
        return escaped("")
    metric = str(declared["metric"].iloc[0])
    own = scores[scores["metric"] == metric]
    rows = [
        (str(line["label"]), own[own["row"] == line["row"]]["test"].astype(float).tolist())
        for _, line in declared.iterrows()
    ]
    return forest.strips(rows, metric=metric)


def methods(described: Mapping[str, Any], config: StudyConfig, *, ended: int | None = None) -> list[str]:
    """Returns the methods paragraph of a tree.

    Args:
        described: content of tree.json.
        config: the study of the first outer split, with the section `outer` in its settings.
        ended: number of splits whose study has ended; None: all.
    """
    outer, final = config.settings.outer, config.settings.final
    assert outer is not None
    drawn = {
        "resplit": f"{outer.count} random divisions into training and test samples",
        "kfold": f"{outer.repeats} times {outer.folds}-fold cross-validation",
        "given": "the division of the data set",
    }[outer.kind]
    seeds = "1 seed" if final.seeds == 1 else f"{final.seeds} seeds"
    procedure = f"The whole procedure (preprocessing, search, confirmation and refits with {seeds})"
    if outer.kind == "given":
        text = f"{procedure} was run on the division of the data set."
    else:
        count = outer.count if ended is None else ended
        unfinished = "" if count == outer.count else f", of which {count} have ended"
        text = (
            f"{procedure} was run on each of {drawn} (seed {outer.seed}){unfinished}. Sample counts above are those of "
            "the first one."
        )
        if count > 1:
            text += (
                " Differences are paired by split; their 95 % intervals and p-values use the variance correction of "
                "Nadeau and Bengio (2003) for overlapping training sets, and p-values are adjusted by Holm's method."
            )
    search = methods_text.search(config, trials=config.settings.search.trials)
    return [methods_text.data(described, config), search, text, methods_text.software(described)]
