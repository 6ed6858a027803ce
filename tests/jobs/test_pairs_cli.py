"""Images and texts from the command line: check, train, evaluate, predict, and every fault at once."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import m3col
from jobs.cli import main
from m3col.config import yaml_files
from m3col.data.images import decoding
from tests.data.pair_builders import change, write_food101
from tests.models.builders import text_folder
from tests.support import pairs


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
    (folder / "pairs.yaml").write_text(yaml_files.dump(config))
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
        source_rows = list(csv.DictReader(file))
    expected = model.predict_proba(
        {"image": [place / row["image"] for row in source_rows], "text": [row["caption"] for row in source_rows]}
    )
    for row, probabilities in zip(rows, expected, strict=True):
        assert row["label"] == model.classes[probabilities.argmax()]
        for name, value in zip(model.classes, probabilities, strict=True):
            assert float(row[f"p({name})"]) == pytest.approx(value, rel=1e-4)
        assert {row["vote(image)"], row["vote(text)"]} <= set(model.classes)


def test_every_fault_of_a_csv_is_reported_and_nothing_is_written(trained, place, tmp_path, capsys):
    (tmp_path / "pairs.csv").write_text("imag,caption\nx.png,a rose\n")
    words = ["predict", str(trained), "--csv", str(tmp_path / "pairs.csv"), "--out", str(tmp_path / "no" / "out.csv")]
    assert main([*words[:2], "text=x.csv", *words[2:]]) == 2
    printed = capsys.readouterr().err
    assert "column 'image' is missing; did you mean 'imag'?" in printed
    assert "is not a folder" in printed and "--csv holds all modalities" in printed and "Traceback" not in printed


def test_every_row_that_cannot_be_labelled_is_named_with_its_file(trained, place, tmp_path, capsys):
    path = tmp_path / "pairs.csv"
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "html.png").write_text("<html>")
    rows = ["none.png,a rose", f"{place}/imgs/test-0.png, ", ",a rose", ".,a rose", "pipe.png,a rose"]
    path.write_text("image,caption\n" + "\n".join(rows) + "\n")
    assert main(["predict", str(trained), "--csv", str(path)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: {path}: row 1: image 'none.png': the file is missing",
        f"error: {path}: row 4: image '.' is not a file",
        f"error: {path}: row 5: image 'pipe.png' is not a file",
        f"error: {path}: row 3: the path of the image is empty",
        f"error: {path}: row 2: the text is empty",
    ]
    path.write_text("image,captoin\nhtml.png,a rose\n")  # a column that is missing hides nothing
    assert main(["predict", str(trained), "--csv", str(path)]) == 2
    printed = capsys.readouterr().err
    assert f"{path}: row 1: image 'html.png' is an HTML page" in printed and "did you mean 'captoin'" in printed


def test_blanks_around_a_path_do_no_harm_as_in_training(trained, place, tmp_path, capsys):
    (tmp_path / "pairs.csv").write_text(f"image,caption\n {place}/imgs/test-0.png ,a rose\n")
    assert main(["predict", str(trained), "--csv", str(tmp_path / "pairs.csv")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_an_ensemble_decodes_each_image_once(trained, place, monkeypatch):
    model = m3col.load([trained] * 3)
    inputs = {"image": [place / f"imgs/test-{n}.png" for n in range(5)], "text": ["a rose"] * 5}
    expected = model.predict_proba(inputs)
    calls, decode = [], decoding.decode
    monkeypatch.setattr(decoding, "decode", lambda *a: (calls.append(a), decode(*a))[1])
    np.testing.assert_array_equal(model.predict_proba(inputs), expected)
    assert len(calls) == 5
    np.testing.assert_allclose(m3col.load(trained).predict_proba(inputs), expected, rtol=1e-6)


def test_nothing_to_label_gives_no_rows(trained):
    assert m3col.load(trained).predict_proba({"image": [], "text": []}).shape == (0, 3)


def test_evaluate_reads_the_columns_that_the_checkpoint_was_trained_on(trained, place, tmp_path, capsys):
    assert main(["evaluate", str(trained), "--runs-dir", str(tmp_path)]) == 0
    assert "test/accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("cached", [True, False])
def test_evaluate_names_broken_images_before_it_predicts(trained, place, tmp_path, capsys, cached):
    model = shutil.copytree(trained, tmp_path / "model")
    described = json.loads((model / "checkpoint.json").read_text())
    described["config"]["data"]["cache"] = cached
    (model / "checkpoint.json").write_text(json.dumps(described))
    data = shutil.copytree(place, tmp_path / "data")
    (data / "imgs/test-2.png").write_text("<html>")
    assert main(["evaluate", str(model), "--data-dir", str(data), "--runs-dir", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert printed == f"error: {data}/test.csv: row 3: image 'imgs/test-2.png' is an HTML page\n"


def test_texts_are_counted_in_tokens(place, tmp_path, capsys):
    words = ["data", "check", str(place), "--text", "caption"]
    tokenizer = str(text_folder(tmp_path / "encoder"))
    assert main([*words, "--tokenizer", tokenizer, "--max-length", "4"]) == 0
    printed = capsys.readouterr().out
    assert "longest (tokens)" in printed and "cut off at 4" in printed and "100.0 %" in printed
    assert main([*words[:3], "--tokenizer", str(tmp_path / "no"), "--max-length", "-3"]) == 2
    printed = capsys.readouterr().err
    assert "--max-length -3: must be >= 1; nearest valid: 1" in printed
    assert "--tokenizer" in printed and "there is no such folder" in printed and "column 'text' is missing" in printed


def test_a_folder_of_pairs_is_checked(place, capsys):
    assert main(["data", "check", str(place), "--text", "caption"]) == 0
    printed = capsys.readouterr().out
    assert "median words" in printed and "usable: no faults, but 3 warnings above to read" in printed
    assert main(["data", "check", str(place), "--text", "captoin"]) == 2
    assert "did you mean 'caption'" in capsys.readouterr().err


def test_faults_of_data_models_and_config_come_together(place, tmp_path, capsys):
    data = shutil.copytree(place, tmp_path / "data")
    (data / "imgs/train-4.png").write_text("<html>")
    change(data / "val.csv", 2, "caption", " ")
    change(data / "test.csv", 3, "label", "rde")
    raw = pairs.config(data).to_dict()
    raw["train"]["epochs"] = 0
    raw["model"]["image"]["name"] = "vit_tny_patch16_224"
    raw["model"]["text"] |= {"name": "brt"}
    (tmp_path / "wrong.yaml").write_text(yaml_files.dump(raw))
    search = {"base": str(tmp_path / "wrong.yaml"), "space": {"objective.beta": [0.1, 0.2]}}
    (tmp_path / "search.yaml").write_text(yaml_files.dump(search))
    for command, file in (("train", "wrong.yaml"), ("search", "search.yaml")):
        assert main([command, str(tmp_path / file), "--runs-dir", str(tmp_path / "runs")]) == 2
        printed = capsys.readouterr().err
        for words in (
            "train.epochs must be >= 1, but got 0",
            f"error: {data}/train.csv: row 5: image 'imgs/train-4.png' is an HTML page",
            f"error: {data}/val.csv: row 2: the text is empty",
            f"error: {data}/test.csv: row 3: label 'rde' never occurs in train.csv; did you mean 'red'?",
            "model.image.name 'vit_tny_patch16_224' is unknown to timm; did you mean 'vit_tiny_patch16_224'?",
            "model.text.name 'brt' is no kind of encoder; did you mean 'bert'?",
        ):
            assert words in printed, (command, words, printed)
        assert "Traceback" not in printed and not (tmp_path / "runs").exists()


def test_what_is_left_out_is_printed_and_kept(tmp_path, capsys):
    data = write_food101(tmp_path / "food")
    for number in range(3):
        (data / "images/train/cat" / f"cat_train_{number}.jpg").unlink()
    shutil.copy(data / "images/train/dog/dog_train_0.jpg", data / "images/test/emu/emu_test_0.jpg")
    raw = pairs.config(data, data__name="food101", data__text__columns=None, train__epochs=1).to_dict()
    (tmp_path / "food.yaml").write_text(yaml_files.dump(raw))
    words = ["train", str(tmp_path / "food.yaml"), "--runs-dir", str(tmp_path / "runs"), "--tracking-uri", "none"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert "left out of the data: 3 (train: no image)" in printed.out
    assert f"warning: {data}/train.csv: 3 of 30 pairs (10 %) are left out" in printed.err
    assert f"warning: {data}: train and test overlap: of the 6 pairs of test, 1 have an image" in printed.err
    (about,) = (json.loads(path.read_text()) for path in tmp_path.glob("runs/train/*/data.json"))
    assert about["dropped"] == {"train: no image": 3} and len(about["warnings"]) == 2


def test_a_broken_image_is_named_before_anything_is_written(tmp_path, capsys):
    place = pairs.folder(tmp_path / "data")
    (place / "imgs/train-4.png").write_text("<!DOCTYPE html><html></html>")
    (place / "imgs/test-2.png").write_bytes(b"")
    (tmp_path / "pairs.yaml").write_text(yaml_files.dump(pairs.config(place).to_dict()))
    assert main(["train", str(tmp_path / "pairs.yaml"), "--runs-dir", str(tmp_path / "runs")]) == 2
    printed = capsys.readouterr().err
    assert "train-4.png" in printed and "HTML" in printed and "test-2.png" in printed
    assert not (tmp_path / "runs").exists()


def test_models_that_do_not_fit_into_memory_in_lockstep_are_refused(place, tmp_path, capsys, monkeypatch):
    import psutil

    raw = pairs.config(place, validation__kind="kfold", validation__folds=3).to_dict()
    (tmp_path / "pairs.yaml").write_text(yaml_files.dump(raw))
    small = psutil.virtual_memory()._replace(available=100_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: small)
    assert main(["train", str(tmp_path / "pairs.yaml"), "--runs-dir", str(tmp_path / "runs")]) == 2
    assert "3 models in lockstep take" in capsys.readouterr().err


def test_mlflow_takes_paths_or_contents_and_texts(trained, place, tmp_path):
    """The model as MLflow keeps it, loaded from its store."""
    import mlflow
    import pandas as pd

    from m3col.tracking import mlflow_store

    tracker = mlflow_store.connect(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
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
