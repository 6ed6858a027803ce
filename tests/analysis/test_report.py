"""The folder of an analysis, the command, and what it says of bad input."""

from pathlib import Path

import pandas as pd
import pytest

from jobs import cli
from m3col.analysis import runner, umap_plot
from m3col.errors import InputError
from m3col.tracking import mlflow_store
from tests.support.helpers import tiny_data

FAST = ["errors", "robustness", "confidence"]


def command(*words):
    return cli.main([str(word) for word in words])


def test_a_page_shows_every_file_that_is_written(paired, tmp_path):
    paths = runner.analyse(paired.predictor, paired.dataset, tmp_path / "out", ["red"], [*FAST, "heatmaps"])
    names = sorted(path.name for path in paths)
    assert names == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["README.md", "confidence.csv", "confidence.png", "errors.csv", "errors.png", "heatmaps.csv",
                     "heatmaps_red.png", "robustness.csv", "robustness.png"]  # fmt: skip
    page = (tmp_path / "out" / "README.md").read_text()
    assert all(f"({name})" in page for name in names if name != "README.md")
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in paths if path.suffix == ".png")


def test_the_same_seed_gives_the_same_tables_and_another_one_others(numeric, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        runner.analyse(numeric.checkpoint, numeric.dataset, tmp_path / name, only=["confidence"], seed=seed)
    tables = [(tmp_path / name / "confidence.csv").read_text() for name in "abc"]
    assert tables[0] == tables[1] != tables[2]


def test_what_does_not_apply_is_a_line_of_the_page(numeric, tmp_path, monkeypatch):
    monkeypatch.setattr(umap_plot, "installed", lambda: False)
    runner.analyse(numeric.checkpoint, numeric.dataset, tmp_path / "out")
    page = (tmp_path / "out" / "README.md").read_text()
    assert (
        "- heatmaps: needs an image and a text modality" in page and "an ensemble of 2 members".lower() in page.lower()
    )
    assert "- umap: the package umap-learn is not installed; pip install 'm3col[analysis]'." in page
    assert pd.read_csv(tmp_path / "out" / "errors.csv").shape[0] == 8 + 6


def test_every_fault_at_once_and_nothing_is_written(numeric, tmp_path, monkeypatch):
    monkeypatch.setattr(umap_plot, "installed", lambda: False)
    (tmp_path / "file").write_text("")
    other = tiny_data(classes=2, modalities=3)
    with pytest.raises(InputError) as caught:
        runner.analyse(numeric.checkpoint, other, tmp_path / "file" / "out", ["red", " "], ["umap", "heatmap"])
    words = ["'heatmap' is no analysis; did you mean 'heatmaps'", "pip install 'm3col[analysis]'", "a word is empty",
             "--words are for heatmaps", "this one has view_0 (numeric)", "is a file", "has the classes"]  # fmt: skip
    assert all(any(word in line for line in caught.value.faults) for word in words), caught.value.faults
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_data_set_without_labels_or_with_other_features_is_refused(numeric, tmp_path):
    from dataclasses import replace

    dataset = numeric.dataset
    for wrong, words in (
        (replace(dataset, test=None), "no labelled test split"),
        (replace(dataset, test=dataset.test.without_labels()), "no labelled test split"),
        (replace(dataset, features={**dataset.features, "view_1": ("a",) * 6}), "features of 'view_1'"),
    ):
        with pytest.raises(InputError, match=words):
            runner.analyse(numeric.checkpoint, wrong, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_asked_for_by_name_has_to_be_possible(numeric, tmp_path):
    with pytest.raises(InputError, match="heatmaps: needs an image and a text modality"):
        runner.analyse(numeric.checkpoint, numeric.dataset, tmp_path / "out", only=["errors", "heatmaps"])
    assert not (tmp_path / "out").exists()


def test_the_command_knows_the_data_of_the_training_and_sends_the_files_to_mlflow(
    paired, tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    runs = tmp_path / "runs"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "private.txt").write_text("stays here")
    code = command("analyse", paired.checkpoint, "--out", tmp_path / "out", "--only", "errors", "--runs-dir", runs)
    assert code == 0, capsys.readouterr().err
    assert "3 files in" in capsys.readouterr().out
    tracker = mlflow_store.connect(None, runs)
    experiment = tracker.client.get_experiment_by_name("image_text")
    (run,) = tracker.find(experiment.experiment_id, {mlflow_store.KIND: "analysis"})
    assert run.name == f"analysis of {paired.checkpoint}" and run.status == "FINISHED"
    assert {item.path for item in tracker.client.list_artifacts(run.id, "analysis")} == {
        "analysis/README.md", "analysis/errors.csv", "analysis/errors.png"
    }  # fmt: skip
    assert "errors" in run.tags[mlflow_store.NOTE]
    assert len((runs / "test_ledger.jsonl").read_text().splitlines()) == 1


def test_evaluate_finds_the_columns_of_the_training(paired, tmp_path, capsys):
    assert command("evaluate", paired.checkpoint, "--runs-dir", tmp_path) == 0, capsys.readouterr().err
    assert "test/accuracy" in capsys.readouterr().out


def test_by_default_the_folder_is_beside_the_checkpoint(paired, tmp_path):
    words = ["--only", "errors", "--tracking-uri", "none", "--runs-dir", tmp_path]
    assert command("analyse", paired.checkpoint, *words) == 0
    assert (Path(paired.checkpoint).parent / "analysis" / "README.md").exists()
    assert not (tmp_path / "mlflow.db").exists()


def test_the_command_tells_all_faults(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code = command("analyse", tmp_path / "model", "--only", "eror", "--out", tmp_path / "file", "--seed", "-1")
    lines = capsys.readouterr().err.splitlines()
    assert code == 2 and len(lines) == 4 and all(line.startswith("error: ") for line in lines), lines
    assert "did you mean 'errors'" in lines[1] and "is a file" in lines[2] and "--seed" in lines[3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
