"""The summary of a tree in sentences: what the procedure reaches, what is better, and what the numbers belong to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from m3col.metrics import spec
from tune.config.extra_rows import TAKEN
from tune.config.schema import StudyConfig
from tune.outer import chance
from tune.outer import table as tables
from tune.outer.table import SplitResult
from tune.results import formatting
from tune.results.formatting import EMPTY, p_value, shown
from tune.results.sections import Section, to_markdown
from tune.results.study_results import WINNER


@dataclass(frozen=True)
class Facts:
    """What the summary is written from.

    Attributes:
        described: content of tree.json.
        config: the study of the first outer split, with the section `outer` in its settings.
        splits: the results of the studies that have ended.
        lines: from `tune.outer.table.table`.
        delivered: whether the study on all samples has ended.
        chance: what the procedure reaches on permuted labels, from `tune.outer.chance.table`.
    """

    described: Mapping[str, Any]
    config: StudyConfig
    splits: Sequence[SplitResult]
    lines: pd.DataFrame
    delivered: bool = False
    chance: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def count(self) -> int:
        """J, the number of outer splits that were asked for."""
        assert self.config.settings.outer is not None
        return self.config.settings.outer.count


def write(facts: Facts) -> str:
    """Returns the text of summary.md."""
    return to_markdown(sections(facts))


def sections(facts: Facts) -> list[Section]:
    """Returns the summary of a tree as sections."""
    dataset = facts.described["dataset"]["name"]
    title = f"{facts.described['name']}: {facts.config.run.method} on {dataset}, {_splits(facts.count)}"
    paragraphs = [" ".join(part) for part in (_unfinished(facts), _outcome(facts), _belongs_to(facts))]
    report = [Section(title, level=1, paragraphs=[part for part in paragraphs if part])]
    if facts.lines.empty:
        return report
    own = tables.declared(facts.lines)
    metric = str(own["metric"].iloc[0])
    report.append(Section(f"Test over the splits: {metric}", table=columns(own), notes=_notes(facts, own)))
    report += chance.sections(facts.chance, metric=metric, asked=facts.config.settings.search.null)
    report.append(Section("The splits", table=_studies(facts, metric)))
    others = [name for name in facts.lines["metric"].unique() if name != metric]
    if others:
        report.append(Section("Other metrics"))
    for name in others:
        part = facts.lines[facts.lines["metric"] == name].reset_index(drop=True)
        report.append(Section(name, level=3, table=columns(part)))
    return report


def _splits(count: int) -> str:
    return f"{count} outer split{'' if count == 1 else 's'}"


def _unfinished(facts: Facts) -> Iterator[str]:
    if len(facts.splits) < facts.count:
        yield f"**{len(facts.splits)} of {_splits(facts.count)} have ended**; `m3col search --resume"
        yield f"{facts.described['name']}` runs the others."


def _outcome(facts: Facts) -> Iterator[str]:
    if facts.lines.empty:
        yield "No split has a test score yet."
        return
    lines = tables.declared(facts.lines)
    metric, by_row = str(lines["metric"].iloc[0]), {line["row"]: line for _, line in lines.iterrows()}
    base = by_row.get(str(lines["reference"].iloc[0]))
    if base is None:
        yield "The reference row has no test score."
        return
    spread = f" (standard deviation over splits {_points(base['sd'], metric)})" if base["splits"] > 1 else ""
    yield f"**`{base['row']}` reaches {metric} {_value(base['mean'], metric)}**, the mean over"
    yield f"{_splits(int(base['splits']))}{spread}."
    free = [line for row, line in by_row.items() if row not in (*TAKEN, *facts.config.rows)]
    if free:
        best = _best_free(facts, free, metric)
        yield f"The free row with the best cross-validation is `{best['row']}` with {_value(best['mean'], metric)}:"
        yield f"{_change(best, metric)}."
    for better, words in ((True, "better"), (False, "worse")):
        rows = [
            f"`{row}`" for row, line in by_row.items() if _distinguishable(line) and _is_better(line, metric) == better
        ]
        if rows:
            yield f"Distinguishably {words} than `{base['row']}`, each for itself: {', '.join(rows)}."


def _best_free(facts: Facts, free: Sequence[pd.Series], metric: str) -> pd.Series:
    """The line of the free row with the best mean over the splits in cross-validation: no test score chooses it."""
    own = tables.scores(facts.splits)
    validated = own[own["metric"] == metric].groupby("row")["cv"].mean()
    sign = 1 if spec.higher_is_better(metric) else -1

    def rank(line: pd.Series) -> float:
        value = float(validated.get(line["row"], np.nan))
        return sign * value if np.isfinite(value) else -np.inf

    return max(free, key=rank)


def _distinguishable(line: pd.Series) -> bool:
    return bool(line["difference_low"] > 0 or line["difference_high"] < 0)


def _is_better(line: pd.Series, metric: str) -> bool:
    return bool((line["difference"] > 0) == spec.higher_is_better(metric))


def _change(line: pd.Series, metric: str) -> str:
    if not np.isfinite(line["difference"]):
        return "it is the reference"
    text = f"a difference of {_points(line['difference'], metric, sign=True)}"
    if not np.isfinite(line["difference_low"]):
        return f"{text}, on one split, which says nothing about other splits"
    low, high = (_points(line[name], metric, sign=True) for name in ("difference_low", "difference_high"))
    words = "not distinguishable"
    if _distinguishable(line):
        words = f"distinguishably {'better' if _is_better(line, metric) else 'worse'}"
    return f"{text} (95 % interval {low} to {high}), **{words}**"


def _value(value: float, metric: str) -> str:
    return shown(value, metric) + (" %" if formatting.is_percent(metric) else "")


def _points(value: float, metric: str, *, sign: bool = False) -> str:
    return shown(value, metric, sign=sign) + (" points" if formatting.is_percent(metric) else "")


def _belongs_to(facts: Facts) -> Iterator[str]:
    if not facts.splits:
        return
    steps = "preprocessing, search, confirmation and refits" if facts.config.searches else "preprocessing and refits"
    yield f"These numbers belong to the procedure ({steps}), not to one model: each split has models of its own, which"
    yield "never saw its test samples. The model to deliver is the same procedure on all samples;"
    if facts.delivered:
        yield "it is in `delivered/results/model`. No sample is left to test it: this table is its estimate."
    else:
        yield "`outer.deliver=true` trains it when the search is resumed."


def columns(lines: pd.DataFrame) -> dict[str, list[str]]:
    """Returns the lines of one metric as columns of text by heading, without empty columns."""
    metric, reference = str(lines["metric"].iloc[0]), str(lines["reference"].iloc[0])
    unit = " (%)" if formatting.is_percent(metric) else ""

    def cells(name: str, *, sign: bool = False) -> list[str]:
        return [shown(value, metric, sign=sign) for value in lines[name]]

    spans = [
        f"{low} to {high}" if low != EMPTY else EMPTY
        for low, high in zip(cells("difference_low", sign=True), cells("difference_high", sign=True), strict=True)
    ]
    named = zip(lines["row"], lines["label"], strict=True)
    text = {
        "": [f"**{row}**{str(label).removeprefix(row)}" if row == reference else str(label) for row, label in named],
        f"{metric}{unit}, mean": cells("mean"),
        "sd over splits": cells("sd"),
        f"difference from {reference}": cells("difference", sign=True),
        "95 % interval": spans,
        "p": [p_value(value) for value in lines["p"]],
        "p (Holm)": [p_value(value) for value in lines["p_holm"]],
        "splits won": [EMPTY if not np.isfinite(value) else f"{100 * value:.0f} %" for value in lines["won"]],
        "splits": [str(int(count)) for count in lines["splits"]],
    }
    return {name: values for name, values in text.items() if not name or set(values) != {EMPTY}}


def _notes(facts: Facts, lines: pd.DataFrame) -> list[str]:
    outer, count = facts.config.settings.outer, len(facts.splits)
    assert outer is not None
    train, test = (np.mean([getattr(each, side) for each in facts.splits]) for side in ("train", "test"))
    repeated = "" if outer.repeats == 1 else f", {outer.repeats} times with new folds"
    drawn = {
        "resplit": f"random divisions, seed {outer.seed}",
        "kfold": f"{outer.folds}-fold cross-validation{repeated}, seed {outer.seed}",
        "given": "the data set's own division",
    }[outer.kind]
    notes = [f"{_splits(count)} ({drawn}) with about {train:,.0f} training and {test:,.0f} test samples each."]
    if count > 1:
        error = f"SE² = s² (1/{count} + {test / train:.2g}), t with {count - 1} degrees of freedom"
        notes.append(
            "Differences are paired by split; their interval and p are corrected for training sets that overlap "
            f"(Nadeau and Bengio 2003): {error}. p (Holm) is adjusted over the rows of this table."
        )
        notes.append("Splits won: how often the row beats the reference; a tie counts half.")
    short = [f"`{line['row']}` ({int(line['splits'])})" for _, line in lines.iterrows() if line["splits"] < count]
    if short:
        notes.append(
            f"Rows that not every split has: {', '.join(short)}. They are compared on the splits that have them."
        )
    issues = facts.described["dataset"].get("known_issues")
    return [*notes, *([f"Known issues of the data: {issues}."] if issues else [])]


def _studies(facts: Facts, metric: str) -> dict[str, list[str]]:
    """Returns the table of the studies: their sizes, their winners and its scores."""
    cells: dict[str, list[str]] = {
        "study": [],
        "training": [],
        "test": [],
        "winner": [],
        f"CV {metric}": [],
        metric: [],
    }
    for each in facts.splits:
        winner = each.metrics[(each.metrics["row"] == WINNER) & (each.metrics["metric"] == metric)]
        first = winner.iloc[0] if len(winner) else None
        cells["study"].append(f"`{facts.described['name']}/{each.name}`")
        cells["training"].append(f"{each.train:,}")
        cells["test"].append(f"{each.test:,}")
        label = EMPTY if first is None else str(first["label"]).removeprefix(WINNER).strip(" ()=") or WINNER
        cells["winner"].append(label)
        cells[f"CV {metric}"].append(EMPTY if first is None else shown(first["cv"], metric))
        cells[metric].append(EMPTY if first is None else shown(first["test"], metric))
    return cells
