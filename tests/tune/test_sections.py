"""A report is data first: sections without a look, and a renderer that gives them one."""

import re

import optuna

from tests.support.driving import coordinator, prepare_study, small
from tune.results import summary, test_table
from tune.results.sections import Section, to_markdown
from tune.results.study_results import StudyResults
from tune.scheduling.optuna_study import Trials


def test_markdown_of_each_part():
    found = to_markdown(
        [
            Section("A study", level=1, paragraphs=["It **won**.", ""]),
            Section("A table", table={"": ["x", "y"], "score": ["1", "2"]}, notes=["one", "two"]),
            Section("Below", level=3, figure="history.png"),
        ]
    )
    blocks = found.split("\n\n")
    assert blocks[:3] == ["# A study", "It **won**.", "## A table"]
    assert re.search(r"\| *x *\| *1 *\|", blocks[3]) and blocks[4] == "- one\n- two"
    assert blocks[5:] == ["### Below", "![Below](history.png)\n"]


def test_the_sections_of_a_study_hold_all_that_its_summary_says(finished_study):
    results = StudyResults.read(finished_study)
    table = test_table.all_metrics(results)
    sections = summary.sections(results, table)
    assert [section.level for section in sections[:2]] == [1, 2] and "How the search went" in [
        s.title for s in sections
    ]
    (test,) = [section for section in sections if section.title == f"Test: {results.declared}"]
    assert test.table is not None and test.table[""][0].startswith("**winner**") and test.notes
    assert all(len(cells) == len(test.table[""]) for cells in test.table.values())
    text = summary.write(results, table)
    for section in sections:
        assert f"{'#' * section.level} {section.title}\n" in text
        assert all(part in text for part in [*section.paragraphs, *section.notes])


def test_the_optuna_study_names_its_metric(tmp_path):
    folder, ready = prepare_study(tmp_path, small())
    trials = coordinator(folder, ready).trials
    assert trials.study.metric_names is None  # as of a study of an older version
    named = Trials(
        folder.storage(), name=folder.database_name(), settings=ready.config.settings.search, maximize=True,
        space=ready.config.space, metric="val/auroc",
    )  # fmt: skip
    stored = optuna.load_study(study_name=folder.database_name(), storage=folder.storage())
    assert named.study.metric_names == stored.metric_names == ["val/auroc"]
