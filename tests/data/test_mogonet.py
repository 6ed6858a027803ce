"""The MOGONET folder layout: published data sets, which files are opened, and all faults."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from m3col.data import loading, preprocessing
from m3col.data.checks import dataset_values
from m3col.errors import InputError

from .builders import TEST, TRAIN, edit, write_folder


def faults_of(folder: Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        loading.load("omics", data_dir=folder, **options)
    assert len(set(caught.value.faults)) == len(caught.value.faults)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "shapes", "train", "test", "classes"),
    [
        ("rosmap", {"mRNA": 200, "methylation": 200, "miRNA": 200}, 245, 106, ("control", "AD")),
        ("tcga_breast", {"mRNA": 200, "miRNA": 184}, 150, 70, ("Basal", "Her2", "LumA")),
        (
            "handwritten",
            {
                "pixels": 240,
                "fourier": 76,
                "profiles": 216,
                "zernike": 47,
                "karhunen_loeve": 64,
                "morphology": 6,
            },
            1600,
            400,
            tuple("0123456789"),
        ),
    ],
)
def test_reads_the_published_sets(shared_data, name, shapes, train, test, classes):
    dataset = loading.load(name, data_dir=shared_data)
    assert {m: x.shape[1] for m, x in dataset.train.inputs.items()} == shapes
    assert {m: len(f) for m, f in dataset.features.items()} == shapes
    assert (len(dataset.train), len(dataset.test), dataset.classes) == (train, test, classes)
    assert dataset.known_issues and dataset.validation is None
    assert dataset_values.faults(dataset, ["minmax"]) == []
    own = loading.load(name, data_dir=shared_data / name)
    assert own.digests() == dataset.digests()


def test_rosmap_holds_the_values_and_names_of_its_files(shared_data):
    dataset = loading.load("rosmap", data_dir=shared_data)
    for k, name in enumerate(dataset.modalities, start=1):
        plain = np.loadtxt(shared_data / "rosmap" / f"{k}_te.csv", delimiter=",")
        np.testing.assert_array_equal(dataset.test.inputs[name], plain)
    assert dataset.features["mRNA"][0] == "ENSG00000161896.6"
    assert np.bincount(dataset.train.labels).tolist() == [118, 127]


def test_a_modality_without_a_test_file_can_be_used_without_test(shared_data):
    with pytest.raises(InputError, match=r"modality 'protein' has no test file.*\[mRNA\]"):
        loading.load("tcga_breast", data_dir=shared_data, modalities=["mRNA", "protein"])
    dataset = loading.load("tcga_breast", data_dir=shared_data, modalities=["protein"], splits=("train",))
    assert dataset.train.inputs["protein"].shape == (150, 142) and dataset.test is None


def test_without_the_test_split_no_test_file_is_opened(tmp_path, monkeypatch):
    write_folder(tmp_path)
    whole = loading.load("omics", data_dir=tmp_path)
    opened = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (opened.append(path.name), original(path))[1])
    dataset = loading.load("omics", data_dir=tmp_path, splits=("train",), modalities=["modality_2"])
    assert opened == ["2_tr.csv", "labels_tr.csv"]
    assert dataset.test is None
    assert dataset.digests()["train"] == whole.select([2]).digests()["train"]


def test_reads_a_folder_of_ones_own(tmp_path):
    write_folder(tmp_path, modalities=3, classes=3)
    (tmp_path / "2_featname.csv").write_text("a\nb\nc\nd\ne\n")
    (tmp_path / "classes.csv").write_text("index,name\n0,low\n1,mid\n2,high\n")
    edit(tmp_path / "1_tr.csv", row=2, column=3, to="")
    dataset = loading.load("omics", data_dir=tmp_path)
    assert dataset.modalities == ("modality_1", "modality_2", "modality_3")
    assert dataset.classes == ("low", "mid", "high")
    assert dataset.features["modality_2"] == tuple("abcde")
    assert dataset.features["modality_1"] == tuple(f"modality_1_{k}" for k in range(4))
    assert (len(dataset.train), len(dataset.test)) == (TRAIN, TEST)
    assert np.isnan(dataset.train.inputs["modality_1"][1, 2])
    assert np.isnan(dataset.train.inputs["modality_1"]).sum() == 1


def test_reads_a_validation_split_and_a_folder_without_test(tmp_path):
    write_folder(tmp_path)
    for path in list(tmp_path.glob("*_te.csv")):
        path.rename(path.with_name(path.name.replace("_te", "_va")))
    dataset = loading.load("omics", data_dir=tmp_path)
    assert dataset.test is None and len(dataset.validation) == TEST


def test_line_ends_byte_order_marks_and_blank_last_lines_do_no_harm(tmp_path):
    write_folder(tmp_path)
    before = loading.load("omics", data_dir=tmp_path).digests()
    path = tmp_path / "1_tr.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n \r\n")
    assert loading.load("omics", data_dir=tmp_path).digests() == before


def test_all_faults_in_one_message(tmp_path):
    write_folder(tmp_path, modalities=7)
    edit(tmp_path / "1_tr.csv", row=3, column=2, to="abc")
    edit(tmp_path / "1_te.csv", row=2, column=4, to=None)
    edit(tmp_path / "2_tr.csv", row=5, to=None)
    edit(tmp_path / "2_te.csv", row=1, to="")
    (tmp_path / "3_tr.csv").write_bytes(b"")
    (tmp_path / "4_tr.csv").write_bytes("1,2\n3,\xe9\n".encode("latin-1"))
    (tmp_path / "5_tr.csv").unlink()
    (tmp_path / "6_tr.csv").unlink()
    (tmp_path / "6_tr.csv").mkdir()
    (tmp_path / "7_featname.csv").write_text("only\n")
    edit(tmp_path / "labels_tr.csv", row=4, to="1.5")
    edit(tmp_path / "labels_te.csv", row=6, to="-1")
    (tmp_path / "classes.csv").write_text("index,name\n0,a\n2,b\n")
    text = faults_of(tmp_path)
    for part in (
        "1_tr.csv: row 3, column 2: 'abc' is not a number",
        "1_te.csv: row 2: has 3 fields, but most rows have 4",
        "2_tr.csv 11",
        "2_te.csv: row 1: is blank",
        "3_tr.csv: the file is empty",
        "4_tr.csv: row 2: byte 0xe9 is not UTF-8",
        "5_tr.csv: the file is missing",
        "6_tr.csv: cannot be read (Is a directory)",
        "7_featname.csv: has 1 names, but 7_tr.csv has 10 columns",
        "labels_tr.csv: row 4: a label must be one of the integers 0..C-1, but is 1.5; nearest 2",
        "labels_te.csv: row 6: a label must be one of the integers 0..C-1, but is -1; nearest 0",
        "classes.csv: row 3: must be `1,<name>`",
    ):
        assert part in text, part
    assert len(text.splitlines()) == 12


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0] * TRAIN, "every training label is 0"),
        ([1, 2] * 6, "subtract 1 from every label"),
        ([0, 3] * 6, "of 0..3 1, 2 never occurs"),
        ([0, np.nan] * 6, "row 2: the label is missing ('nan')"),
        ([0, np.inf] * 6, "is inf"),
    ],
)
def test_refuses_training_labels(tmp_path, labels, expected):
    write_folder(tmp_path, test=False)
    np.savetxt(tmp_path / "labels_tr.csv", np.array(labels, dtype=float))
    assert expected in faults_of(tmp_path)


def test_refuses_test_labels_unseen_in_training(tmp_path):
    write_folder(tmp_path)
    edit(tmp_path / "labels_te.csv", row=3, to="2")
    assert "labels_te.csv: row 3: label 2 never occurs in training (labels 0, 1)" in faults_of(tmp_path)


def test_refuses_test_files_with_other_columns(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "1_te.csv").write_text("1,2\n" * TEST)
    assert "1_te.csv: has 2 columns, but 1_tr.csv has 4" in faults_of(tmp_path)


def test_refuses_labels_in_several_columns_and_labels_that_are_missing(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "labels_tr.csv").write_text("0,1\n" * TRAIN)
    (tmp_path / "labels_te.csv").unlink()
    text = faults_of(tmp_path)
    assert "labels_tr.csv: must hold one label per line, but has 2 columns" in text
    assert "labels_te.csv: the file is missing" in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("g1,g2\n1,2\n3,4\n5,6\n", "row 1: holds text, such as 'g1'; if it is a header line, delete it"),
        ("p1,1\np2,2\np3,3\n", "column 1: holds text in every row, such as 'p2'; if these are names of samples"),
        ("1,1_000\n2,3\n", "row 1, column 2: '1_000' is not a number"),
        ("1,True\n2,3\n", "row 1, column 2: 'True' is not a number"),
        ('1,"2\n3,4"\n5,6\n', "row 1: is not CSV"),
        ("1,a\n" + "2,3\n" * 3 + "x,y\n" * 4, "4 more places hold text"),
        ("1,2\x00\n", "row 1: holds a zero byte"),
    ],
)
def test_says_what_kind_of_text_it_found(tmp_path, content, expected):
    write_folder(tmp_path, test=False)
    (tmp_path / "1_tr.csv").write_text(content)
    assert expected in faults_of(tmp_path)


def test_every_spelling_of_missing_and_infinity_is_read(tmp_path):
    write_folder(tmp_path, test=False)
    (tmp_path / "1_tr.csv").write_text("NA,1\nnan,2\n,3\n<NA>,inf\n" + "1e-3, 4\n" * (TRAIN - 4))
    x = loading.load("omics", data_dir=tmp_path).train.inputs["modality_1"]
    assert np.isnan(x[:4, 0]).all() and np.isinf(x[3, 1]) and x[-1].tolist() == [0.001, 4.0]


def test_refuses_gaps_a_single_modality_and_an_empty_folder(tmp_path):
    gap, single, empty = (tmp_path / name for name in ("gap", "single", "empty"))
    write_folder(gap, modalities=3)
    (gap / "2_tr.csv").unlink()
    (gap / "2_te.csv").unlink()
    assert "2_tr.csv is missing" in faults_of(gap)
    assert "at least two modalities" in faults_of(write_folder(single, modalities=1))
    empty.mkdir()
    assert "holds no 1_tr.csv" in faults_of(empty)
    assert "is not a folder" in faults_of(tmp_path / "nowhere")


def test_a_misspelt_file_name_is_pointed_out(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "labels_tr.csv").rename(tmp_path / "label_tr.csv")
    assert "labels_tr.csv: the file is missing; did you mean 'label_tr.csv'?" in faults_of(tmp_path)


def test_unknown_modalities_and_faults_in_files_come_together(tmp_path):
    write_folder(tmp_path)
    edit(tmp_path / "1_tr.csv", row=1, column=1, to="x")
    text = faults_of(tmp_path, modalities=[1, "modality_3"])
    assert "'modality_3' is unknown; did you mean" in text and "'x' is not a number" in text


def test_unknown_names_and_splits(tmp_path):
    with pytest.raises(InputError, match="'rosmpa' is unknown; did you mean 'rosmap'"):
        loading.load("rosmpa")
    with pytest.raises(InputError, match="must contain 'train'"):
        loading.load("digits", splits=("test",))
    with pytest.raises(InputError, match="did you mean 'test'"):
        loading.load("digits", splits=("train", "tests"))


def test_looks_in_every_place_in_order(tmp_path, monkeypatch):
    here, variable, given = tmp_path / "work" / "here", tmp_path / "variable", tmp_path / "given"
    for folder in (here, variable, given):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("M3COL_DATA", str(variable))
    with pytest.raises(InputError) as caught:
        loading.locate("brca", data_dir=given)
    for part in ("given", "variable", "here/data", "shared/data", "m3col data fetch brca"):
        assert part in str(caught.value)
    with pytest.raises(InputError, match="--data-dir"):
        loading.locate("omics")
    for place in (tmp_path / "work" / "shared" / "data", here / "data", variable, given):
        write_folder(place / "brca", modalities=3)
        located = loading.locate("brca", data_dir=given)
        assert located.resolve() == (place / "brca").resolve()
    assert loading.locate("omics", data_dir=given) == given
    assert loading.locate("rosmap", data_dir=write_folder(tmp_path / "mine", modalities=3)) == tmp_path / "mine"
    with pytest.raises(InputError, match="was not found"):
        loading.locate("rosmap", data_dir=given / "brca")


def test_digits_are_fixed_and_leave_room_for_settings_to_differ():
    dataset = loading.load("digits")
    assert {m: x.shape for m, x in dataset.train.inputs.items()} == {
        "pixels": (200, 64),
        "fourier": (200, 40),
        "gradients": (200, 32),
    }
    assert len(dataset.test) == 1597 and not set(dataset.train.ids) & set(dataset.test.ids)
    assert set(np.bincount(dataset.train.labels).tolist()) <= {19, 20, 21}
    assert dataset.digests()["train"].startswith("ff6536303e82")
    x, labels = dataset.train.inputs["pixels"], dataset.train.labels
    fitted = preprocessing.Pipeline.fit(x, labels, ["minmax"], feature_names=dataset.features["pixels"])
    model = LogisticRegression(max_iter=1000).fit(fitted.transform(x), labels)
    accuracy = model.score(fitted.transform(dataset.test.inputs["pixels"]), dataset.test.labels)
    assert accuracy == pytest.approx(0.922, abs=0.003)


def test_digits_can_leave_the_test_split_out_and_take_a_subset():
    dataset = loading.load("digits", splits=("train",), modalities=["gradients"])
    assert dataset.test is None and dataset.modalities == ("gradients",) and dataset.known_issues
    assert dataset.digests()["train"] == loading.load("digits").select([3]).digests()["train"]


def test_fourier_and_gradients_of_an_image_with_a_known_answer():
    from m3col.data.formats import digits

    ramp = np.tile(np.arange(8.0), (1, 8, 1))  # grows to the right by 1: direction 0, length 1, 16 pixels a quarter
    histograms = digits._gradients(ramp)[0].reshape(4, 8)
    np.testing.assert_allclose(histograms[:, 0], 16)
    assert histograms[:, 1:].sum() == 0
    assert digits._fourier(np.ones((1, 8, 8)))[0].tolist() == [64] + [0] * 39


def test_a_copy_of_a_published_set_reads_the_same(shared_data, tmp_path):
    shutil.copytree(shared_data / "rosmap", tmp_path / "copy")
    assert loading.load("omics", data_dir=tmp_path / "copy").train.inputs["modality_1"].shape == (245, 200)
