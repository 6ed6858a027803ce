"""What the summary says of the baselines: whether the winner beats the best one, and what to look at otherwise."""

from dataclasses import replace

import numpy as np
import pytest

from tune.results import baseline_summary, report, summary, test_table
from tune.results.study_results import StudyResults
from tune.study import record
from tune.study.record import StudyFolder


@pytest.fixture(scope="module")
def results(finished_study: StudyFolder) -> StudyResults:
    return StudyResults.read(finished_study)


def changed(results: StudyResults, **by_job: np.ndarray) -> StudyResults:
    """The same study with other outputs: a function of the labels for each first word of a job's name."""
    table = results.predictions.copy()
    for job, outputs in by_job.items():
        rows = table["job"].str.startswith(job)
        table.loc[rows, [f"logit_{k}" for k in range(10)]] = outputs(table.loc[rows, "label"].to_numpy())
    return replace(results, predictions=table)


def right(labels: np.ndarray, share: float) -> np.ndarray:
    """Outputs that are right for a share of the samples."""
    rng = np.random.default_rng(0)
    answers = np.where(rng.random(len(labels)) < share, labels, rng.integers(10, size=len(labels)))
    return 9.0 * np.eye(10)[answers]


def text(results: StudyResults) -> str:
    return summary.write(results, test_table.all_metrics(results))


def test_it_begins_with_the_comparison_with_the_best_baseline(results):
    paragraphs = text(results).split("\n\n")
    assert paragraphs[2].startswith(f"The best baseline by cross-validation is `{results.best_baseline}`, with ")
    assert "The ensemble" in paragraphs[2] and "Noise" in paragraphs[3]


@pytest.mark.parametrize(("share", "says"), [(0.99, "**The winner beats it: +"), (0.3, "**The winner is worse: −")])
def test_it_says_who_is_better(results, share, says):
    made = changed(results, refits=lambda y: right(y, share), baselines=lambda y: right(y, 0.7))
    assert says in text(made)


def test_a_difference_within_the_noise_is_no_victory(results):
    made = changed(results, refits=lambda y: right(y, 0.7), baselines=lambda y: right(y, 0.7))
    assert "**The winner is not distinguishable from it: " in text(made)


def test_where_nothing_was_learnt_it_says_what_to_look_at(results):
    def guess(labels: np.ndarray) -> np.ndarray:
        return np.random.default_rng(1).normal(size=(len(labels), 10))

    made = changed(results, refits=guess, baselines=lambda y: np.tile(-np.arange(10.0), (len(y), 1)))
    said = text(made)
    assert "No row is distinguishably better than `majority`" in said
    for clue in (
        "Training samples: 20 of class 0 (0), ",
        "Each modality alone, `logistic` in cross-validation: pixels ",
        "Noise of a score",
    ):
        assert clue in said
    assert "What to look at" not in text(results)


def test_it_names_the_baselines_that_are_left_out_and_what_was_chosen(study_copy):
    folder = study_copy()
    path = folder.path / record.BASELINES_FILE
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"chosen": {"svm": {"C": 10.0}}, "left_out": {"random_forest": "too many"}}')
    said = report.write(folder).summary
    assert "Baseline `random_forest` is left out: too many." in said and "`svm` C 10.0" in said
    assert baseline_summary.left_out(StudyResults.read(folder)) == ["Baseline `random_forest` is left out: too many."]
