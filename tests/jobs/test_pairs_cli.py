"""Pictures and texts from the command line: check, train, evaluate, predict, and every fault at once."""

import csv
from pathlib import Path

import numpy as np
import pytest

import m3col
from jobs.cli import main
from m3col import yamlio
from tests import pairs


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pairs.folder(tmp_path_factory.mktemp("pairs") / "data")


@pytest.fixture(autouse=True)
def _own_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3COL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")


@pytest.fixture(scope="module")
def trained(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run that the command trained."""
    folder = tmp_path_factory.mktemp("runs")
    config = pairs.config(place, train__epochs=3).to_dict()
    (folder / "pairs.yaml").write_text(yamlio.dump(config))
    words = ["train", str(folder / "pairs.yaml"), "--runs-dir", str(folder), "--tracking-uri", "none"]
    assert main(words) == 0
    return folder / "train/image_text-m3col-1/model"


def test_one_csv_is_predicted_with_label_probability_and_votes(trained, place, tmp_path, capsys):
    assert main(["predict", str(trained), "--csv", str(place / "test.csv"), "--out", str(tmp_path / "out.csv")]) == 0
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == pairs.COUNTS["test"]
    model = m3col.load(trained)
    with (place / "test.csv").open() as file:
        given = list(csv.DictReader(file))
    expected = model.predict_proba(
        {"image": [place / row["image"] for row in given], "text": [row["caption"] for row in given]}
    )
    for row, probabilities in zip(rows, expected, strict=True):
        assert row["label"] == model.classes[probabilities.argmax()]
        for name, value in zip(model.classes, probabilities, strict=True):
            assert float(row[f"p({name})"]) == pytest.approx(value, rel=1e-4)
        assert {row["vote(image)"], row["vote(text)"]} <= set(model.classes)


def test_every_fault_of_a_csv_is_told_and_nothing_is_written(trained, place, tmp_path, capsys):
    (tmp_path / "pairs.csv").write_text("imag,caption\nx.png,a rose\n")
    words = ["predict", str(trained), "--csv", str(tmp_path / "pairs.csv"), "--out", str(tmp_path / "no" / "out.csv")]
    assert main([*words[:2], "text=x.csv", *words[2:]]) == 2
    said = capsys.readouterr().err
    assert "column 'image' is missing; did you mean 'imag'?" in said
    assert "is not a folder" in said and "--csv holds all modalities" in said and "Traceback" not in said
    (tmp_path / "pairs.csv").write_text(f"image,caption\nnone.png,a rose\n{place}/imgs/test-0.png, \n")
    assert main(["predict", str(trained), "--csv", str(tmp_path / "pairs.csv")]) == 2
    said = capsys.readouterr().err
    assert "row 1" in said and "none.png" in said and "row 2: is an empty text" in said


def test_evaluate_reads_the_columns_that_the_checkpoint_was_trained_on(trained, place, tmp_path, capsys):
    assert main(["evaluate", str(trained), "--runs-dir", str(tmp_path)]) == 0
    assert "test/accuracy" in capsys.readouterr().out


def test_a_folder_of_pairs_is_checked(place, capsys):
    assert main(["data", "check", str(place), "--text", "caption"]) == 0
    said = capsys.readouterr().out
    assert "median words" in said and "ok: this folder can be used" in said
    assert main(["data", "check", str(place), "--text", "captoin"]) == 2
    assert "did you mean 'caption'" in capsys.readouterr().err


def test_faults_of_data_models_and_config_come_together(place, tmp_path, capsys):
    raw = pairs.config(place).to_dict()
    raw["data"]["text"]["columns"] = ["captoin"]
    raw["train"]["epochs"] = 0
    (tmp_path / "wrong.yaml").write_text(yamlio.dump(raw))
    assert main(["train", str(tmp_path / "wrong.yaml"), "--runs-dir", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert "train.epochs" in said and "captoin" in said
    raw = pairs.config(place).to_dict()
    raw["model"]["image"]["name"] = "vit_tny_patch16_224"
    raw["model"]["text"] |= {"name": "brt"}
    (tmp_path / "wrong.yaml").write_text(yamlio.dump(raw))
    assert main(["train", str(tmp_path / "wrong.yaml"), "--runs-dir", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert "vit_tiny_patch16_224" in said and "model.text.name" in said and "Traceback" not in said
    assert not (tmp_path / "runs").exists()


def test_a_broken_picture_is_named_before_anything_is_written(tmp_path, capsys):
    place = pairs.folder(tmp_path / "data")
    (place / "imgs/train-4.png").write_text("<!DOCTYPE html><html></html>")
    (place / "imgs/test-2.png").write_bytes(b"")
    (tmp_path / "pairs.yaml").write_text(yamlio.dump(pairs.config(place).to_dict()))
    assert main(["train", str(tmp_path / "pairs.yaml"), "--runs-dir", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert "train-4.png" in said and "HTML" in said and "test-2.png" in said
    assert not (tmp_path / "runs").exists()


def test_models_that_do_not_fit_into_memory_in_lockstep_are_refused(place, tmp_path, capsys, monkeypatch):
    import psutil

    raw = pairs.config(place, validation__kind="kfold", validation__folds=3).to_dict()
    (tmp_path / "pairs.yaml").write_text(yamlio.dump(raw))
    small = psutil.virtual_memory()._replace(available=100_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: small)
    assert main(["train", str(tmp_path / "pairs.yaml"), "--runs-dir", str(tmp_path / "runs")]) == 2
    assert "3 models in lockstep take" in capsys.readouterr().err


def test_mlflow_takes_paths_or_contents_and_texts(trained, place, tmp_path):
    """The model as MLflow keeps it, loaded from its store."""
    import mlflow
    import pandas as pd

    from m3col import tracking

    tracker = tracking.connect(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    assert tracker is not None
    run = tracker.create(tracker.experiment("pairs"), "one", tags={}, started=0.0)
    uri = tracker.model(run, trained, example=None)
    mlflow.set_tracking_uri(tracker.uri)
    model = mlflow.pyfunc.load_model(uri)
    paths, texts = [str(place / f"imgs/test-{n}.png") for n in range(3)], ["a rose", "a frog here", "the sea"]
    expected = m3col.load(trained).predict_proba({"image": paths, "text": texts})
    table = pd.DataFrame({"text": texts, "image": paths})
    np.testing.assert_array_equal(model.predict(table).to_numpy(), expected)
    contents = pd.DataFrame({"text": texts, "image": [Path(path).read_bytes() for path in paths]})
    np.testing.assert_array_equal(model.predict(contents).to_numpy(), expected)
