"""`check` of images and texts: sizes, lengths, labels, unreadable files, and overlaps of splits."""

import shutil
from dataclasses import replace

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from m3col.data.catalog import TABLE
from m3col.data.checks.check_folder import check
from m3col.data.checks.image_text import check_pairs, layout_of
from m3col.data.formats.csv_columns import Layout

from .builders import write_folder
from .pair_builders import ENTRY, change, image_file, write_food101, write_image_text, write_n24news


def words() -> Tokenizer:
    """A tokenizer with one token per word, with truncation and padding enabled."""
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=7)
    return tokenizer


def test_reports_sizes_words_and_labels(tmp_path):
    folder = write_image_text(tmp_path / "data")
    image_file(folder / "imgs" / "1.png", 1, (30, 20))
    image_file(folder / "imgs" / "2.png", 2, (5, 8))
    change(folder / "train.csv", 3, "text", "five words are in here")
    report = check(folder)
    assert report.ok and report.warnings == ()
    assert report.columns == (
        "file", "split", "pairs", "unreadable", "no text", "smallest", "median size", "largest", "median words",
        "longest (words)",
    )  # fmt: skip
    assert report.rows == (
        ("train.csv", "train", "6", "0", "0", "5 x 8", "12 x 9", "30 x 20", "3", "5"),
        ("val.csv", "validation", "3", "0", "0", "12 x 9", "12 x 9", "12 x 9", "3", "3"),
        ("test.csv", "test", "3", "0", "0", "12 x 9", "12 x 9", "12 x 9", "3", "3"),
    )
    assert report.class_columns == ("class", "train", "validation", "test")
    assert report.class_rows == (("cat", "2", "1", "1"), ("dog", "2", "1", "1"), ("emu", "2", "1", "1"))


def test_reports_tokens_and_the_share_that_is_cut_off(tmp_path):
    folder = write_image_text(tmp_path / "data")
    change(folder / "train.csv", 3, "text", "five words are in here")
    tokenizer = words()
    report = check_pairs(folder, name="image_text", layout=Layout(), tokenizer=tokenizer, max_length=3)
    assert report.columns[-3:] == ("median tokens", "longest (tokens)", "cut off at 3")
    assert [row[-3:] for row in report.rows] == [("3", "5", "16.7 %"), ("3", "3", "0.0 %"), ("3", "3", "0.0 %")]
    assert len(tokenizer.encode("five words are in here").ids) == 7 and tokenizer.truncation["max_length"] == 2


def test_finds_what_stands_in_two_splits(tmp_path):
    folder = write_image_text(tmp_path / "data")
    shutil.copy(folder / "imgs" / "5.png", folder / "imgs" / "11.png")  # another file with the same content
    change(folder / "test.csv", 3, "image", "imgs/2.png")
    for row in (1, 2):
        change(folder / "test.csv", row, "text", "text number 4")
    change(folder / "val.csv", 3, "text", "text number 6")
    report = check(folder)
    assert report.ok and report.warnings == (
        "train and validation overlap: of the 3 pairs of validation, 0 have an image and 1 a text that train has too "
        "(text of train row 6 'imgs/6.png' = validation row 3 'imgs/9.png')",
        "train and test overlap: of the 3 pairs of test, 2 have an image and 2 a text that train has too "
        "(image of train row 5 'imgs/5.png' = test row 2 'imgs/11.png')",
    )


def test_faults_do_not_hide_what_could_be_read(tmp_path):
    folder = write_image_text(tmp_path / "data")
    (folder / "imgs" / "2.png").write_bytes(b"<html>")
    (folder / "imgs" / "3.png").unlink()
    (folder / "imgs" / "8.png").write_bytes(b"")
    change(folder / "val.csv", 3, "text", "")
    change(folder / "test.csv", 1, "label", "")
    report = check(folder)
    assert not report.ok and set(report.faults) == {
        f"{folder}/train.csv: row 2: image 'imgs/2.png' is an HTML page",
        f"{folder}/train.csv: row 3: image 'imgs/3.png': the file is missing",
        f"{folder}/val.csv: row 2: image 'imgs/8.png' is empty (zero bytes)",
        f"{folder}/val.csv: row 3: the text is empty",
        f"{folder}/test.csv: row 1: the label is empty",
    }
    assert [row[2:5] for row in report.rows] == [("6", "2", "0"), ("3", "1", "1"), ("3", "0", "0")]
    assert report.class_rows[0] == ("cat", "2", "1", "0")


def test_empty_files_that_are_alike_are_no_overlap(tmp_path):
    folder = write_image_text(tmp_path / "data")
    for split, name in (("train", "1"), ("val", "7")):
        (folder / "imgs" / f"{name}.png").write_bytes(b"")
        change(folder / f"{split}.csv", 1, "text", "")
    report = check(folder)
    assert report.warnings == () and len(report.faults) == 4


def test_pairs_that_are_left_out_are_a_warning(tmp_path):
    folder = write_food101(tmp_path / "food")
    (folder / "images" / "train" / "cat" / "cat_train_0.jpg").unlink()
    (folder / "texts_txt" / "emu" / "emu_test_0.txt").unlink()
    report = check(folder)
    assert report.ok
    assert report.warnings[:2] == ("1 pairs are left out, train: no image", "1 pairs are left out, test: no text")
    assert len(report.warnings) == 3 and "test.csv: 1 of 6 pairs (17 %) are left out" in report.warnings[2]
    assert [row[:3] for row in report.rows] == [
        ("train.csv", "train", "24"),
        ("train.csv", "validation", "5"),
        ("test.csv", "test", "5"),
    ]


def test_a_folder_of_which_nothing_can_be_read(tmp_path):
    (tmp_path / "train.csv").write_text("")
    report = check(tmp_path)
    assert not report.ok and report.rows == report.class_rows == ()
    (tmp_path / "train.csv").write_text("image,text,label\nimgs/1.png,,\n")
    report = check(tmp_path)
    assert report.rows == (("train.csv", "train", "1", "1", "1", "-", "-", "-", "-", "-"),)


def test_a_named_set_has_its_own_text_columns(tmp_path, monkeypatch):
    folder = write_image_text(tmp_path / "pairs")
    change(folder / "train.csv", 0, "text", "words")
    for name in ("val", "test"):
        change(folder / f"{name}.csv", 0, "text", "words")
    assert "column 'text' is missing" in check(folder).faults[0]
    monkeypatch.setitem(TABLE, "pairs", replace(ENTRY, text=("words",)))
    assert check(folder).ok and check(folder, layout=Layout()).ok
    assert "'title'" in check(folder, layout=Layout(text=("title",))).faults[0]


def test_finds_out_which_layout_a_folder_has(tmp_path):
    assert layout_of(write_image_text(tmp_path / "a")) == "image_text"
    assert layout_of(write_n24news(tmp_path / "b")) == "n24news"
    assert layout_of(write_food101(tmp_path / "c")) == "food101"
    assert layout_of(write_folder(tmp_path / "d")) is None
    (tmp_path / "a" / "train.csv").rename(tmp_path / "a" / "Train.csv")
    assert layout_of(tmp_path / "a") == "image_text"
    assert check(tmp_path / "a").faults == (f"{tmp_path}/a/train.csv: the file is missing; did you mean 'Train.csv'?",)
    assert layout_of(tmp_path) is None and layout_of(tmp_path / "nowhere") is None
    (tmp_path / "d" / "train.csv").write_text("image,text,label\n")
    assert layout_of(tmp_path / "d") is None  # numbers stay numbers beside another table


@pytest.mark.parametrize(
    ("name", "columns", "pairs"),
    [
        ("emoji", ("caption",), ["1288", "276", "276"]),
        ("emoji_n24news_layout", None, ["50", "15", "15"]),
        ("emoji_food101_layout", None, ["36", "9", "15"]),
    ],
)
def test_reports_the_real_samples(shared_data, name, columns, pairs):
    report = check(shared_data / name, layout=Layout(text=columns))
    assert report.ok and [row[2] for row in report.rows] == pairs
    assert {row[5] for row in report.rows} == {"72 x 72"}
    assert sum(int(row[1]) for row in report.class_rows) == int(pairs[0])
