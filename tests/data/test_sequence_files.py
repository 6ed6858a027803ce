"""Files of sequences: the examples of docs/data_formats.md, arrays, damage, and folders."""

import io
import re
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from jobs.cli import main
from m3col.data import loading
from m3col.data.checks.check_folder import check
from m3col.data.formats.csv_columns import Layout
from m3col.data.sequences import files, npz
from m3col.errors import InputError
from tests.data.test_data_formats_doc import blocks
from tests.support.sequence_data import draw_sequences

VALUES = np.arange(12.0).reshape(6, 2)
GOOD = {"values": VALUES, "offsets": np.array([0, 2, 6]), "ids": np.array(["a", "b"]), "features": np.array(["x", "y"])}


def read(path: Path) -> tuple[files.SequenceFile | None, list[str]]:
    faults: list[str] = []
    return files.read_file(path, faults), [line.removeprefix(f"{path}: ") for line in faults]


def test_the_long_csv_of_the_page_is_read(tmp_path):
    path = tmp_path / "motion.csv"
    path.write_text(blocks("sequence")[0][0], encoding="utf-8")
    content, faults = read(path)
    assert faults == [] and content.ids == ("a", "b") and content.features == ("x", "y")
    wanted = [[[0.5, -1.25], [2, np.nan], [3, 7]], [[1000, 4], [np.nan, 5]]]
    for row, steps in enumerate(wanted):
        assert np.array_equal(content.column.sequence(row), np.array(steps, np.float32), equal_nan=True)


def test_the_faults_of_the_page_are_reported_at_once(tmp_path):
    path = tmp_path / "motion.csv"
    text, messages = blocks("sequence-refused")[0]
    path.write_text(text, encoding="utf-8")
    assert read(path) == (None, messages)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,x\na,1\n", "column 'time' is missing"),
        ("sample,time,x\na,1,1\n", "column 'id' is missing"),
        ("id,time\na,1\n", "no column of a feature"),
        ("id,time,x\na,1,1,1\n", "row 1: has 4 fields, but the header has 3"),
        ("", "the file is empty"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "motion.csv"
    path.write_text(text, encoding="utf-8")
    content, faults = read(path)
    assert content is None and any(message in line for line in faults), faults


def test_dates_order_steps_with_and_without_zones(tmp_path):
    path = tmp_path / "motion.csv"
    path.write_text("id,time,x\na,2024-01-01T10:00+02:00,1\na,2024-01-01T09:00+00:00,2\nb,2024-01-02,1\n")
    content, faults = read(path)
    assert faults == [] and content.column.lengths.tolist() == [2, 1]
    path.write_text("id,time,x\na,2024-01-01T10:00+00:00,1\na,2024-01-01T11:00+02:00,2\n")
    assert "does not come after" in read(path)[1][0]


def test_times_without_a_zone_do_not_depend_on_that_of_the_machine(tmp_path, monkeypatch):
    path = tmp_path / "motion.csv"
    path.write_text("id,time,x\na,2024-03-31T02:30,1\na,2024-03-31T03:00,2\n")
    monkeypatch.setenv("TZ", "Europe/Berlin")  # where the clock was put forward from 2 to 3 in that night
    time.tzset()
    assert read(path)[1] == []
    monkeypatch.undo()
    time.tzset()


def test_the_python_of_the_page_writes_what_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks("python-sequence")[0][0], "page", "exec"), scope := {})
    for suffix in files.ARRAYS:
        content, faults = read(Path(f"motion{suffix}"))
        assert faults == [] and content.ids == ("a", "b") and content.column.lengths.tolist() == [20, 35]
        assert np.array_equal(content.column.steps, scope["table"].astype(np.float32))
        names = ("x", "y", "z") if suffix == ".safetensors" else ("motion_0", "motion_1", "motion_2")
        assert content.features == names and content.is_named == (suffix == ".safetensors")


def test_features_are_matched_by_name_where_the_file_names_them(tmp_path):
    files.write_file(tmp_path / "m.safetensors", [VALUES], features=["x", "y"])
    content, _ = read(tmp_path / "m.safetensors")
    faults: list[str] = []
    assert np.array_equal(content.select(["y", "x"], faults).steps, VALUES[:, ::-1].astype(np.float32)) and not faults
    assert content.select(["x", "z"], faults) is None and "1 features are missing, such as 'z'" in faults[0]
    files.write_file(tmp_path / "m.safetensors", [VALUES])
    content, _ = read(tmp_path / "m.safetensors")
    assert content.select(["p", "q"], faults) is content.column
    assert content.select(["p"], faults) is None and "has 2 features, but the model was trained with 1" in faults[1]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "<i8", "|u1"])
def test_npz_arrays_are_those_that_were_saved(tmp_path, save, dtype):
    own = VALUES.astype(dtype)
    arrays = {"values": own, "turned": np.asfortranarray(own), "empty": own[:0], "one": own[1, 0]}
    arrays["names"] = np.array(["a", "\u00e4b"])
    save(tmp_path / "a.npz", **arrays)
    there = npz.read(tmp_path / "a.npz")
    assert there.keys() == arrays.keys()
    for name, wanted in arrays.items():
        assert there[name].shape == wanted.shape and np.array_equal(there[name], wanted), name


def test_padded_arrays_lose_their_padding(tmp_path):
    cube = np.arange(12.0).reshape(2, 3, 2)
    np.savez(tmp_path / "m.npz", values=cube, lengths=np.array([1, 3]))
    content, faults = read(tmp_path / "m.npz")
    assert faults == [] and content.ids == ("0", "1")
    assert np.array_equal(content.column.sequence(0), cube[0, :1]) and np.array_equal(
        content.column.sequence(1), cube[1]
    )
    np.savez(tmp_path / "m.npz", values=cube)
    assert read(tmp_path / "m.npz")[0].column.lengths.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": None}, "the array 'values' is missing"),
        ({"offsets": None}, "the array 'offsets' is missing"),
        ({"offsets": np.array([0, 2, 5])}, "'offsets' must begin with 0, not fall, and end with the number of steps"),
        ({"offsets": np.array([0, 7, 6])}, "'offsets' must begin with 0"),
        ({"offsets": np.array([0.0, 2, 6])}, "'offsets' must be whole numbers"),
        ({"offsets": np.array([0, 0, 6])}, "id 'a': has no steps"),
        ({"ids": np.array(["a", "a"])}, "'ids' must differ, but 'a' occurs 2 times"),
        ({"ids": np.array(["a"])}, "'ids' must name 2, but names 1"),
        ({"features": np.array(["x"])}, "'features' must name 2, but names 1"),
        ({"values": np.array(["a", "b"])}, "'values' must be numbers"),
        ({"values": VALUES[:, :0]}, "'values' must be numbers"),
        ({"values": np.where(VALUES == 5, np.inf, VALUES)}, "id 'b': step 1, feature 2 (y): inf is infinite"),
        ({"values": np.where(VALUES < 4, np.nan, VALUES)}, "id 'a': every value is missing"),
        ({"values": VALUES.reshape(2, 3, 2), "lengths": np.array([1, 4])}, "'lengths' must have one number from"),
        ({"values": np.array([{}], dtype=object)}, "array 'values' holds Python objects or records"),
        ({"values": np.zeros(6, [("x", "f4")])}, "array 'values' holds Python objects or records"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(tmp_path, change, message):
    arrays = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    np.savez(tmp_path / "m.npz", **arrays)
    content, faults = read(tmp_path / "m.npz")
    assert content is None and any(message in line for line in faults), faults


def test_damaged_archives_are_refused_and_nothing_else_happens(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, **GOOD)
    whole, rng, path = buffer.getvalue(), np.random.default_rng(0), tmp_path / "m.npz"
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 3):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(bytes(damaged[: rng.integers(10, len(whole))] if rng.random() < 0.3 else damaged))
        content, faults = read(path)
        assert (content is None) == bool(faults)
        refused += content is None
    assert refused > 200


def test_sizes_are_compared_before_memory_is_allocated(tmp_path, monkeypatch):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 99999999), }".ljust(117) + b"\n"
    entry = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.writestr("values.npy", entry)
        archive.writestr("long.npy", b"\x93NUMPY\x02\x00" + (10**9).to_bytes(4, "little"))
        archive.writestr("other.npy", b"no array")
    with pytest.raises(InputError) as caught:
        npz.read(tmp_path / "m.npz")
    text = str(caught.value)
    assert (
        "[99999999999, 99999999] of float64 are 79999999199200000008 bytes, but it has another size" in text
        and "has a header of 1000000000 bytes" in text
    )
    assert "array 'other' is not in NumPy's format" in text
    np.savez(tmp_path / "m.npz", **GOOD)
    monkeypatch.setattr(npz.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 100}))
    with pytest.raises(InputError, match="GB of memory"):
        npz.read(tmp_path / "m.npz")


@pytest.mark.parametrize(("ids", "message"), [("{", "must be a JSON list"), ('[["a"]]', "must be a JSON list")])
def test_safetensors_that_cannot_be_used_are_refused(tmp_path, ids, message):
    path = tmp_path / "m.safetensors"
    save_file({"values": VALUES, "offsets": GOOD["offsets"]}, path, metadata={"ids": ids})
    assert message in read(path)[1][0]
    path.write_bytes(b"x" * 100)
    assert "cannot be read as safetensors" in read(path)[1][0]
    with pytest.raises(InputError, match="ids must name 1, but name 2"):
        files.write_file(path, [VALUES], ids=["a", "b"])
    with pytest.raises(InputError, match=r"must end with .safetensors"):
        files.write_file(tmp_path / "m.npz", [VALUES])


# Folders


def write_folder(folder: Path, samples: int = 60) -> Path:
    """Sequences in two forms and a table, for `samples` training and 20 test samples."""
    folder.mkdir()
    rng, count = np.random.default_rng(0), samples + 20
    ids, labels = [f"s{row}" for row in range(count)], ["fast" if row % 2 else "slow" for row in range(count)]
    for name, rows in (("train", range(samples)), ("test", range(samples, count))):
        lines = [f"{ids[row]},{labels[row]}" for row in rows]
        (folder / f"{name}.csv").write_text("\n".join(["id,label", *lines]) + "\n")
    series = draw_sequences(count)
    for row, steps in enumerate(series):
        steps[:, 0] += 2.0 * (row % 2)
    lines = [f"{ids[row]},{t},{','.join(map(str, step))}" for row in range(count) for t, step in enumerate(series[row])]
    (folder / "motion.csv").write_text("\n".join(["id,time,x,y,z", *lines]) + "\n")
    files.write_file(folder / "sound.safetensors", draw_sequences(count, features=2, seed=1), ids=ids)
    table = "\n".join(f"{ids[row]},{rng.normal():.4f},{rng.normal():.4f}" for row in rng.permutation(count))
    (folder / "person.csv").write_text(f"id,age,weight\n{table}\n")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "my_folder")


def test_a_folder_is_read_with_its_ids_in_the_order_of_the_labels(folder):
    dataset = loading.load("sequences", data_dir=folder)
    assert dataset.kinds == {"motion": "sequence", "person": "numeric", "sound": "sequence"}
    assert dataset.features["motion"] == ("x", "y", "z") and dataset.classes == ("fast", "slow")
    assert dataset.train.ids.tolist() == [f"s{row}" for row in range(60)] and dataset.test.ids[0] == "s60"
    series, sound = draw_sequences(80), draw_sequences(80, features=2, seed=1)
    assert np.allclose(dataset.test.inputs["motion"].sequence(1)[:, 1:], series[61][:, 1:], atol=1e-6)
    assert np.array_equal(dataset.test.inputs["sound"].sequence(1), sound[61])
    person = {line.split(",")[0]: line.split(",")[1:] for line in (folder / "person.csv").read_text().splitlines()}
    assert dataset.train.inputs["person"][7].tolist() == [float(cell) for cell in person["s7"]]
    part = loading.load("sequences", data_dir=folder, modalities=["sound", "person"], splits=("train",))
    assert part.modalities == ("person", "sound") and part.test is None and part.unselected == ("motion",)


def test_the_check_reports_lengths_and_every_fault_of_a_folder(folder, capsys):
    assert main(["data", "check", str(folder)]) == 0
    report = check(folder)
    row = next(row for row in report.rows if row[:2] == ("motion.csv", "train"))
    lengths = [len(steps) for steps in draw_sequences(80)[:60]]
    assert row == (
        "motion.csv",
        "train",
        "60",
        "3",
        "0.0%",
        str(min(lengths)),
        f"{np.median(lengths):g}",
        str(max(lengths)),
    )
    assert report.class_rows == (("fast", "30", "10"), ("slow", "30", "10")) and report.ok
    with (folder / "train.csv").open("a") as file:
        file.write("s61,slow\nnobody,fast\ns3,slow\n,slow\n")
    (folder / "person.csv").write_text("id,age\ns0,old\ns0,3\n")
    (folder / "sound.npz").write_bytes(b"")
    capsys.readouterr()
    assert main(["data", "check", str(folder)]) == 2
    text = capsys.readouterr().err
    for line in (
        "train.csv: row 63: id 's3' is in a row above as well", "train.csv: row 64: the id is missing",
        "test.csv: row 2: id 's61' is in train.csv as well",
        "motion.csv: has no sequence for the ids 'nobody' of train.csv",
        "person.csv: row 2: id 's0' is in a row above", "person.csv: row 1: column 'age': 'old' is not a number",
        "sound.npz and sound.safetensors are two files of one modality",
    ):  # fmt: skip
        assert line in text, text


def test_a_folder_is_trained_and_new_files_are_predicted(folder, tmp_path, capsys):
    small = ["train.epochs=15", "model.sequence.width=8", "model.sequence.feedforward=8", "validation.kind=holdout",
             "data.modalities=[motion,person]", "train.batch_size=16", "train.learning_rate=0.01"]  # fmt: skip
    runs = tmp_path / "runs"
    assert (
        main(
            ["train", "sequences", "--data-dir", str(folder), "--runs-dir", str(runs), "--tracking-uri", "none", *small]
        )
        == 0
    )
    checkpoint = next(runs.rglob("model/checkpoint.json")).parent
    (tmp_path / "new.csv").write_text("id,time,z,y,x\nn,0,0,0,3\nm,0,0,0,-1\nn,1,0,0,3\n")
    (tmp_path / "persons.csv").write_text("0.1,0.2\n0,0\n")
    capsys.readouterr()
    words = [f"motion={tmp_path / 'new.csv'}", f"person={tmp_path / 'persons.csv'}"]
    assert main(["predict", str(checkpoint), *words]) == 0
    rows = [line.split(",") for line in capsys.readouterr().out.splitlines()]
    assert rows[0][:3] == ["row", "id", "label"]
    assert [row[:3] for row in rows[1:]] == [["1", "n", "fast"], ["2", "m", "slow"]]
    (tmp_path / "persons.csv").write_text("id,weight,age\nm,0,0\nn,0.2,0.1\n")  # matched by id and by name
    assert main(["predict", str(checkpoint), *words]) == 0
    assert [line.split(",") for line in capsys.readouterr().out.splitlines()] == rows
    (tmp_path / "persons.csv").write_text("id,weight,age\nother,0,0\nn,0.2,0.1\n")
    assert main(["predict", str(checkpoint), *words]) == 2
    assert "only in motion: 'm'; only in person: 'other'" in capsys.readouterr().err
    assert main(["predict", str(checkpoint), "--csv", str(tmp_path / "new.csv")]) == 2
    assert "which cannot hold the sequences of motion; give motion=motion.csv person=person.csv instead" in (
        capsys.readouterr().err
    )
    assert main(["evaluate", str(checkpoint), "--runs-dir", str(runs)]) == 0
    assert re.search(r"test/accuracy +. +(0\.[789]|1)", capsys.readouterr().out)


@pytest.mark.parametrize(("form", "labels"), [("binary", ["1,0", "0,1"]), ("number", ["0.5,-3", "2,4"])])
def test_several_labels_or_numbers_and_groups_are_read_from_columns_of_their_own(folder, form, labels):
    for name, rows in (("train", range(60)), ("test", range(60, 80))):
        lines = [f"s{row},{labels[row % 2]},g{row // 2}" for row in rows]
        (folder / f"{name}.csv").write_text("\n".join(["id,label:left,label:right,group", *lines]) + "\n")
    layout = Layout(form=form)
    dataset = loading.load("sequences", data_dir=folder, layout=layout)
    assert dataset.classes == ("left", "right") and dataset.train.groups[3] == "g1"
    assert dataset.test.labels[1].tolist() == [float(cell) for cell in labels[1].split(",")]
    report = check(folder, layout=layout)
    assert report.ok and [row[0] for row in report.class_rows] == ["left", "right"]
    with (folder / "train.csv").open("a") as file:
        file.write("s0x,abc,1,g\n")
    assert any("'s0x'" in line for line in check(folder, layout=layout).faults)
    (folder / "test.csv").write_text("id\ns60\ns61\n")
    (folder / "train.csv").write_text("id,label:left,label:right\ns0,1,0\ns1,0,1\n")
    assert loading.load("sequences", data_dir=folder, layout=layout).test.labels is None
    (folder / "train.csv").write_text("id,label:left,label:right\ns0,1,soon\ns1,0,1\n")
    assert any("must be a number, but is 'soon'" in line for line in check(folder, layout=layout).faults)


def test_a_test_split_with_some_of_the_label_columns_is_a_fault(folder):
    layout = Layout(form="binary", label=("left", "right"))
    lines = {
        name: [f"s{row},{row % 2},{row // 2 % 2}" for row in rows]
        for name, rows in (("train", range(60)), ("test", range(60, 80)))
    }
    (folder / "train.csv").write_text("\n".join(["id,left,right", *lines["train"]]) + "\n")
    (folder / "test.csv").write_text("\n".join(["id,left", *(line[:-2] for line in lines["test"])]) + "\n")
    with pytest.raises(InputError, match=r"column 'right' \(data\.label_column\) is missing"):
        loading.load("sequences", data_dir=folder, layout=layout)


def test_a_line_that_names_the_separator_is_no_header(folder):
    (folder / "more.csv").write_text(
        "sep=;\nid;time;x\n" + "".join(f"s{row};{t};{row}\n" for row in range(80) for t in (1, 2))
    )
    dataset = loading.load("sequences", data_dir=folder)
    assert dataset.kinds["more"] == "sequence"
