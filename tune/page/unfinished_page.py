"""The page of a study or a tree that has not ended: what is there so far."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tune.page import document, study_page
from tune.page.document import Part
from tune.page.markup import escaped, joined
from tune.results import formatting
from tune.results.formatting import shown
from tune.results.study_results import StudyResults
from tune.scheduling import selection


def page(results: StudyResults, trials: pd.DataFrame, *, running: bool) -> str:
    """Returns the page of a study whose search has not ended as HTML.

    Args:
        results: what is there, from `StudyResults.unfinished`.
        trials: one line per trial, from `tune.results.report.trials_table`.
        running: whether a process drives the study now.
    """
    described, config = results.described, results.config
    ended = sum(trial.state.is_finished() for trial in results.trials)
    metric = results.metric.partition("/")[2]
    items = [("trials", f"{ended:,} of {results.plan.target:,}", study_page.states(results))]
    if results.scored:
        best = selection.ranked(results.scored, maximize=results.maximize)[0]
        value = shown(best.value, metric) + (" %" if formatting.is_percent(metric) else "")
        items.append((f"best {results.metric} so far", value, f"trial {best.number}, not confirmed and not tested"))
    if results.noise is not None:
        sd = shown(results.noise.sd, metric) + (" points" if formatting.is_percent(metric) else "")
        items.append(("noise of a score", sd, f"standard deviation over {results.noise.count} seeds"))
    text = "There is no winner and no test score yet. The best value of a search is too good by chance."
    first = joined([document.paragraphs([text]), study_page.tile_row(items)])
    parts = [
        Part("", first),
        *study_page.search_parts(results, trials),
        Part("Settings", study_page.settings(results) if results.trials else escaped(""), "settings"),
        Part("Versions and digests", study_page.provenance(described), "provenance"),
    ]
    title = f"{described['name']}: {config.run.method} on {described['dataset']['name']}"
    banner = [status(str(results.folder.resume_name), running=running)]
    subtitle, footer = study_page.subtitle(described), study_page.footer(described)
    return document.document(title, subtitle, parts, banner=banner, footer=footer)


def empty(described: Mapping[str, Any], resume_name: str, *, running: bool) -> str:
    """Returns the page of a study or tree without any result as HTML.

    Args:
        described: content of study.json or tree.json.
        resume_name: the name after `m3col search --resume`.
        running: whether a process drives it now.
    """
    text = "There is no result yet: no trial has begun, or no study of it has ended."
    parts = [
        Part("", document.paragraphs([text])),
        Part("Versions and digests", study_page.provenance(described), "provenance"),
    ]
    title = f"{described['name']}: {described['config']['run']['method']} on {described['dataset']['name']}"
    banner = [status(resume_name, running=running)]
    subtitle, footer = study_page.subtitle(described), study_page.footer(described)
    return document.document(title, subtitle, parts, banner=banner, footer=footer)


def status(resume_name: str, *, running: bool) -> str:
    """Returns the sentence that says that a study has not ended.

    Args:
        resume_name: the name after `m3col search --resume`.
        running: whether a process drives it now.
    """
    if running:
        return "**This study is still running.** The page shows what was there when it was written."
    return f"**This study has not ended.** `m3col search --resume {resume_name}` resumes it."
