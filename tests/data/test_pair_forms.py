"""Variants of CSV files of pairs: read to the same data, or refused with the cause."""

import csv
import gzip
import os
from pathlib import Path

import pytest

from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.image_text_csv import read

from .pair_builders import ENTRY, EVERY, change, image_file, read_csv, write_csv, write_image_text
from .test_image_text import faults_of, one_fault


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_image_text(tmp_path / "data")


MARKS = ["NA", "nan", "NaN", "null", "None", "NULL", "#N/A", "N/A", " NA "]


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize(
    ("column", "words"),
    [("label", "the label is"), ("text", "the text is"), ("image", "the path of the image is")],
)
def test_what_stands_for_a_missing_value_is_no_value(folder, column, words, mark):
    for name, row in (("train.csv", 2), ("test.csv", 1)):
        change(folder / name, row, column, mark)
    shown = repr(mark.strip())
    assert faults_of(folder) == [
        f"{folder}/{name}: row {row}: {words} {shown}, which stands for a missing one; leave the pair out"
        for name, row in (("train.csv", 2), ("test.csv", 1))
    ]


def test_of_several_texts_those_that_are_missing_are_left_out(folder):
    rows = read_csv(folder / "train.csv")
    write_csv(
        folder / "train.csv", [[*row, "more" if at == 0 else "NA" if at == 1 else "b"] for at, row in enumerate(rows)]
    )
    dataset = read(folder, ENTRY, None, ("train",), layout=Layout(text=("text", "more")))
    assert dataset.train.inputs["text"].values[:2].tolist() == ["text number 1", "text number 2\nb"]


@pytest.mark.parametrize(
    "form",
    ["semicolons", "tabs", "sep= line", "index of pandas", "gzip", "tsv", "backslashes", "blanks around names"],
)
def test_forms_of_a_file_that_are_read(folder, form):
    whole = read(folder, ENTRY, None, EVERY)
    path = folder / "train.csv"
    rows = read_csv(path)
    if form in ("semicolons", "tabs", "sep= line", "tsv"):
        mark = {"semicolons": ";", "sep= line": ";"}.get(form, "\t")
        target = path.with_suffix(".tsv") if form == "tsv" else path
        with target.open("w", newline="", encoding="utf-8") as file:
            file.write(f"sep={mark}\n" if form == "sep= line" else "")
            csv.writer(file, delimiter=mark).writerows(rows)
        if form == "tsv":
            path.unlink()
    elif form == "index of pandas":
        write_csv(path, [["" if at == 0 else str(at - 1), *row] for at, row in enumerate(rows)])
    elif form == "gzip":
        (folder / "train.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    elif form == "backslashes":
        write_csv(path, [rows[0], *([row[0].replace("/", "\\"), *row[1:]] for row in rows[1:])])
    else:
        write_csv(path, [[f" {name} " for name in rows[0]], *rows[1:]])
    dataset = read(folder, ENTRY, None, EVERY)
    assert dataset.digests() == whole.digests() and dataset.train.ids.tolist() == whole.train.ids.tolist()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("imgs\\99.png", "the file is missing"),
        ("IMGS/4.png", "the file is missing"),
        ("imgs/4.PNG", "did you mean 'imgs/4.png'?"),
        ("C:\\data\\imgs\\4.png", "is the path of a Windows drive; it must be relative to"),
        ("https://example.org/4.png", "is an address, not a file; download it"),
        ("imgs\\..\\..\\secret.png", "the file is missing"),
    ],
)
def test_the_true_reason_why_a_image_is_not_found(folder, value, words):
    change(folder / "train.csv", 4, "image", value)
    assert words in one_fault(folder)


def test_a_backslash_may_be_part_of_a_name(folder):
    image_file(folder / "a\\b.png", 50)
    change(folder / "train.csv", 1, "image", "a\\b.png")
    dataset = read(folder, ENTRY, None, EVERY, images=True)
    assert dataset.train.inputs["image"].values[0] == os.path.realpath(folder / "a\\b.png")


def test_backslashes_do_not_lead_out_of_the_folder(folder):
    image_file(folder.parent / "secret.png", 99)
    change(folder / "train.csv", 1, "image", "imgs\\..\\..\\secret.png")
    assert "leaves the data folder" in one_fault(folder)


def test_a_row_that_ends_with_a_separator(folder):
    rows = (folder / "train.csv").read_text(encoding="utf-8")
    header, _, rest = rows.partition("\n")
    (folder / "train.csv").write_text(header + "\n" + rest.replace(",cat\n", ",cat,\n"), encoding="utf-8")
    faults = faults_of(folder, splits=("train",))
    assert any("has 4 fields, but the header has 3; it ends with ',': delete that last separator" in f for f in faults)


def test_labels_with_blanks_around_them_are_told(folder):
    change(folder / "train.csv", 1, "label", " cat ")
    dataset = read(folder, ENTRY, None, EVERY)
    assert dataset.classes == ("cat", "dog", "emu")
    assert dataset.warnings == (
        f"{folder}/train.csv: label ' cat ', with blanks around it, stands in 1 rows and is read as 'cat'",
    )


def test_two_files_of_one_split_are_a_fault(folder):
    (folder / "val.tsv").write_text("image\ttext\tlabel\n")
    assert "val.csv and val.tsv hold the same table; keep one of them" in "\n".join(faults_of(folder))
