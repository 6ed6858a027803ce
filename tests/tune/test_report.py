"""results/ of real small studies: complete, loadable, the same when made again, and honest in words."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from m3col.config import loading
from m3col.evaluation import test_ledger
from tests.support.driving import coordinator, drive, prepare_study, small
from tests.support.helpers import tiny_data
from tune.results import collect, prediction_table, report, summary, test_table
from tune.results.study_results import StudyResults
from tune.scheduling import selection
from tune.study import record
from tune.study.record import StudyFolder

CSV = ("test_table.csv", "test_metrics.csv", "trials.csv")


@pytest.fixture(scope="module")
def results(finished_study: StudyFolder) -> StudyResults:
    return StudyResults.read(finished_study)


def searched(runs: Path, raw: dict[str, Any], *, data: Any = None) -> tuple[StudyFolder, report.Report]:
    folder, ready = prepare_study(runs, raw, data=data)
    drive(coordinator(folder, ready), ready.dataset)
    collect.collect(folder, ready.config, ready.dataset)
    return folder, report.write(folder)


def test_results_are_complete_and_the_same_when_made_again(study_copy: Callable[[], StudyFolder]) -> None:
    folder = study_copy()
    first = report.write(folder)
    names = {path.name for path in folder.results.iterdir()}
    assert names == {*CSV, *report.PLOTS, "baselines.json", "best_config.yaml", "report.html", "summary.md", "model"}
    for name in report.PLOTS:
        assert (folder.results / name).read_bytes()[:4] == b"\x89PNG"
    before = {
        name: (folder.results / name).read_bytes() for name in (*CSV, "best_config.yaml", "report.html", "summary.md")
    }
    second = report.write(folder)
    assert before == {name: (folder.results / name).read_bytes() for name in before}
    assert first.summary == second.summary == before["summary.md"].decode()
    assert first.best_metrics["test/macro_f1"] == first.test_table["test"].iloc[0]


def test_best_config_is_the_winners_run(study_copy: Callable[[], StudyFolder]) -> None:
    folder = study_copy()
    found = report.write(folder)
    trained = loading.load(folder.path / f"trials/{found.decision.winner}/config.yaml")
    assert loading.load(folder.results / "best_config.yaml") == trained


def test_trials_table_has_every_trial_with_its_role(study_copy: Callable[[], StudyFolder]) -> None:
    found = report.write(study_copy())
    assert found.trials["number"].tolist() == list(range(6))
    assert found.trials["role"].iloc[0].startswith("default")
    assert found.trials["role"].str.contains("winner").sum() == 1
    assert found.trials.loc[0, "objective.beta"] == 0.1
    assert found.trials["confirmed"].notna().sum() == 2


def test_summary_says_what_won_against_which_noise_and_what_was_invisible(results: StudyResults) -> None:
    text = summary.write(results, test_table.all_metrics(results))
    for part in ("won**", "3 runs of the default", "standard deviation", "would probably not have been seen",
                 "1,597 test samples", "Rank correlation", "6 trials:", "Known issues of the data",
                 "the first study or run in its folder", "### accuracy"):  # fmt: skip
        assert part in text, part
    assert "### log_loss" not in text  # only what was published is shown in full


def test_an_interval_that_holds_zero_is_not_distinguishable(results: StudyResults) -> None:
    table = test_table.all_metrics(results)
    table.loc[table["row"] == "winner", ["difference", "difference_low", "difference_high"]] = [0.01, -0.02, 0.04]
    assert "**not distinguishable on 1,597 samples**" in summary.write(results, table)
    table.loc[table["row"] == "winner", "difference_low"] = 0.001
    assert "**distinguishably better on 1,597 samples**" in summary.write(results, table)


def with_final(results: StudyResults, **changes: Any) -> StudyResults:
    """The same study, had its config other values in the section `final:`."""
    settings = results.config.settings
    final = settings.final.model_copy(update=changes)
    config = dataclasses.replace(results.config, settings=settings.model_copy(update={"final": final}))
    return dataclasses.replace(results, config=config)


def test_remarks_stand_below_the_test_table(results: StudyResults) -> None:
    table = test_table.all_metrics(results)
    text = summary.write(with_final(results, remarks=["Scores of its training split.", "Two\nlines."]), table)
    assert "\n- Scores of its training split.\n" in text and "\n- Two\\nlines.\n" in text
    assert text.index("## Test: macro_f1") < text.index("Scores of its") < text.index("Intervals: bootstrap")


@pytest.mark.parametrize(("methods", "said"), [((), False), (("concat", "cmc"), True), (("supcon",), True)])
def test_balanced_accuracy_is_explained_where_any_row_has_a_linear_evaluation(
    results: StudyResults, methods: tuple[str, ...], said: bool
) -> None:
    rows = {name: loading.with_overrides(results.config.run, {"method": name}) for name in methods}
    changed = dataclasses.replace(results, config=dataclasses.replace(results.config, rows=rows))
    text = summary.write(changed, test_table.all_metrics(results))
    assert ("is what the tables of CoMM call accuracy" in text) == said


def test_a_tie_goes_to_the_default_and_is_called_ordinary(results: StudyResults) -> None:
    best = results.decision.best or 1
    decision = selection.Decision(0, best, {0: 0.80, best: 0.81}, True, selection.Noise(0.02, 3), 0.02)
    tied = dataclasses.replace(results, decision=decision)
    text = summary.write(tied, test_table.all_metrics(tied))
    assert "**The default setting won**: val/macro_f1 80.0 %" in text
    assert "ordinary ending" in text and "ties go to the default" in text
    assert f"Trial {best} scored 81.0 %, which is 1.0 points better, but the noise alone makes 2.0 points" in text
    assert "| **winner** (= default) |" in text and "| default |" not in text


def test_the_ledger_counts_earlier_looks(study_copy: Callable[[], StudyFolder]) -> None:
    folder = study_copy()
    path = folder.path.parent / "test_ledger.jsonl"
    own = path.read_text()
    path.unlink()
    digest = folder.described()["digests"]["test"]
    test_ledger.add(folder.path.parent, dataset="digits", digest=digest, by="train/digits-m3col-1", rows=1)
    path.write_text(path.read_text() + own)
    assert "had been scored once before" in report.write(folder).summary


def test_a_default_alone_without_replicates_or_confirmation(tmp_path: Path) -> None:
    raw = small(search={"trials": 1, "replicates": 0, "confirm": None}, space={}, final={"seeds": 1, "draws": 100})
    folder, found = searched(tmp_path, raw)
    assert found.decision.winner == 0
    assert "**Noise was not measured** (search.replicates is 0)" in found.summary
    assert "**Nothing was searched**" in found.summary
    assert "One model per row: the intervals cover the test samples, but not other seeds." in found.summary
    assert found.test_table["label"].iloc[0] == "winner (= default)"
    assert {path.name for path in folder.results.glob("*.png")} == {"history.png"}


def test_two_classes_in_memory_without_a_test_split(tmp_path: Path) -> None:
    data = dataclasses.replace(tiny_data(), test=None)
    raw = small(search={"trials": 3, "replicates": 1, "confirm": None}, **{"overrides__data.name": "arrays"})
    folder, found = searched(tmp_path, raw, data=data)
    assert found.test_table["test"].isna().all() and found.test_table["cv"].notna().any()
    assert found.test_table["metric"].iloc[0] == "auroc"
    assert "no labelled test split" in found.summary and "CV auroc (%)" in found.summary
    assert test_ledger.entries(tmp_path) == []
    assert (folder.results / "model/checkpoint.json").exists()
    assert not any("test" in name for name in found.best_metrics)


def test_withheld_test_labels_are_never_scored(study_copy: Callable[[], StudyFolder]) -> None:
    folder = study_copy()
    rows = pd.read_parquet(folder.path / record.PREDICTIONS_FILE)
    rows.loc[rows["kind"] == "test", "label"] = prediction_table.NONE
    rows.to_parquet(folder.path / record.PREDICTIONS_FILE)
    found = report.write(folder)
    assert found.test_table["test"].isna().all()
    assert "no labelled test split" in found.summary


def test_a_study_in_which_nothing_finished_still_has_a_report(results: StudyResults) -> None:
    rows = results.predictions
    empty = dataclasses.replace(
        results, decision=None, scored=(), trials=(), noise=None, predictions=rows[rows["job"] == ""]
    )
    table = test_table.all_metrics(empty)
    assert "**No trial finished**" in summary.write(empty, table)
    assert [draw(empty) for draw in report.PLOTS.values()] == [None] * 4


def test_one_value_for_all_trials_leaves_the_importance_out(results: StudyResults) -> None:
    only = dataclasses.replace(results, trials=results.trials[:1])
    drawn = {name: draw(only) for name, draw in report.PLOTS.items()}
    assert drawn["importance.png"] is None
    assert all(drawn[name] is not None for name in ("history.png", "slice.png", "parallel_coordinate.png"))
