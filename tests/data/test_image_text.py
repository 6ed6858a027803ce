"""Folders of plain CSV files: the data that are read, and all faults with file and row."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from m3col.data.columns import MediaColumn
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.image_text_csv import looks_like, read
from m3col.errors import InputError

from .pair_builders import (
    COUNTS,
    ENTRY,
    EVERY,
    change,
    image_file,
    png_that_claims,
    read_csv,
    write_csv,
    write_image_text,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_image_text(tmp_path / "data")


def faults_of(folder: Path, splits=EVERY, **options) -> list[str]:
    with pytest.raises(InputError) as caught:
        read(folder, ENTRY, None, splits, **options)
    assert len(set(caught.value.faults)) == len(caught.value.faults)
    return list(caught.value.faults)


def one_fault(folder: Path, **options) -> str:
    faults = faults_of(folder, **options)
    assert len(faults) == 1, faults
    return faults[0]


def test_reads_pairs_in_the_order_of_the_file(folder):
    dataset = read(folder, ENTRY, None, EVERY, images=True)
    assert {name: len(split) for name, split in dataset.splits.items()} == COUNTS
    assert dataset.classes == ("cat", "dog", "emu") and dataset.kinds == {"image": "image", "text": "text"}
    assert dataset.features == {"image": ("image",), "text": ("text",)} and dataset.dropped == {}
    assert dataset.test.ids.tolist() == ["imgs/10.png", "imgs/11.png", "imgs/12.png"]
    assert dataset.validation.labels.tolist() == [0, 1, 2]
    assert dataset.test.inputs["text"].values.tolist() == [f"text number {number}" for number in (10, 11, 12)]
    paths = dataset.test.inputs["image"].values.tolist()
    assert paths == [os.path.realpath(folder / "imgs" / f"{number}.png") for number in (10, 11, 12)]


def test_all_splits_share_one_source(folder):
    change(folder / "test.csv", 1, "image", "imgs/2.png")
    dataset = read(folder, ENTRY, None, EVERY)
    for name in ("image", "text"):
        columns = [split.inputs[name] for split in dataset.splits.values()]
        assert all(isinstance(c, MediaColumn) and c.source is columns[0].source for c in columns)
    # an image that occurs twice is one image, and its second id another one
    assert dataset.test.inputs["image"].at[0] == dataset.train.inputs["image"].at[1]
    assert len(dataset.train.inputs["image"].source) == 11 and len(dataset.train.inputs["text"].source) == 12
    assert dataset.test.ids.tolist() == ["imgs/2.png#2", "imgs/11.png", "imgs/12.png"]


def test_ids_are_unique_where_a_image_occurs_often(folder):
    for row in (2, 3):
        change(folder / "train.csv", row, "image", "imgs/./1.png")
    assert read(folder, ENTRY, None, EVERY).train.ids[:3].tolist() == ["imgs/1.png", "imgs/1.png#2", "imgs/1.png#3"]


def test_columns_are_named_and_texts_are_joined(folder):
    rows = [["path", "title", "class", "body"]]
    rows += [
        [f"imgs/{n}.png", f" title {n} ", " cat" if n % 2 else "dog ", "" if n == 3 else f"body {n}"]
        for n in range(1, 7)
    ]
    write_csv(folder / "train.csv", rows)
    layout = Layout(image="path", text=("body", "title"), label="class")
    dataset = read(folder, ENTRY, None, ("train",), layout=layout)
    assert dataset.train.inputs["text"].values[1:3].tolist() == ["body 2\ntitle 2", "title 3"]
    assert dataset.features == {"image": ("path",), "text": ("body", "title")} and dataset.classes == ("cat", "dog")


def test_files_that_are_not_asked_for_stay_closed(folder):
    (folder / "test.csv").write_bytes(b"\xff\xfe")
    dataset = read(folder, ENTRY, ["text"], ("train", "validation"))
    assert dataset.test is None and dataset.modalities == ("text",)
    (folder / "val.csv").unlink()
    assert read(folder, ENTRY, None, ("train", "validation")).validation is None


def test_an_unknown_modality_shows_with_the_other_faults(folder):
    change(folder / "train.csv", 1, "label", "")
    with pytest.raises(InputError) as caught:
        read(folder, ENTRY, ["picture"], EVERY)
    assert len(caught.value.faults) == 2 and "'picture' is unknown" in caught.value.faults[0]


def test_reads_the_emoji(shared_data):
    folder = shared_data / "emoji"
    dataset = read(folder, ENTRY, None, EVERY, layout=Layout(text=("caption",)), images=True)
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 1288,
        "validation": 276,
        "test": 276,
    }
    assert len(dataset.classes) == 9 and dataset.classes[0] == "Activities"
    assert dataset.train.ids[0] == "imgs/1f69d.png" and dataset.train.inputs["text"].values[0] == "monorail, vehicle"
    assert dataset.classes[dataset.train.labels[0]] == "Travel & Places"
    assert np.bincount(dataset.train.labels).min() == 59
    assert looks_like(folder)
    fault = one_fault(folder)
    assert fault.endswith("data.text.columns: [headline, caption, abstract, subgroup]") and "'text' is missing" in fault


def test_a_text_may_be_longer_than_the_csv_module_expects(folder):
    long = "word " * 50_000
    change(folder / "train.csv", 1, "text", long)
    assert read(folder, ENTRY, None, EVERY).train.inputs["text"].values[0] == long.strip()
    assert csv.field_size_limit() == 131_072  # of other readers in this process


def test_the_same_image_in_two_splits_is_a_warning_with_counts(folder):
    assert read(folder, ENTRY, None, EVERY, images=True).warnings == ()
    change(folder / "test.csv", 1, "text", "text number 2")
    assert read(folder, ENTRY, None, EVERY, images=True).warnings == ()  # short texts are often the same
    shutil.copy(folder / "imgs" / "5.png", folder / "imgs" / "11.png")  # another file with the same content
    change(folder / "test.csv", 3, "image", "imgs/2.png")
    (line,) = read(folder, ENTRY, None, EVERY, images=True).warnings
    assert line.startswith(f"{folder}: train and test overlap: of the 3 pairs of test, 2 have an image and 1 a text")
    assert read(folder, ENTRY, ["text"], EVERY, images=True).warnings == ()


def test_images_that_are_not_selected_are_not_validated(folder):
    (folder / "imgs" / "4.png").write_bytes(b"<html>")
    assert read(folder, ENTRY, ["text"], EVERY, images=True).modalities == ("text",)
    assert "is an HTML page" in faults_of(folder, images=True)[0]


# Bad input, one test each.


def test_a_missing_file(folder):
    (folder / "train.csv").rename(folder / "trian.csv")
    assert one_fault(folder).endswith("train.csv: the file is missing; did you mean 'trian.csv'?")
    assert looks_like(folder)  # by its other files, so that it is not taken for a folder of numeric tables
    for name in ("val.csv", "test.csv"):
        (folder / name).unlink()
    assert not looks_like(folder)
    assert one_fault(folder / "nowhere").endswith("nowhere: is not a folder")


@pytest.mark.parametrize(("column", "key"), [("image", "data.image.column"), ("label", "data.label_column")])
def test_a_missing_column(folder, column, key):
    change(folder / "test.csv", 0, column, column + "s")
    assert one_fault(folder).endswith(f"test.csv: column {column!r} ({key}) is missing; did you mean '{column}s'?")


def test_a_missing_text_column(folder):
    layout = Layout(text=("text", "titel"))
    assert [fault.split("csv: ")[1][:44] for fault in faults_of(folder, layout=layout)] == [
        "column 'titel' (data.text.columns) is missin"
    ] * 3
    change(folder / "train.csv", 0, "text", "title")
    faults = faults_of(folder)
    assert len(faults) == 1 and "say where the texts are: data.text.columns: [title]" in faults[0]
    assert "must name at least one column" in one_fault(folder, layout=Layout(text=()))


def test_the_label_is_no_text_to_learn_from(folder):
    fault = one_fault(folder, layout=Layout(text=("label",)))
    assert "'label' cannot be a text, because it is data.label_column" in fault


def test_empty_texts_and_labels(folder):
    change(folder / "train.csv", 2, "text", " \n ")
    change(folder / "test.csv", 3, "label", " ")
    text, label = faults_of(folder)
    assert text == f"{folder}/train.csv: row 2: the text is empty"
    assert label == f"{folder}/test.csv: row 3: the label is empty"


def test_a_missing_image(folder):
    (folder / "imgs" / "4.png").rename(folder / "imgs" / "4.jpg")
    change(folder / "val.csv", 1, "image", "")
    faults = faults_of(folder)
    assert faults == [
        f"{folder}/train.csv: row 4: image 'imgs/4.png': the file is missing; did you mean 'imgs/4.jpg'?",
        f"{folder}/val.csv: row 1: the path of the image is empty",
    ]


BROKEN = {
    "zero bytes": (b"", r"is empty (zero bytes)"),
    "html": (b"<!DOCTYPE html><title>404</title>", "is an HTML page"),
    "bomb": (png_that_claims(20_000, 20_000), "has more than 100 million pixels: a decompression bomb"),
    "text": (b"no image", "is not an image"),
}


@pytest.mark.parametrize("what", [*BROKEN, "truncated"])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_broken_image(folder, what):
    path = image_file(folder / "imgs" / "4.png", 4, (300, 200))
    content, reason = BROKEN.get(what) or (path.read_bytes()[:-30], "is truncated")
    path.write_bytes(content)
    fault = one_fault(folder, images=True)
    assert fault.startswith(f"{folder}/train.csv: row 4: image 'imgs/4.png' {reason}")
    read(folder, ENTRY, None, EVERY)  # without decoding, a file that is there is enough


def test_paths_that_leave_the_folder(folder):
    outside = image_file(folder.parent / "secret.png", 99)
    (folder / "imgs" / "5.png").unlink()
    (folder / "imgs" / "5.png").symlink_to(outside)
    change(folder / "train.csv", 1, "image", "../secret.png")
    change(folder / "train.csv", 2, "image", str(outside))
    faults = faults_of(folder)
    where = f"{folder}/train.csv: row"
    assert faults == [
        f"{where} 1: image '../secret.png' leaves the data folder {folder}",
        f"{where} 2: image '{outside}' is an absolute path; it must be relative to {folder}",
        f"{where} 5: image 'imgs/5.png' leaves the data folder {folder}",
    ]


@pytest.mark.parametrize("name", ["val.csv", "test.csv"])
def test_a_label_that_training_lacks(folder, name):
    change(folder / name, 2, "label", "dgo")
    assert one_fault(folder) == (f"{folder}/{name}: row 2: label 'dgo' never occurs in train.csv; did you mean 'dog'?")


def test_one_class_is_too_few(folder):
    for name in ("train", "val", "test"):
        rows = read_csv(folder / f"{name}.csv")
        write_csv(folder / f"{name}.csv", [rows[0], *([*row[:2], "cat"] for row in rows[1:])])
    assert one_fault(folder).endswith("train.csv: at least two classes are needed, but every label is 'cat'")


def test_encodings(folder):
    path = folder / "train.csv"
    text = path.read_text(encoding="utf-8")
    path.write_bytes(text.replace("number 3", "größer").encode("utf-8-sig"))
    dataset = read(folder, ENTRY, None, EVERY)  # the byte order mark of spreadsheets does no harm
    assert dataset.train.inputs["text"].values[2] == "text größer"
    path.write_bytes(text.replace("number 3", "größer").encode("latin-1"))
    assert "byte 0xf6 is not UTF-8" in one_fault(folder) and "train.csv: line " in one_fault(folder)
    path.write_bytes(text.encode("utf-16"))
    assert "train.csv: is UTF-16" in one_fault(folder)


def test_a_broken_csv(folder):
    path = folder / "train.csv"
    rows = ["image,text,label", "imgs/1.png,one,cat", 'imgs/2.png,"two,dog', "imgs/3.png,three,emu"]
    path.write_text("\n".join(rows) + "\n")
    assert "train.csv: row 2: is not CSV" in one_fault(folder) and "a quote that is not closed" in one_fault(folder)
    path.write_text("\n".join([rows[0], rows[1] + ",more", "", *rows[3:], "imgs/2.png,two,dog"]) + "\n")
    change(folder / "val.csv", 1, "label", "dog")
    change(folder / "test.csv", 1, "label", "dog")
    assert [fault.removeprefix(f"{path}: ") for fault in faults_of(folder)] == [
        "row 1: has 4 fields, but the header has 3",
        "row 2: is blank",
    ]
    whole = read(write_image_text(folder.parent / "commas"), ENTRY, None, EVERY).digests()
    shutil.rmtree(folder)
    write_image_text(folder)
    path.write_text(path.read_text(encoding="utf-8").replace(",", ";"), encoding="utf-8")
    assert read(folder, ENTRY, None, EVERY).digests() == whole


def test_duplicate_columns_and_files_without_rows(folder):
    rows = read_csv(folder / "train.csv")
    write_csv(folder / "train.csv", [[*row, row[2]] for row in rows])
    (folder / "val.csv").write_text("image,text,label\n")
    (folder / "test.csv").write_text("\n")
    assert faults_of(folder) == [
        f"{folder}/train.csv: column 'label' stands 2 times in the header",
        f"{folder}/val.csv: has no rows below its header",
        f"{folder}/test.csv: the file is empty",
    ]


def test_many_faults_come_at_once_and_each_kind_is_counted(folder):
    rows = [
        ["image", "text", "label"],
        *([f"imgs/gone{n}.png", "", "cat"] for n in range(1, 9)),
        ["../x.png", "a", "dog"],
    ]
    write_csv(folder / "train.csv", rows)
    change(folder / "val.csv", 1, "label", "")
    change(folder / "test.csv", 0, "image", "picture")
    faults = faults_of(folder)
    train = f"{folder}/train.csv"
    gone = [f"{train}: row {n}: image 'imgs/gone{n}.png': the file is missing" for n in range(1, 6)]
    empty = [f"{train}: row {n}: the text is empty" for n in range(1, 6)]
    assert faults[:12] == [
        *gone,
        f"{train}: 3 more rows: the image is missing",
        *empty,
        f"{train}: 3 more rows: the text is empty",
    ]
    rest = "\n".join(faults[12:])
    assert "row 9: image '../x.png' leaves" in rest and "val.csv: row 1: the label is empty" in rest
    assert "test.csv: column 'image' (data.image.column) is missing" in rest
    assert "val.csv: row 3: label 'emu' never occurs in train.csv" in rest and "test.csv: row 3: label 'emu'" in rest
    assert len(faults) == 17
