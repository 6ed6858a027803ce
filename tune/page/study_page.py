"""The page of a finished study: report.html."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from optuna.trial import TrialState

from m3col.config import yaml_files
from m3col.metrics import classification
from m3col.storage.redaction import scrubbed
from tune.page import document, forest, modality_charts, model_charts, search_charts, study_tables
from tune.page import methods_text as methods
from tune.page.document import Part
from tune.page.forest import Difference
from tune.page.markup import Html, escaped, inline, joined, tag, without_folders
from tune.results import formatting, summary, test_table
from tune.results.formatting import shown
from tune.results.sections import Section
from tune.results.study_results import DEFAULT, ENSEMBLE, WINNER, StudyResults

FILE = "report.html"

_COURSE = "How the search went"

_FEW = 10  # with fewer finished trials the importance of settings is mostly chance

_HIDDEN = ("dir",)  # settings whose values are paths of the machine


def page(results: StudyResults, metrics: pd.DataFrame, trials: pd.DataFrame) -> str:
    """Returns the page of a finished study as HTML.

    Args:
        results: the study.
        metrics: every metric of every row, from `test_table.all_metrics`.
        trials: one line per trial, from `tune.results.report.trials_table`.
    """
    declared = test_table.declared_table(metrics)
    sections = summary.sections(results, metrics)
    by_title = {section.title: section for section in sections}
    first = sections[0]
    remarks = next((s.notes for s in sections if s.title.endswith(f": {results.declared}")), ())
    notes = [*remarks, *by_title[_COURSE].notes]
    parts = [
        Part(
            "", joined([document.paragraphs(first.paragraphs), document.notes(first.notes), tiles(results, declared)])
        ),
        Part("Leaderboard", leaderboard(results, metrics), "leaderboard"),
        Part("Differences", differences(results, declared), "differences"),
        *search_parts(results, trials),
        Part("Predictions of the winner", model_charts_of(results), "predictions"),
        Part("Modalities", modality_charts.votes(results), "modalities"),
        Part("Settings", settings(results), "settings"),
        Part("Remarks", document.notes([without_folders(note) for note in notes]), "remarks"),
        Part("Methods paragraph", methods_part(methods.paragraphs(results)), "methods"),
        Part("Versions and digests", provenance(results.described), "provenance"),
    ]
    return document.document(first.title, subtitle(results.described), parts, footer=footer(results.described))


def subtitle(described: Mapping[str, Any]) -> str:
    """Returns the line below the title: data, date and version. `described`: content of study.json or tree.json."""
    dataset = described["dataset"]
    size = f"{dataset['train']:,} training and {dataset['test']:,} test samples"
    return f"{size} · begun {str(described['created'])[:10]} · m3col {described['versions'].get('m3col', '')}"


def footer(described: Mapping[str, Any]) -> str:
    """Returns the last line of a page. `described`: content of study.json or tree.json."""
    return f"Written by m3col from the stored files of {described['name']}. This page loads nothing from a network."


def tiles(results: StudyResults, declared: pd.DataFrame) -> Html:
    """Returns the numbers of the first screen: score, differences, noise, trials."""
    lines = {line["row"]: line for _, line in declared.iterrows()}
    items = _winner_tiles(results, lines[WINNER]) if WINNER in lines else []
    if results.noise is not None:
        metric = results.metric.partition("/")[2]
        sd = shown(results.noise.sd, metric) + (" points" if formatting.is_percent(metric) else "")
        items.append(("noise of a score", sd, f"standard deviation over {results.noise.count} seeds"))
    items.append(("trials", f"{len(results.trials):,}", states(results)))
    return tile_row(items)


def _winner_tiles(results: StudyResults, winner: pd.Series) -> list[tuple[str, str, str]]:
    metric, samples = results.declared, int(winner["samples"])
    unit, points = (" %", " points") if formatting.is_percent(metric) else ("", "")

    def text(value: float, *, sign: bool = False) -> str:
        return shown(value, metric, samples=samples, sign=sign)

    key, where = ("test", "test") if np.isfinite(winner["test"]) else ("cv", "cross-validation")
    more = str(winner["label"])
    if np.isfinite(winner["low"]):
        more += f"; 95 % interval {text(winner['low'])} to {text(winner['high'])}"
    items = [(f"{metric}, {where}", f"{text(winner[key])}{unit}", more)]
    others = {"difference": "the default", "over_baseline": f"the best free baseline, {results.best_baseline}"}
    for column, name in others.items():
        if np.isfinite(winner[column]):
            low, high = float(winner[f"{column}_low"]), float(winner[f"{column}_high"])
            verdict = forest.KEY[Difference("", float(winner[column]), low, high).verdict(metric)]
            span = f"{text(low, sign=True)} to {text(high, sign=True)}"
            items.append((f"against {name}", f"{text(winner[column], sign=True)}{points}", f"{span}; {verdict}"))
    return items


def tile_row(items: Sequence[tuple[str, str, str]]) -> Html:
    """Returns a row of numbers. `items`: what it is, the number, and a remark, each."""
    return tag(
        "div",
        *(
            tag("div", tag("div", what, class_="what"), tag("div", big, class_="big"), tag("div", more, class_="more"),
                class_="tile")
            for what, big, more in items
        ),
        class_="tiles",
    )  # fmt: skip


def states(results: StudyResults) -> str:
    """Returns how many trials are in each state, in words."""
    names = {
        TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed",
        TrialState.RUNNING: "not ended", TrialState.WAITING: "not begun",
    }  # fmt: skip
    return ", ".join(f"{count:,} {name}" for state, name in names.items() if (count := results.count(state)))


def leaderboard(results: StudyResults, metrics: pd.DataFrame) -> Html:
    """Returns the test table in every metric, one at a time."""
    if metrics.empty:
        return escaped("")
    panels = [
        (str(name), study_tables.board(results, metrics[metrics["metric"] == name].reset_index(drop=True)))
        for name in metrics["metric"].unique()
    ]
    text = (
        "CV: on the training split; test: mean over seeds, with a 95 % interval. Free baselines need no training of "
        "networks. A click on a heading sorts."
    )
    return joined([tag("p", text, class_="note"), document.choice(panels, name="metric", label="Metric")])


def differences(results: StudyResults, declared: pd.DataFrame) -> Html:
    """Returns two forest plots: rows against the default, and trained rows against the best free baseline."""
    if declared.empty:
        return escaped("")
    samples, metric = int(declared["samples"].iloc[0]), results.declared
    reference = "the default" if not results.winner_is_default else "the winner (= default)"
    table = declared[declared["row"] != results.task.constant_baseline]

    def of(column: str) -> list[Difference]:
        strong = (WINNER, results.best_baseline)
        return [
            Difference(
                str(line["label"]), float(line[column]), float(line[f"{column}_low"]), float(line[f"{column}_high"]),
                strong=line["row"] in strong,
            )
            for _, line in table.iterrows()
        ]  # fmt: skip

    body = []
    against_default = forest.forest(of("difference"), metric=metric, samples=samples, reference=reference)
    if against_default:
        body += [tag("h3", f"Against {reference}"), against_default]
    table = table[table["row"].isin([WINNER, DEFAULT, ENSEMBLE, *results.config.rows])]
    best = results.best_baseline
    over = forest.forest(of("over_baseline"), metric=metric, samples=samples, reference=str(best))
    if over:
        body += [tag("h3", f"Against the best free baseline, {best}"), over]
    text = "Dot: difference on the test split; line: its 95 % interval, each for itself (not adjusted for many rows)."
    return joined([tag("p", text, class_="note"), *body]) if body else escaped("")


def search_parts(results: StudyResults, trials: pd.DataFrame) -> list[Part]:
    """Returns the sections on the search: history, importance, curves, table of trials.

    Args:
        results: the study.
        trials: one line per trial.
    """
    importance = search_charts.importance(results)
    if importance:
        text = f"Share of the variance of {results.metric} that each setting explains (fANOVA), {_finished(results)}."
        importance = joined([tag("p", text, class_="note"), importance])
    return [
        Part("Every trial, and the noise of one score", search_charts.history(results), "history"),
        Part("Importance of the settings", importance, "importance"),
        Part("Learning curves", joined([search_charts.curves(results), modality_charts.losses(results)]), "curves"),
        Part("Trials", study_tables.trials(results, trials), "trials"),
    ]


def _finished(results: StudyResults) -> str:
    count = results.count(TrialState.COMPLETE)
    few = ": too few for more than a first impression" if count < _FEW else ""
    return f"from {count:,} finished trials{few}"


def model_charts_of(results: StudyResults) -> Html:
    """Returns the charts of the winner's predictions, by task."""
    held = modality_charts.held_out(results)
    if held is None:
        return escaped("")
    labels, predictions, task, text = held
    names, body = list(task.classes), [tag("p", text, class_="note")]
    if results.config.run.task == "single_label":
        error = task.score(classification.ECE, labels, predictions)
        body.append(_of_classes(labels, predictions, task.decide(predictions), names, error))
    elif results.config.run.task == "multi_label":
        pooled = model_charts.reliability(np.ravel(predictions), np.ravel(labels))
        chart = model_charts.reliability_chart(pooled, "probability of a label", happened="how often it is there")
        body += [tag("h3", f"Calibration (error {pooled.error:.3f}, all labels pooled)"), chart]
        scores = model_charts.label_scores(labels, task.decide(predictions), names)
        body += [tag("h3", "F1 of each label (samples that have it)"), scores]
    else:
        body.append(model_charts.predicted_against_true(labels, predictions, names))
    return joined(body)


def _of_classes(labels: Any, predictions: Any, decided: Any, names: Sequence[str], error: float) -> Html:
    found, what = model_charts.of_classes(labels, predictions)
    what = what.replace("class 1", names[1]) if len(names) == 2 else what
    happened = f"frequency of {names[1]}" if len(names) == 2 else "how often it is right"
    chart = model_charts.reliability_chart(found, what, happened=happened)
    accuracy = 100 * float((np.asarray(decided) == np.asarray(labels)).mean())
    matrix = model_charts.confusion(labels, decided, names)
    left = tag("div", tag("h3", f"Calibration (ece {error:.3f})"), chart)
    right = tag("div", tag("h3", f"Confusion of classes (accuracy {accuracy:.1f} %)"), matrix)
    return tag("div", left, right, class_="pair")


def settings(results: StudyResults) -> Html:
    """Returns the searched settings with their ranges, and the winner's whole config."""
    number = results.default if results.decision is None else results.decision.winner
    body = []
    rows = summary.setting_rows(results)
    if rows:
        body.append(document.of_section(Section("", table=rows)))
    params = results.plan.trials.get(number).params if results.trials else {}
    config = results.config.point(params).to_dict()
    text = without_folders(scrubbed(yaml_files.dump(without_paths(config))))
    whose = "the default" if results.decision is None or results.winner_is_default else "the winner"
    body.append(tag("details", tag("summary", f"All settings of {whose}"), tag("pre", tag("code", text))))
    return joined(body)


def without_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config without values that name folders of the machine it ran on."""
    return {
        key: without_paths(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if not (key in _HIDDEN and value is not None)
    }


def methods_part(texts: Sequence[str]) -> Html:
    """Returns the methods paragraph, with a button that copies it."""
    quote = tag("blockquote", *(tag("p", text) for text in texts), id="methods-text")
    button = tag("button", "Copy", type="button", class_="button copy", data_of="methods-text")
    text = "Generated from the facts of this study, for the methods section of a paper."
    return joined([tag("p", text, class_="note"), quote, button])


def provenance(described: Mapping[str, Any]) -> Html:
    """Returns versions, commit and digests. `described`: content of study.json or tree.json."""
    git = described.get("git") or {}
    commit = str(git.get("commit") or "not a git checkout") + (" with changes" if git.get("dirty") else "")
    versions = ", ".join(f"{name} {version}" for name, version in described["versions"].items())
    pairs: list[tuple[str, str | Html]] = [
        ("Study", str(described["name"])), ("Begun", str(described["created"])), ("Versions", versions),
        ("Commit", inline(f"`{commit}`")),
    ]  # fmt: skip
    pairs += [(f"Digest of {name}", inline(f"`{digest}`")) for name, digest in described["digests"].items() if digest]
    return document.facts(pairs)
