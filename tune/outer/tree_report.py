"""Writes the results of a tree from the files of its studies. Trains nothing; writing again gives the same numbers."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from m3col.errors import InputError
from m3col.storage import atomic_files
from tune.outer import chance
from tune.outer import summary as summaries
from tune.outer import table as tables
from tune.outer.table import SplitResult
from tune.outer.tree_folder import DELIVERED, TreeFolder, is_null, study_names, study_of
from tune.page import study_page, tree_page, unfinished_page
from tune.results import report as reports
from tune.results.sections import to_markdown

TABLE, SCORES, CHANCE, SUMMARY = "outer.csv", "scores.csv", "chance.csv", "summary.md"


@dataclass(frozen=True)
class TreeReport:
    """The results of a tree.

    Attributes:
        table: every metric of every row, see `tune.outer.table.COLUMNS`; the declared metric first.
        scores: the test score of every row on every split.
        summary: the results in sentences, as Markdown.
        page: the results for a browser, as HTML.
        chance: what the procedure reaches on permuted labels, from `tune.outer.chance.table`.
    """

    table: pd.DataFrame
    scores: pd.DataFrame
    summary: str
    page: str = ""
    chance: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def declared(self) -> pd.DataFrame:
        """The lines of `table` for the declared metric."""
        return tables.declared(self.table)


def results(folder: TreeFolder) -> list[SplitResult]:
    """Returns the results of the studies that have ended, in the order of the splits.

    Raises:
        InputError: a file of a study is missing or damaged.
    """
    return _results(folder, null=False)


def null_results(folder: TreeFolder) -> list[SplitResult]:
    """Returns the results of the studies of permuted labels that have ended. Raises InputError as `results` does."""
    return _results(folder, null=True)


def _results(folder: TreeFolder, *, null: bool) -> list[SplitResult]:
    config, ended = folder.config(), []
    for name in study_names(config):
        if name == DELIVERED or is_null(name) != null or not folder.has_ended(name, study_of(config, name)):
            continue
        study = folder.study(name)
        dataset = study.described()["dataset"]
        ended.append(SplitResult(name, dataset["train"], dataset["test"], reports.read(study).test_metrics))
    return ended


def build(folder: TreeFolder, *, running: bool = False) -> TreeReport:
    """Returns the report of a tree. A part of the splits suffices. Writes nothing.

    Args:
        folder: the tree.
        running: whether a process drives it now.

    Raises:
        InputError: no study of the tree has ended.
    """
    config, splits = folder.config(), results(folder)
    if not splits:
        raise InputError(
            [f"{folder.path}: none of its studies has ended; run them with `m3col search --resume {folder.name}`"]
        )
    outer = config.settings.outer
    assert outer is not None
    lines = tables.table(splits, reference=outer.reference)
    delivered = outer.deliver and folder.has_ended(DELIVERED, study_of(config, DELIVERED))
    metric = "" if lines.empty else str(lines["metric"].iloc[0])
    by_chance = chance.table(splits, null_results(folder), metric=metric) if metric else pd.DataFrame()
    facts = summaries.Facts(folder.described(), config, splits, lines, delivered, by_chance)
    scores, sections = tables.scores(splits), summaries.sections(facts)
    missing = any(not folder.has_ended(name, study_of(config, name)) for name in study_names(config))
    page = tree_page.page(facts.described, config, sections, lines, scores, missing=missing, running=running)
    return TreeReport(lines, scores, to_markdown(sections), page, by_chance)


def write(folder: TreeFolder) -> TreeReport:
    """Writes results/ of a tree, each file atomically, summary.md last. A part of the splits suffices.

    Raises:
        InputError: no study of the tree has ended.
    """
    report = build(folder)
    folder.results.mkdir(exist_ok=True)
    atomic_files.write_text(folder.results / TABLE, report.table.to_csv(index=False))
    atomic_files.write_text(folder.results / SCORES, report.scores.to_csv(index=False))
    if folder.config().settings.search.null:
        atomic_files.write_text(folder.results / CHANCE, report.chance.to_csv(index=False))
    atomic_files.write_text(folder.results / study_page.FILE, report.page)
    atomic_files.write_text(folder.results / SUMMARY, report.summary)
    return report


def write_page(folder: TreeFolder, *, running: bool) -> Path:
    """Writes the page of a tree alone, whether or not a study of it has ended. Needs no lock.

    Args:
        folder: the tree.
        running: whether a process drives it now.

    Returns:
        The file.
    """
    if results(folder):
        page = build(folder, running=running).page
    else:
        page = unfinished_page.empty(folder.described(), folder.name, running=running)
    return reports.put_unfinished(folder, page)
