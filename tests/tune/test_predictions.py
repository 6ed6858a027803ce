"""What a study leaves per sample, its baselines, and the ensemble that is delivered."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from m3col import predictor, tasks
from m3col.data import from_arrays
from m3col.data.formats.csv_columns import Layout
from m3col.data.loading import load
from m3col.data.splits import Fold, read_csv
from m3col.errors import InputError
from m3col.evaluation import test_ledger
from tests.models.builders import text_folder
from tests.support import pairs
from tests.support.helpers import tiny_config
from tune.results import baseline_rows, prediction_table
from tune.study.record import StudyFolder

DIGITS = tasks.build("single_label", 10)


@pytest.fixture(scope="module")
def table(finished_study: StudyFolder) -> pd.DataFrame:
    return prediction_table.read(finished_study)


def test_every_finished_run_is_there_and_no_other(finished_study: StudyFolder, table: pd.DataFrame) -> None:
    complete = {name for name, run in finished_study.runs() if run.outcome().state == "complete"}
    jobs = set(table["job"])
    assert complete == {job for job in jobs if not job.startswith("baselines/")}
    assert {"baselines/majority", "baselines/logistic"} < jobs
    assert set(table.loc[table["kind"] == "test", "job"]) == {
        job for job in jobs if job.startswith(("refits/", "baselines/"))
    }


def test_out_of_fold_rows_give_the_metric_of_the_last_epoch(finished_study: StudyFolder, table: pd.DataFrame) -> None:
    train = load("digits").train
    for job in ("trials/0", "replicates/1", "confirm/0-1"):
        rows = table[table["job"] == job]
        assert sorted(rows["id"]) == sorted(train.ids)
        truth = dict(zip(train.ids, train.labels, strict=True))
        assert rows["label"].tolist() == [truth[i] for i in rows["id"]]
        last = finished_study.run(job).history()[-1]["metrics"]["val/macro_f1"]
        assert prediction_table.cross_validated(rows, DIGITS)["macro_f1"] == pytest.approx(last, abs=1e-12)
    assert table[table["job"] == "replicates/1"]["seed"].unique().tolist() == [2]


def test_logistic_is_fitted_on_the_other_folds_of_the_deciding_partition(
    finished_study: StudyFolder, table: pd.DataFrame
) -> None:
    train = load("digits").train
    fold = read_csv(finished_study.path / "splits.csv")["confirm"][1]
    x = np.concatenate(list(train.inputs.values()), axis=1)
    low, span = x[fold.train].min(axis=0), np.ptp(x[fold.train], axis=0)
    x = np.where(span > 0, (x - low) / np.where(span > 0, span, 1), 0)
    model = LogisticRegression(max_iter=10_000).fit(x[fold.train], train.labels[fold.train])
    rows = table[(table["job"] == "baselines/logistic") & (table["kind"] == "oof") & (table["fold"] == 1)]
    assert rows["id"].tolist() == train.ids[fold.validation].tolist()
    found = DIGITS.link(DIGITS.outputs_of(rows))
    np.testing.assert_allclose(found, model.predict_proba(x[fold.validation]), atol=1e-6)


def test_every_modality_alone_has_a_row(table: pd.DataFrame) -> None:
    rows = {job.removeprefix("baselines/") for job in table["job"].unique() if job.startswith("baselines/")}
    assert rows == {"majority", "logistic", "logistic late", "logistic stacked"} | {
        f"logistic {name}" for name in load("digits").modalities
    }
    own = table[(table["job"] == "baselines/logistic pixels") & (table["kind"] == "oof")]
    assert prediction_table.cross_validated(own, DIGITS)["macro_f1"] > 0.8


def test_texts_with_a_trained_encoder_have_a_row_of_frozen_embeddings(tmp_path: Path) -> None:
    folder = pairs.folder(tmp_path / "data")
    dataset = load("image_text", data_dir=folder, layout=Layout(text=("caption",)))
    trained = {"model__text": {"name": str(text_folder(tmp_path / "bert"))}, "data__text__tokenizer": None}
    rows = np.arange(len(dataset.train))
    folds = [Fold(train=rows[rows % 2 != k], validation=rows[rows % 2 == k]) for k in (0, 1)]
    jobs = {}
    for name, changes in (("random", {}), ("trained", trained)):
        run = pairs.config(folder, **changes)
        rows_of = baseline_rows.baseline_predictions(run, dataset, dataset.train, folds, wanted=["linear"])
        table = pd.concat(rows_of)
        jobs[name] = dict(tuple(table.groupby("job")))
    assert jobs["trained"].keys() - jobs["random"].keys() == {
        f"baselines/logistic frozen{form}" for form in ("", " text", " late", " stacked")
    }
    frozen, plain = (jobs["trained"][f"baselines/{row}"] for row in ("logistic frozen", "logistic"))
    assert frozen["id"].tolist() == plain["id"].tolist() and len(frozen) == len(dataset.train) + len(dataset.test)
    task = tasks.build(classes=dataset.classes)
    assert not np.allclose(task.outputs_of(frozen), task.outputs_of(plain))


def test_studies_on_the_same_data_and_folds_fit_the_baselines_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = []
    once = baseline_rows.Baselines.fit
    monkeypatch.setattr(baseline_rows.Baselines, "fit", lambda self: fitted.append(self) or once(self))
    monkeypatch.setattr(baseline_rows, "_FITTED", {})
    dataset, tables = load("digits"), []
    rows = np.arange(len(dataset.train))
    folds = [Fold(train=rows[rows % 2 != k], validation=rows[rows % 2 == k]) for k in (0, 1)]
    for run, parts in ((tiny_config(), folds), (tiny_config(method="concat"), folds), (tiny_config(), folds[::-1])):
        made = baseline_rows.Baselines(run, dataset, dataset.train, parts, ["linear"])
        tables.append(pd.concat(made.predictions()))
    assert len(fitted) == 2  # another method has the same baselines, other folds have others
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert not tables[0]["fold"].equals(tables[2]["fold"]) or not tables[0]["id"].equals(tables[2]["id"])


def test_a_baseline_that_some_fold_lacks_is_left_out_as_a_whole() -> None:
    """A class of two samples has one in each fold, so that there are no inner folds there."""
    labels = np.array([0] * 20 + [1] * 20 + [2] * 2)
    x = {name: np.random.default_rng(0).normal(size=(42, 3)) for name in ("a", "tuned a")}
    test = ({name: value[:12] for name, value in x.items()}, labels[30:])
    dataset = from_arrays(x, labels, test=test)
    rows = np.arange(42)
    folds = [Fold(train=rows[rows % 2 != k], validation=rows[rows % 2 == k]) for k in (0, 1)]
    made = baseline_rows.Baselines(tiny_config(data__modalities=None), dataset, dataset.train, folds, True)
    table = pd.concat(made.predictions())
    counts = table.groupby("job").size()
    assert set(counts) == {42 + 12}  # each sample once out of fold, each test sample once
    assert not any("stacked" in job or "cooperative" in job for job in counts.index)
    assert {"logistic stacked", "cooperative"} <= set(made.left_out)
    assert {"baselines/logistic tuned a (modality)", "baselines/logistic tuned a"} <= set(counts.index)


def test_ensemble_is_the_mean_probability_of_the_winners_models(
    finished_study: StudyFolder, table: pd.DataFrame
) -> None:
    test = load("digits").test
    members = [table[table["job"] == f"refits/winner/{seed}"] for seed in range(2)]
    mean = np.mean([DIGITS.link(DIGITS.outputs_of(rows)) for rows in members], axis=0)
    found = predictor.load(finished_study.results / "model").predict_proba(test.inputs)
    np.testing.assert_allclose(found, mean, atol=1e-6)


def test_a_row_of_one_modality_is_trained_on_it_alone(finished_study: StudyFolder) -> None:
    [path] = finished_study.path.glob("refits/pixels_alone/0/attempt-1/model")
    assert list(predictor.load(path).features) == ["pixels"]


def test_the_ledger_notes_the_study_once(finished_study: StudyFolder) -> None:
    [entry] = test_ledger.entries(finished_study.path.parent)
    assert entry["by"] == prediction_table.ledger_name(finished_study)
    assert entry["digest"] == load("digits").digests()["test"]


def test_a_study_without_predictions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the study is not finished"):
        prediction_table.read(StudyFolder(tmp_path))
