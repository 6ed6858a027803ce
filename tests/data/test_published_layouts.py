"""The published layouts of N24News and Food-101: data that are read, pairs that are left out, and all faults."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from m3col.data.formats import n24news
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.food101 import draw_validation, looks_like_food101, read_food101
from m3col.data.formats.image_text_csv import looks_like
from m3col.data.formats.n24news import looks_like_n24news, read_n24news
from m3col.errors import InputError

from .pair_builders import (
    COUNTS,
    ENTRY,
    EVERY,
    change,
    image_file,
    news_file,
    read_csv,
    read_json,
    write_csv,
    write_food101,
    write_json,
    write_n24news,
)


@pytest.fixture
def news(tmp_path: Path) -> Path:
    return write_n24news(tmp_path / "news set")


@pytest.fixture
def food(tmp_path: Path) -> Path:
    return write_food101(tmp_path / "food")


def faults_of(read, folder: Path, **options) -> list[str]:
    with pytest.raises(InputError) as caught:
        read(folder, ENTRY, None, EVERY, **options)
    assert len(set(caught.value.faults)) == len(caught.value.faults)
    return list(caught.value.faults)


def alter(folder: Path, name: str, row: int, **fields: object) -> None:
    """Replace fields of one record; `...` deletes a field."""
    records = read_json(folder, name)
    changed = records[row - 1] | fields
    records[row - 1] = {key: value for key, value in changed.items() if value is not ...}
    write_json(folder, name, records)


# N24News


def test_reads_news(news):
    dataset = read_n24news(news, ENTRY, None, EVERY, images=True)
    assert {name: len(split) for name, split in dataset.splits.items()} == COUNTS
    assert dataset.classes == ("Art & Design", "Food", "Sports") and dataset.train.labels[:3].tolist() == [2, 0, 1]
    assert dataset.features == {"image": ("image",), "text": ("caption",)}
    assert dataset.test.ids[0] == "imgs/n10.jpg" and dataset.test.inputs["text"].values[0] == "caption 10"
    assert dataset.test.inputs["image"].values[0] == os.path.realpath(news / "imgs" / "n10.jpg")
    news_file(news, "test").write_text("[")
    assert read_n24news(news, ENTRY, None, ("train", "validation")).test is None


@pytest.mark.parametrize(
    ("fields", "text"),
    [(("headline",), "headline 1"), (("body",), "article 1"), (("abstract", "article"), "abstract 1\narticle 1")],
)
def test_the_text_of_news_is_chosen(news, fields, text):
    dataset = read_n24news(news, ENTRY, None, EVERY, layout=Layout(text=fields))
    assert dataset.train.inputs["text"].values[0] == text and dataset.features["text"] == fields


def test_reads_the_sample_of_n24news(shared_data):
    folder = shared_data / "emoji_n24news_layout"
    dataset = read_n24news(folder, ENTRY, None, EVERY, layout=Layout(text=("headline",)), images=True)
    assert [len(split) for split in dataset.splits.values()] == [50, 15, 15]
    assert dataset.classes == ("Food", "Science", "Sports", "Technology", "Travel")
    assert dataset.train.ids[0] == "imgs/1f9c0.jpg" and dataset.train.inputs["text"].values[0] == "cheese wedge"
    assert looks_like_n24news(folder) and not looks_like_food101(folder) and not looks_like(folder)


def test_there_are_24_sections():
    assert len(set(n24news.SECTIONS)) == 24


def test_an_unknown_section(news):
    alter(news, "dev", 2, section="Sprots")
    assert faults_of(read_n24news, news) == [
        f"{news_file(news, 'dev')}: row 2: section 'Sprots' is unknown; did you mean 'Sports'?"
    ]


def test_a_section_that_training_lacks(news):
    alter(news, "test", 3, section="Dance")
    assert faults_of(read_n24news, news) == [
        f"{news_file(news, 'test')}: row 3: label 'Dance' never occurs in nytimes_train.json"
    ]


def test_an_unknown_text_field(news):
    faults = faults_of(read_n24news, news, layout=Layout(text=("captoin", "headline")))
    assert faults == [f"{news}: data.text.columns: 'captoin' is unknown; did you mean 'caption'?"]
    faults = faults_of(read_n24news, news, layout=Layout(text=()))
    assert faults == [f"{news}: data.text.columns must name at least one field, but the list is empty"]


def test_fields_that_are_missing_empty_or_no_text(news):
    alter(news, "train", 1, caption=..., captions="x")
    alter(news, "train", 2, caption=None)
    alter(news, "train", 3, caption=7)
    alter(news, "train", 4, section=" ")
    alter(news, "train", 5, caption="half \ud800")
    alter(news, "train", 6, image_id="")
    write_json(news, "dev", [*read_json(news, "dev"), "no object"])
    path = news_file(news, "train")
    assert faults_of(read_n24news, news) == [
        f"{path}: row 1: field 'caption' is missing; did you mean 'captions'?",
        f"{path}: row 2: the text is empty",
        f"{path}: row 3: field 'caption' must be a text, but is a number",
        f"{path}: row 4: the label is empty",
        f"{path}: row 5: the text holds half a surrogate pair",
        f"{path}: row 6: the path of the image is empty",
        f"{news_file(news, 'dev')}: row 4: must be an object, but is a text",
    ]


def test_a_number_of_5000_digits_is_no_text(news):
    alter(news, "train", 2, image_id=7)
    path = news_file(news, "train")
    path.write_text(path.read_text().replace('"image_id": 7', f'"image_id": {"7" * 5000}, "pages": {"1" * 5000}'))
    assert faults_of(read_n24news, news) == [f"{path}: row 2: field 'image_id' must be a text, but is a number"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('[\n{"image_id": "a",}]', "line 2, column 1"),
        ('{"train": []}', "must be a list of objects, but is an object"),
        ("[]", "has no rows: the list is empty"),
        ("[" * 100_000, "is not JSON of this layout"),
        ("\ufeff[1]", "row 1: must be an object, but is a number"),
        ('["\u00e9"]'.encode("latin-1"), "line 1: byte 0xe9 is not UTF-8"),
        ("", "the file is empty"),
    ],
    ids=["comma", "object", "empty list", "deep", "byte order mark", "latin-1", "empty"],
)
def test_a_broken_json(news, content, fault):
    news_file(news, "train").write_bytes(content if isinstance(content, bytes) else content.encode())
    faults = faults_of(read_n24news, news)
    assert len(faults) == 1 and faults[0].startswith(f"{news_file(news, 'train')}: {fault}")


def test_a_missing_json(news):
    news_file(news, "test").unlink()
    assert faults_of(read_n24news, news) == [f"{news_file(news, 'test')}: the file is missing"]
    assert faults_of(read_n24news, news / "nowhere") == [f"{news / 'nowhere'}: is not a folder"]


def test_images_of_news_are_validated(news):
    image_file(news.parent / "secret.jpg", 9)
    alter(news, "train", 1, image_id="../../secret")
    alter(news, "train", 2, image_id=str(news.parent / "secret"))
    (news / "imgs" / "n3.jpg").unlink()
    (news / "imgs" / "n4.jpg").write_bytes(b"<html>")
    path = news_file(news, "train")
    assert [fault.removeprefix(f"{path}: ") for fault in faults_of(read_n24news, news, images=True)] == [
        f"row 1: image 'imgs/../../secret.jpg' leaves the data folder {news}",
        f"row 2: image '{news.parent}/secret.jpg' is an absolute path; it must be relative to {news}",
        "row 3: image 'imgs/n3.jpg': the file is missing",
        "row 4: image 'imgs/n4.jpg' is an HTML page",
    ]


# Food-101


def test_reads_food(food):
    dataset = read_food101(food, ENTRY, None, EVERY, images=True)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 24, "validation": 6, "test": 6}
    assert np.bincount(dataset.validation.labels).tolist() == [2, 2, 2] and dataset.classes == ("cat", "dog", "emu")
    assert dataset.features == {"image": ("image",), "text": ("text",)} and dataset.dropped == {}
    assert dataset.test.ids[0] == "images/test/cat/cat_test_0.jpg"
    assert dataset.test.inputs["text"].values[0] == "file 31"  # of the file, not of the list
    assert dataset.test.inputs["image"].values[0] == os.path.realpath(food / dataset.test.ids[0])
    assert not set(dataset.train.ids) & set(dataset.validation.ids)


def test_reads_the_sample_of_food101(shared_data):
    folder = shared_data / "emoji_food101_layout"
    dataset = read_food101(folder, ENTRY, None, EVERY, images=True)
    assert [len(split) for split in dataset.splits.values()] == [36, 9, 15] and dataset.dropped == {}
    assert dataset.classes == ("animals_and_nature", "food_and_drink", "travel_and_places")
    assert np.bincount(dataset.validation.labels).tolist() == [3, 3, 3]
    assert looks_like_food101(folder) and not looks_like(folder) and not looks_like_n24news(folder)


def test_the_validation_split_does_not_depend_on_the_order_of_rows_or_on_what_is_read(food):
    first = read_food101(food, ENTRY, None, EVERY)
    rows = read_csv(food / "train.csv")
    write_csv(food / "train.csv", [rows[0], *reversed(rows[1:])])
    second = read_food101(food, ENTRY, None, EVERY)
    assert first.digests() == second.digests()
    (food / "test.csv").unlink()
    alone = read_food101(food, ENTRY, None, ("train",))
    assert alone.train.ids.tolist() == first.train.ids.tolist() and alone.validation is None


def test_pairs_without_a_image_or_text_are_left_out_and_counted(food):
    (food / "images" / "train" / "cat" / "cat_train_0.jpg").unlink()
    (food / "texts_txt" / "cat" / "cat_train_0.txt").unlink()  # lacks both: counted once
    (food / "images" / "train" / "dog" / "dog_train_1.jpg").unlink()
    (food / "texts_txt" / "cat" / "cat_train_2.txt").unlink()
    (food / "texts_txt" / "emu" / "emu_train_3.txt").write_text(" \n")
    (food / "images" / "test" / "emu" / "emu_test_0.jpg").unlink()
    dataset = read_food101(food, ENTRY, None, EVERY)
    assert dataset.dropped == {
        "train: no image": 2,
        "train: no text": 1,
        "train: empty text": 1,
        "test: no image": 1,
    }
    assert [len(split) for split in dataset.splits.values()] == [21, 5, 5]
    path = food / "images/train/cat/cat_train_0.jpg"
    assert dataset.warnings[0] == (
        f"{food}/train.csv: 4 of 30 pairs (13 %) are left out; the first one has no image: {path}"
    )
    assert "test.csv: 1 of 6 pairs (17 %)" in dataset.warnings[1] and len(dataset.warnings) == 2


def test_a_few_pairs_that_are_left_out_are_counted_without_a_warning(tmp_path):
    food = write_food101(tmp_path / "food")
    (food / "images" / "train" / "cat" / "cat_train_0.jpg").unlink()
    dataset = read_food101(food, ENTRY, None, EVERY)
    assert dataset.dropped == {"train: no image": 1} and dataset.warnings == ()


def test_nothing_left_is_a_fault(food):
    (food / "texts_txt" / "cat").rename(food / "texts_txt" / "cats")
    rows = read_csv(food / "train.csv")
    write_csv(food / "train.csv", rows[:11])
    write_csv(food / "test.csv", read_csv(food / "test.csv")[:3])
    faults = faults_of(read_food101, food)
    assert len(faults) == 2 and "train.csv: none of its 10 rows has an image and a text" in faults[0]
    assert faults[0].endswith(f"; the first one has no text: {food}/texts_txt/cat/cat_train_0.txt")
    (food / "texts_txt" / "cats").rename(food / "texts_txt" / "cat")
    (food / "images" / "train" / "cat").rename(food / "images" / "train" / "cats")
    faults = faults_of(read_food101, food)
    assert faults[0].endswith(f"; the first one has no image: {food}/images/train/cat/cat_train_0.jpg")


@pytest.mark.parametrize(("column", "typo"), [("id", "ids"), ("annotation", "anotation")])
def test_a_missing_column_of_food(food, column, typo):
    change(food / "train.csv", 0, column, typo)
    assert faults_of(read_food101, food) == [f"{food}/train.csv: column {column!r} is missing; did you mean {typo!r}?"]


def test_missing_files_of_food(food):
    (food / "test.csv").unlink()
    assert faults_of(read_food101, food)[0].startswith(f"{food}/test.csv: the file is missing")
    assert faults_of(read_food101, food / "nowhere") == [f"{food / 'nowhere'}: is not a folder"]
    assert "food101 has one text per image" in faults_of(read_food101, food, layout=Layout(text=("title",)))[0]


def test_many_faults_of_food_come_at_once(food):
    outside = image_file(food.parent / "secret.jpg", 1)
    change(food / "train.csv", 1, "id", "../../../../secret.jpg")
    change(food / "train.csv", 2, "id", " ")
    change(food / "train.csv", 3, "annotation", "")
    link = food / "images" / "train" / "cat" / "cat_train_3.jpg"
    link.unlink()
    link.symlink_to(outside)
    (food / "texts_txt" / "cat" / "cat_train_4.txt").write_bytes(b"caf\xe9")
    text = food / "texts_txt" / "cat" / "cat_train_5.txt"
    text.unlink()
    text.symlink_to(food.parent / "secret.jpg")
    (food / "images" / "train" / "cat" / "cat_train_6.jpg").write_bytes(b"")
    change(food / "test.csv", 6, "annotation", "dog")
    change(food / "test.csv", 5, "annotation", "emus")
    (food / "images" / "test" / "emus").symlink_to("emu")
    (food / "texts_txt" / "emus").symlink_to("emu")
    faults = [fault.removeprefix(f"{food}/") for fault in faults_of(read_food101, food, images=True)]
    where, far = "train.csv: row", "'images/train/cat/../../../../secret.jpg'"
    assert sorted(faults) == sorted(
        [
            f"{where} 1: image {far} leaves the data folder {food}",
            f"{where} 1: text 'texts_txt/cat/../../../../secret.txt' leaves the data folder {food}",
            f"{where} 2: the path of the image is empty",
            f"{where} 3: the label is empty",
            f"{where} 4: image 'images/train/cat/cat_train_3.jpg' leaves the data folder {food}",
            f"{where} 5: text 'texts_txt/cat/cat_train_4.txt' is not UTF-8 (byte 4); save it as UTF-8",
            f"{where} 6: text 'texts_txt/cat/cat_train_5.txt' leaves the data folder {food}",
            f"{where} 7: image 'images/train/cat/cat_train_6.jpg' is empty (zero bytes)",
            "test.csv: row 5: label 'emus' never occurs in train.csv; did you mean 'emu'?",
        ]
    )


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((60_000, 300, 2), {"a": 4975, "b": 25, "c": 0}),
        ((20_000, 4_997, 2), {"a": 3999, "b": 999, "c": 1}),
        ((20_000, 5_000), {"a": 4000, "b": 1000}),
        ((7, 7, 6), {"a": 2, "b": 1, "c": 1}),
        ((3, 1), {"a": 0, "b": 0}),
        ((1, 1, 1, 1, 1), {"a": 0}),
    ],
)
def test_the_validation_split_is_stratified_and_leaves_every_class_in_training(counts, expected):
    labels = [name for name, count in zip("abcde", counts, strict=False) for _ in range(count)]
    drawn = draw_validation(labels)
    got = Counter(labels[at] for at in drawn)
    assert all(got[name] == count for name, count in expected.items())
    assert drawn == draw_validation(labels) and set(labels[at] for at in set(range(len(labels))) - drawn) == set(labels)


def test_the_validation_split_is_drawn_and_not_the_first_pairs():
    labels = ["a"] * 50 + ["b"] * 50
    drawn = sorted(draw_validation(labels))
    assert len(drawn) == 20 and drawn != [*range(10), *range(50, 60)]
    assert sum(at < 50 for at in drawn) == 10 and [at for at in drawn if at < 50] != [
        at - 50 for at in drawn if at >= 50
    ]
