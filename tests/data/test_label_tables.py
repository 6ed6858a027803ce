"""Several labels per sample and numbers from files: tables of labels, columns of a CSV, the check of a folder, the
commands."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import m3col
from jobs.cli import main
from m3col import tasks
from m3col.data import loading
from m3col.data.arrays import from_arrays
from m3col.data.checks.check_folder import check
from m3col.data.formats.csv_columns import Layout
from m3col.data.splits import draw, pool
from m3col.errors import InputError
from tests.data import pair_builders
from tests.data.builders import TEST, TRAIN, edit, write_folder
from tests.support import pairs as tiny_pairs
from tune.results import baseline_rows

FORMS = {"multi_label": "binary", "regression": "number"}
NAMES = ("action", "comedy")


def labels(task: str, count: int) -> np.ndarray:
    if task == "multi_label":
        return np.column_stack([np.arange(count) % 2, np.arange(count) % 3 == 0]).astype(int)
    return np.column_stack([np.arange(count) / 4, 10.0 - np.arange(count)])


def write_table(path: Path, values: np.ndarray, header: str = ",".join(NAMES)) -> None:
    lines = [",".join(f"{value:g}" for value in row) for row in values]
    path.write_text("\n".join([header, *lines] if header else lines) + "\n", encoding="utf-8")


@pytest.fixture(params=FORMS)
def task(request) -> str:
    return request.param


@pytest.fixture
def folder(tmp_path, task) -> Path:
    write_folder(tmp_path / "data")
    for part, count in (("tr", TRAIN), ("te", TEST)):
        write_table(tmp_path / "data" / f"labels_{part}.csv", labels(task, count))
    return tmp_path / "data"


@pytest.fixture
def pairs(tmp_path, task) -> Path:
    place = pair_builders.write_image_text(tmp_path / "pairs")
    for name in ("train", "val", "test"):
        rows = pair_builders.read_csv(place / f"{name}.csv")
        cells = [[f"label:{name}" for name in NAMES], *([f"{v:g}" for v in row] for row in labels(task, len(rows) - 1))]
        joined = [row[:2] + more for row, more in zip(rows, cells, strict=True)]
        pair_builders.write_csv(place / f"{name}.csv", joined)
    return place


def load(name: str, folder: Path, task: str, **layout):
    return loading.load(name, data_dir=folder, layout=Layout(form=FORMS[task], **layout))


def test_a_table_of_labels_with_names_in_its_first_line(folder, task):
    dataset = load("omics", folder, task)
    assert dataset.classes == NAMES
    assert np.array_equal(dataset.train.labels, labels(task, TRAIN))
    assert np.array_equal(dataset.test.labels, labels(task, TEST))
    assert dataset.train.labels.dtype == labels(task, 1).dtype


def test_columns_of_other_splits_are_found_by_name(folder, task):
    write_table(folder / "labels_te.csv", labels(task, TEST)[:, ::-1], "comedy,action")
    assert np.array_equal(load("omics", folder, task).test.labels, labels(task, TEST))


def test_names_may_be_missing_or_stand_in_classes_csv(folder, task):
    for part, count in (("tr", TRAIN), ("te", TEST)):
        write_table(folder / f"labels_{part}.csv", labels(task, count), "")
    word = {"multi_label": "label", "regression": "target"}[task]
    assert load("omics", folder, task).classes == (f"{word}_0", f"{word}_1")
    (folder / "classes.csv").write_text("index,name\n0,x\n1,y\n", encoding="utf-8")
    assert load("omics", folder, task).classes == ("x", "y")


def test_a_table_that_cannot_be_used_is_refused_with_file_row_and_column(folder, task):
    edit(folder / "labels_tr.csv", row=3, column=1, to="NA")
    edit(folder / "labels_tr.csv", row=4, column=2, to="inf" if task == "regression" else "2")
    edit(folder / "labels_te.csv", row=2, column=2, to="much")
    with pytest.raises(InputError) as error:
        load("omics", folder, task)
    word = {"multi_label": "label", "regression": "target"}[task]
    other = "must be finite, but is inf" if task == "regression" else "must be 0 or 1, but is 2; nearest 1"
    assert list(error.value.faults)[:2] == [
        f"{folder}/labels_tr.csv: row 2, {word} 'action' is missing; add it, or leave the sample out",
        f"{folder}/labels_tr.csv: row 3, {word} 'comedy' {other}",
    ]
    assert error.value.faults[2].startswith(f"{folder}/labels_te.csv: row 1, column 'comedy' must be a number, but is")


def test_rows_of_other_lengths_and_row_numbers_are_refused(folder, task):
    edit(folder / "labels_tr.csv", row=5, to="1")
    with pytest.raises(InputError, match=r"labels_tr.csv: row 5: has 1 fields, but the first row has 2"):
        load("omics", folder, task)
    rows = [f"{at},{a:g},{b:g}" for at, (a, b) in enumerate(labels(task, TRAIN))]
    (folder / "labels_tr.csv").write_text("\n".join([",action,comedy", *rows]), encoding="utf-8")
    with pytest.raises(InputError, match=r"column 1 is the row number; save the table without it"):
        load("omics", folder, task)


def test_the_check_of_a_folder_counts_labels_or_describes_targets(folder, task):
    report = check(folder, layout=Layout(form=FORMS[task]))
    assert report.ok, report.faults
    if task == "multi_label":
        assert report.class_columns == ("label", "train", "test")
        assert report.class_rows == (("action", "6 of 12", "3 of 6"), ("comedy", "4 of 12", "2 of 6"))
    else:
        assert report.class_columns == ("target", "train", "test")
        assert report.class_rows[0] == ("action", "1.375 (0 to 2.75)", "0.625 (0 to 1.25)")


def test_columns_label_name_of_images_and_texts(pairs, task):
    dataset = load("image_text", pairs, task)
    assert dataset.classes == NAMES
    for split, count in pair_builders.COUNTS.items():
        assert np.array_equal(dataset.splits[split].labels, labels(task, count))
    report = check(pairs, layout=Layout(form=FORMS[task]))
    assert report.ok and report.class_rows[0][0] == "action"


def test_images_and_texts_train_and_their_baselines_predict(pairs, task, tmp_path):
    config = tiny_pairs.config(pairs, task=task, train__epochs=1, data__text__columns=["text"])
    result = m3col.train(config.to_dict(), runs=tmp_path / "runs", tracking_uri="none")
    table = result.predictor.predict_table({"image": [str(pairs / "imgs" / "1.png")], "text": ["text number 1"]})
    assert len(table) == 1 and result.predictor.classes == NAMES
    dataset = load("image_text", pairs, task)
    (fold,) = draw(dataset, kind="given")
    frames = list(
        baseline_rows.baseline_predictions(result.config, dataset, pool(dataset, "given"), [fold], wanted=["linear"])
    )
    built = tasks.of(result.config, NAMES)
    assert f"baselines/{built.linear_baseline}" in {frame["job"].iloc[0] for frame in frames}
    assert all(np.isfinite(built.outputs_of(frame)).all() for frame in frames)


def test_columns_that_the_config_names(pairs, task):
    dataset = load("image_text", pairs, task, label=("label:comedy", "label:action"))
    assert dataset.classes == ("label:comedy", "label:action")
    assert np.array_equal(dataset.train.labels, labels(task, 6)[:, ::-1])
    with pytest.raises(InputError, match=r"column 'comedie' \(data.label_column\) is missing; did you mean"):
        load("image_text", pairs, task, label=("comedie",))


def test_faults_of_columns_name_file_and_row(pairs, task):
    pair_builders.change(pairs / "train.csv", 2, "label:action", "")
    pair_builders.change(pairs / "val.csv", 1, "label:comedy", "maybe")
    with pytest.raises(InputError) as error:
        load("image_text", pairs, task)
    text = "\n".join(error.value.faults)
    assert "train.csv: row 2, " in text and "'action' is missing; add it, or leave the sample out" in text
    assert "val.csv: row 1, column 'comedy' must be a number, but is 'maybe'" in text


def test_one_target_may_stand_in_the_column_label(tmp_path):
    place = pair_builders.write_image_text(tmp_path / "pairs")
    for name in ("train", "val", "test"):
        rows = pair_builders.read_csv(place / f"{name}.csv")
        numbered = [rows[0], *([*row[:2], f"{at / 2}"] for at, row in enumerate(rows[1:]))]
        pair_builders.write_csv(place / f"{name}.csv", numbered)
    dataset = load("image_text", place, "regression")
    assert dataset.classes == ("label",) and dataset.train.labels.tolist() == [[at / 2] for at in range(6)]


def test_commands_check_train_evaluate_and_predict(folder, task, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", str(folder), "--task", task]) == 0
    assert "comedy" in capsys.readouterr().out
    settings = [f"task={task}", "method=concat", "train.epochs=2", "validation.kind=none"]
    assert (
        main(["train", "omics", "--data-dir", str(folder), *settings, "--runs", "runs", "--tracking-uri", "none"]) == 0
    )
    model = next(Path("runs/train").glob("*/model"))
    capsys.readouterr()
    assert main(["evaluate", str(model), "--runs", "runs"]) == 0
    metric = "macro_f1" if task == "multi_label" else "r2"
    assert f"test/{metric}" in capsys.readouterr().out
    assert main(["predict", str(model), f"modality_1={folder}/1_te.csv", f"modality_2={folder}/2_te.csv"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    own = "row,labels,p(action),p(comedy)" if task == "multi_label" else "row,action,comedy,vote(modality_1) action"
    assert header.startswith(own) and len(rows) == TEST


def test_the_commands_refuse_other_tasks_and_labels(folder, task, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", str(folder), "--task", "multilabel"]) == 2
    assert "--task: task 'multilabel' is unknown; did you mean 'multi_label'?" in capsys.readouterr().err
    assert main(["train", "omics", "--data-dir", str(folder), "task=multilabel", "--tracking-uri", "none"]) == 2
    assert "task 'multilabel' is unknown; did you mean 'multi_label'?" in capsys.readouterr().err
    assert main(["train", "digits", f"task={task}", "--tracking-uri", "none"]) == 2
    assert f"task '{task}' needs" in capsys.readouterr().err
    assert main(["train", "digits", "data.label_column=[a, b]", "--tracking-uri", "none"]) == 2
    assert "data.label_column must be one column for task 'single_label', but is ['a', 'b']" in capsys.readouterr().err


def test_numbers_below_a_large_mean_are_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "data")
    values = 1e6 + labels("regression", TRAIN) / 1000
    lines = ["action,comedy", *(f"{a!r},{b!r}" for a, b in values.tolist())]
    (tmp_path / "data" / "labels_tr.csv").write_text("\n".join(lines), encoding="utf-8")
    settings = ["task=regression", "method=concat", "train.epochs=1", "validation.kind=none"]
    folder = tmp_path / "data"
    (folder / "labels_te.csv").unlink()
    for path in folder.glob("*_te.csv"):
        path.rename(tmp_path / path.name)
    command = ["train", "omics", "--data-dir", str(folder), *settings, "--runs", "runs", "--tracking-uri", "none"]
    assert main(command) == 0
    model = next(Path("runs/train").glob("*/model"))
    capsys.readouterr()
    assert main(["predict", str(model), "modality_1=1_te.csv", "modality_2=2_te.csv"]) == 0
    _, *rows = capsys.readouterr().out.splitlines()
    assert len({row.split(",")[1] for row in rows}) > 3  # six digits would leave one


def test_columns_that_are_numbered_in_another_order_are_matched_by_name():
    x = {"a": np.zeros((4, 2)), "b": np.zeros((4, 3))}
    labels = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]])
    test = pd.DataFrame([[0, 0, 1], [1, 0, 0]], columns=[2, 1, 0])
    inputs = {name: values[:2] for name, values in x.items()}
    frame = pd.DataFrame(labels, columns=[0, 1, 2])
    found = from_arrays(x, frame, test=(inputs, test), task="multi_label")
    assert found.test.labels.tolist() == [[1, 0, 0], [0, 0, 1]]
    # Numbers that pandas gave are no names: the names of the argument count, and other splits go by position.
    named = from_arrays(
        x, frame, test=(inputs, pd.DataFrame([[0, 0, 1], [1, 0, 0]])), classes=["u", "v", "w"], task="multi_label"
    )  # fmt: skip
    assert named.classes == ("u", "v", "w") and named.test.labels.tolist() == [[0, 0, 1], [1, 0, 0]]
