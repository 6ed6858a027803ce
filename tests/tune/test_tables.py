"""The test table against PROTOCOL 6, computed a second time here where that is possible."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from scipy.stats import t as student_t

from m3col import tasks
from m3col.errors import InputError
from m3col.metrics import classification, intervals
from tests.support.driving import coordinator, prepare_study, small
from tune.config import loading as search_config
from tune.results import leaderboard, prediction_table, test_table
from tune.results.report import Report
from tune.results.study_results import StudyResults
from tune.study import record
from tune.study.record import StudyFolder


@pytest.fixture(scope="module")
def results(finished_study: StudyFolder) -> StudyResults:
    return StudyResults.read(finished_study)


@pytest.fixture(scope="module")
def table(results: StudyResults) -> pd.DataFrame:
    return test_table.all_metrics(results)


def line(table: pd.DataFrame, row: str, metric: str = "macro_f1") -> pd.Series:
    return table[(table["row"] == row) & (table["metric"] == metric)].iloc[0]


def scores(results: StudyResults, row: str, metric: str) -> list[float]:
    found = [results.test_probabilities(f"refits/{row}/{seed}") for seed in range(2)]
    return [classification.score(metric, results.test_labels, value) for value in found]


def test_rows_stand_in_the_order_of_the_protocol(table: pd.DataFrame) -> None:
    order = test_table.declared_table(table)["row"].tolist()
    assert order[:6] == ["winner", "default", "no contrast", "pixels alone", "ensemble", "majority"]
    linear = ["", " pixels", " fourier", " gradients", " late", " stacked"]
    assert order[6:] == [*(f"logistic{form}" for form in linear), "another paper"]
    assert set(table["metric"]) == set(classification.names(10))
    assert table["metric"].iloc[0] == "macro_f1"


@pytest.mark.parametrize("metric", ["macro_f1", "log_loss"])
def test_difference_is_paired_by_seed_and_draw(results: StudyResults, table: pd.DataFrame, metric: str) -> None:
    mine, theirs = scores(results, "winner", metric), scores(results, "default", metric)
    deltas = np.subtract(mine, theirs)
    counts = intervals.bootstrap_counts(results.test_labels, draws=100)
    boots = []
    for seed in range(2):
        pair = [results.test_probabilities(f"refits/{row}/{seed}") for row in ("winner", "default")]
        drawn = [intervals.bootstrap_scores(metric, results.test_labels, value, counts) for value in pair]
        boots.append(drawn[0] - drawn[1])
    v_bar, s2 = np.var(np.mean(boots, axis=0), ddof=1), np.var(deltas, ddof=1)
    v_one = np.mean([np.var(b, ddof=1) for b in boots])
    v = max(v_bar + s2 / 2 - (v_one - v_bar), v_bar, s2 / 2)
    df = max(1.0, v**2 / ((s2 / 2) ** 2 + v_bar**2 / (len(results.test_labels) - 1)))
    half = student_t.ppf(0.975, df) * np.sqrt(v)
    found = line(table, "winner", metric)
    assert found["test"] == pytest.approx(np.mean(mine))
    assert found["sd_seeds"] == pytest.approx(np.std(mine, ddof=1))
    assert found["difference"] == pytest.approx(deltas.mean())
    assert found["difference_low"] == pytest.approx(deltas.mean() - half)
    assert found["difference_high"] == pytest.approx(deltas.mean() + half)
    assert found["smallest_visible"] == pytest.approx(2.8 * np.sqrt(v))


def test_default_is_not_compared_with_itself_and_one_model_has_no_spread(table: pd.DataFrame) -> None:
    assert np.isnan(line(table, "default")["difference"])
    for row in ("ensemble", "logistic", "majority"):
        assert line(table, row)["seeds"] == 1 and np.isnan(line(table, row)["sd_seeds"])
    gap = line(table, "logistic")["test"] - line(table, "default")["test"]
    assert line(table, "logistic")["difference"] == pytest.approx(gap)


def test_holm_is_over_the_rows_of_the_declared_metric(table: pd.DataFrame) -> None:
    declared = test_table.declared_table(table)
    cross_validated = declared[declared["row"].str.startswith("logistic")].set_index("row")["cv"]
    compared = declared["row"].isin(["winner", "no contrast", "pixels alone", "ensemble", cross_validated.idxmax()])
    np.testing.assert_allclose(
        declared["p_holm"].astype(float), intervals.holm(declared["p"].where(compared).astype(float).tolist())
    )
    assert declared["p_holm"].notna().sum() == 5
    assert table.loc[table["metric"] != "macro_f1", "p_holm"].isna().all()


def test_rows_are_compared_with_the_baseline_that_is_best_in_cross_validation(
    results: StudyResults, table: pd.DataFrame
) -> None:
    best = results.best_baseline
    values = {row: results.baseline_cv(row)["macro_f1"] for row in results.baselines() if row != "majority"}
    assert values[best] == max(values.values())
    winner = scores(results, "winner", "macro_f1")
    own, reference = line(table, "winner"), line(table, best)
    assert own["over_baseline"] == pytest.approx(np.mean(winner) - reference["test"])
    counts = intervals.bootstrap_counts(results.test_labels, draws=100)
    drawn = [
        intervals.bootstrap_scores("macro_f1", results.test_labels, results.test_probabilities(job), counts)
        for job in ("refits/winner/0", "refits/winner/1", f"baselines/{best}")
    ]
    expected = intervals.interval(
        [score - reference["test"] for score in winner], np.stack([drawn[0] - drawn[2], drawn[1] - drawn[2]]),
        len(results.test_labels),
    )  # fmt: skip
    assert (own["over_baseline_low"], own["over_baseline_high"]) == pytest.approx((expected.low, expected.high))
    assert np.isnan(reference["over_baseline"]) and np.isfinite(line(table, "ensemble")["over_baseline"])


def test_cv_value_is_the_mean_of_the_confirmations(results: StudyResults, table: pd.DataFrame) -> None:
    values = [results.outcomes[f"confirm/0-{seed}"].value for seed in range(2)]
    assert line(table, "default")["cv"] == pytest.approx(np.mean(values))
    last = [results.folder.run(f"confirm/0-{seed}").history()[-1]["metrics"] for seed in range(2)]
    assert line(table, "default", "accuracy")["cv"] == pytest.approx(np.mean([m["val/accuracy"] for m in last]))
    oof = results.predictions.query("job == 'baselines/logistic' and kind == 'oof'")
    assert line(table, "logistic")["cv"] == prediction_table.cross_validated(oof, tasks.build(classes=10))["macro_f1"]
    assert np.isnan(line(table, "no contrast")["cv"])


def test_optimistic_is_the_best_test_epoch_of_each_seed(study_copy: Callable[[], StudyFolder]) -> None:
    folder = study_copy()
    for seed in range(2):
        run = folder.run(f"refits/default/{seed}")
        path = run.path / run.outcome().attempt / "predictions.safetensors"
        arrays = load_file(path)
        truth = np.eye(10, dtype=np.float32)[StudyResults.read(folder).test_labels]
        epochs = {"epoch.3": -9 * truth, "epoch.5": (9 + seed) * truth, "epoch.10": arrays["epoch.10"]}
        probes = {"probe.grid.0": -9 * truth, "probe.ridge.0": -9 * truth, "probe.ridge.1": (9 + seed) * truth}
        save_file({**arrays, **epochs, **probes}, path)
    table = test_table.all_metrics(StudyResults.read(folder))
    assert line(table, "default", "accuracy")["optimistic"] == 1.0
    losses = [np.log1p(9 * np.exp(-9.0 - seed)) for seed in range(2)]
    assert line(table, "default", "log_loss")["optimistic"] == pytest.approx(np.mean(losses))
    assert line(table, "default", "log_loss")["test"] > 0.1
    assert np.isnan(line(table, "ensemble")["optimistic"])
    assert line(table, "default", "accuracy")["optimistic_grid"] < 0.2 and "optimistic_notebook" not in table
    assert line(table, "default", "log_loss")["optimistic_ridge"] == pytest.approx(np.mean(losses))
    assert [*table.columns[: len(test_table.COLUMNS)]] == [*test_table.COLUMNS]
    results = StudyResults.read(folder)
    final = results.config.settings.final.model_copy(update={"optimistic": False})
    settings = results.config.settings.model_copy(update={"final": final})
    plain = test_table.all_metrics(replace(results, config=replace(results.config, settings=settings)))
    assert [*plain.columns] == [*test_table.COLUMNS] and plain["optimistic"].isna().all()
    others = [name for name in test_table.COLUMNS if name != "optimistic"]
    pd.testing.assert_frame_equal(plain[others], table[others])


def test_published_percent_is_read_as_a_share(table: pd.DataFrame) -> None:
    assert line(table, "default", "accuracy")["published"] == pytest.approx(0.905)
    assert line(table, "another paper", "accuracy")["published"] == pytest.approx(0.8)
    assert np.isnan(line(table, "default", "macro_f1")["published"])


def test_a_failed_refit_is_said_and_the_other_seeds_are_paired(study_copy: Callable[[], StudyFolder]) -> None:
    folder = study_copy()
    path = folder.path / "refits/default/0/result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "state": "failed", "failure": "loss is nan"}))
    rows = pd.read_parquet(folder.path / record.PREDICTIONS_FILE)
    rows[rows["job"] != "refits/default/0"].to_parquet(folder.path / record.PREDICTIONS_FILE)
    results = StudyResults.read(folder)
    table = test_table.all_metrics(results)
    assert line(table, "default")["note"] == "1 of 2 refits failed: loss is nan"
    assert line(table, "default")["seeds"] == 1
    mine, theirs = scores(results, "winner", "macro_f1")[1], line(table, "default")["test"]
    assert line(table, "winner")["difference"] == pytest.approx(mine - theirs)


def test_a_refit_of_another_winner_is_made_again(study_copy: Callable[[], StudyFolder]) -> None:
    folder = study_copy()
    path = folder.path / "refits/winner/1/config.yaml"
    path.write_text(path.read_text().replace("learning_rate:", "learning_rate: 0.0123  #"))
    _, ready = prepare_study(folder.path.parent, small_like(folder), name=folder.name)
    assert coordinator(folder, ready).next().name == "refits/winner/1"


def small_like(folder: StudyFolder) -> dict[str, Any]:
    found = folder.described()["config"]
    return small(search__confirm=found["search"]["confirm"], search__replicates=2, final__optimistic=True)


def test_rows_that_cannot_be_told_apart_are_faults() -> None:
    rows = {"a b": {"objective.beta": 0.0}, "a_b": {"objective.beta": 1.0}, "majority": {"objective.beta": 1.0}}
    with pytest.raises(InputError) as caught:
        search_config.load(small(final__rows=rows))
    assert any("needs the same folder (a_b) as the row 'a b'" in fault for fault in caught.value.faults)
    assert any("final.rows.majority" in fault and "reserved" in fault for fault in caught.value.faults)


@pytest.mark.parametrize(("metric", "order"), [("auroc", "cba"), ("loss", "cab")])
def test_leaderboard_ranks_by_cross_validation_within_a_data_set(tmp_path: Path, metric: str, order: str) -> None:
    folders, reports = [], []
    for name, data, method, cv, test in (
        ("a", "rosmap", "concat", 0.7, 0.9), ("b", "rosmap", "m3col", 0.8, 0.6), ("c", "brca", "single", 0.5, 0.5),
    ):  # fmt: skip
        folder = StudyFolder(tmp_path / name)
        folder.path.mkdir(parents=True)
        described = {"format": 1, "name": name, "dataset": {"name": data, "modalities": ["mRNA"]},
                     "config": {"run": {"method": method}}, "digests": {}, "versions": {}}  # fmt: skip
        (folder.path / "study.json").write_text(json.dumps(described))
        row = {"row": "winner", "label": "winner (trial 3)", "metric": metric, "cv": cv, "test": test}
        rows = [dict.fromkeys(test_table.COLUMNS, np.nan) | row]
        folders.append(folder)
        reports.append(Report.of(test_metrics=pd.DataFrame(rows), trials=pd.DataFrame(), summary=""))
    board = leaderboard.leaderboard(folders, reports)
    methods, scores = {"a": "concat", "b": "m3col", "c": "single:mRNA"}, {"a": 0.9, "b": 0.6, "c": 0.5}
    assert board["study"].tolist() == [*order]
    assert board["method"].tolist() == [methods[name] for name in order]
    assert board["test"].tolist() == [scores[name] for name in order]
