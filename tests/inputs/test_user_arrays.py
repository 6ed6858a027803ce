"""Validation of images and texts that a user passes to a model."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from m3col.data.columns import MediaColumn
from m3col.data.formats import unlabelled_csv
from m3col.data.formats.pairs import FaultCollector
from m3col.errors import InputError
from m3col.inputs import user_arrays


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3COL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.new("RGB", (9, 8), "red").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def faults(kind, values) -> list[str]:
    with pytest.raises(InputError) as caught:
        user_arrays.records(kind, values, where="here")
    return list(caught.value.faults)


def test_paths_contents_and_tables_are_images(image):
    for values in ([image, image.read_bytes()], np.array([str(image)] * 2), pd.DataFrame({"p": [image] * 2})):
        records = user_arrays.records("image", values, where="here")
        assert len(records) == 2 and records.kind == "image"
    again = user_arrays.records("image", records, where="here")
    assert again is not records and again.source is records.source
    assert (
        len(user_arrays.records("image", [], where="here")) == len(user_arrays.records("text", [], where="here")) == 0
    )


def test_what_is_no_image_does_not_hide_broken_ones(image, tmp_path):
    (tmp_path / "b.png").write_text("<html>")
    lines = faults("image", [None, tmp_path / "b.png", b"", image, "a\0b.png", "half \ud800.png", tmp_path])
    assert lines == [
        "here: row 1: must be one of the paths or contents (bytes) of images, but is None",
        f"here: row 2: {tmp_path}/b.png: is an HTML page",
        "here: row 3: is empty (zero bytes)",
        "here: row 5: a\\x00b.png: is not a valid path",
        "here: row 6: half \\ud800.png: is not a valid path",
        "here: 1 more rows that cannot be used",
    ]


def test_texts_are_not_empty_and_can_be_written():
    assert faults("text", ["a", " ", 7, "half \ud800"]) == [
        "here: row 2: is an empty text",
        "here: row 3: must be one of the texts, but is 7",
        "here: row 4: holds half a surrogate pair",
    ]


@pytest.mark.parametrize(("values", "words"), [("a.png", "is a single one"), (b"", "is a single one"), (7, "is a int")])
def test_a_list_is_needed(values, words):
    (line,) = faults("image", values)
    assert line.startswith("here: must be a list of paths or contents") and words in line


COLUMNS = {"image": ["image"], "text": ["title", "body"], "numbers": ["numbers.x"]}
KINDS = {"image": "image", "text": "text", "numbers": "numeric"}


def read(path: Path, text: str) -> tuple[dict, list[str]]:
    path.write_text(text)
    collector = FaultCollector()
    return unlabelled_csv.read(path, COLUMNS, KINDS, collector), [
        line.removeprefix(f"{path}: ") for line in collector.lines()
    ]


def test_a_csv_is_read_as_that_of_a_training(image, tmp_path):
    inputs, lines = read(tmp_path / "q.csv", f"image,title,body,numbers.x\n a.png ,one ,,1\n{image},a,b, NA\n")
    assert lines == [] and inputs["image"] == [str(image)] * 2 and inputs["text"] == ["one", "a\nb"]
    table = user_arrays.numbers(inputs["numbers"], ["numbers.x"], where="here", may_miss=True)
    assert table[0, 0] == 1 and np.isnan(table[1, 0])
    assert isinstance(user_arrays.records("image", inputs["image"], where="here"), MediaColumn)


def test_all_that_is_wrong_with_a_csv_comes_with_its_row(image, tmp_path):
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "imgs").mkdir()
    rows = ["", "imgs", "b.png", "none.png", "a.png"]
    inputs, lines = read(tmp_path / "q.csv", "image,title\n" + "".join(f"{row},x\n" for row in rows))
    assert list(inputs) == ["image"]
    assert lines == [
        "row 1: the path of the image is empty",
        "row 2: image 'imgs' is not a file",
        "row 3: image 'b.png' is empty (zero bytes)",
        "row 4: image 'none.png': the file is missing",
        "column 'body' is missing; choose from image, title",
        "column 'numbers.x' is missing; choose from image, title",
    ]
