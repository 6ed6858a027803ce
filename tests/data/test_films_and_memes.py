"""MM-IMDb and Hateful Memes in the layouts of their authors."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import m3col
from m3col.data import loading
from m3col.data.checks.check_folder import check
from m3col.data.formats import mmimdb
from m3col.data.formats.csv_columns import Layout

BINARY = Layout(form="binary")


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (12, 10, 3), dtype=np.uint8)).save(path)


def films(folder: Path) -> dict[str, list[str]]:
    """Nine films: some with several plots, one without a label, two with ignored genres."""
    ids = {"train": ["01", "02", "03", "04", "05"], "dev": ["11", "12"], "test": ["21", "22"]}
    genres = [["Drama", "War"], ["Comedy"], ["News"], ["Drama", "Adult", "Film-Noir"], ["Comedy", "Drama"],
              ["Drama"], ["Comedy"], ["War"], ["Comedy", "Drama"]]  # fmt: skip
    everyone = [name for names in ids.values() for name in names]
    for number, (name, own) in enumerate(zip(everyone, genres, strict=True)):
        picture(folder / "dataset" / f"{name}.jpeg", number)
        plots = [f"plot {name}", f"a longer plot of {name}"] if number % 3 == 0 else [f"plot {name}"]
        (folder / "dataset" / f"{name}.json").write_text(json.dumps({"plot": plots, "genres": own}))
    (folder / "split.json").write_text(json.dumps(ids))
    return ids


def memes(folder: Path) -> None:
    for split, count in (("train", 6), ("dev", 3), ("test", 2)):
        lines = []
        for number in range(count):
            name = f"img/{split}{number}.png"
            picture(folder / name, 100 * len(split) + ord(split[0]) + number)
            record = {"id": f"{split}{number}", "img": name, "text": f"text {split} {number}"}
            lines.append(record if split == "test" else {**record, "label": number % 2})
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")


def test_a_film_is_one_sample_with_its_genres(tmp_path):
    ids = films(tmp_path / "mmimdb")
    dataset = loading.load("mmimdb", data_dir=tmp_path, layout=BINARY)
    assert {split: len(part) for split, part in dataset.splits.items()} == {"train": 5, "validation": 2, "test": 2}
    assert dataset.classes == mmimdb.GENRES and dataset.train.labels.shape == (5, 23)
    named = [[mmimdb.GENRES[at] for at in np.flatnonzero(row)] for row in dataset.train.labels]
    assert named == [["drama", "war"], ["comedy"], [], ["drama", "film-noir"], ["comedy", "drama"]]
    assert dataset.train.inputs["text"].values.tolist() == [f"plot {name}" for name in ids["train"]]
    text = "\n".join(dataset.warnings)
    assert (
        "3 of 9 films have several plots" in text and "1 of 9 films have none of the 23 genres, 2 have one of" in text
    )


@pytest.mark.parametrize(
    ("which", "expected"),
    [("longest_plot", "a longer plot of 01"), ("all_plots", "plot 01\na longer plot of 01")],
)
def test_the_config_says_which_plot_is_read(which, expected, tmp_path):
    films(tmp_path)
    dataset = loading.load("mmimdb", data_dir=tmp_path, layout=Layout(form="binary", text=(which,)))
    assert dataset.train.inputs["text"].values[0] == expected


def test_films_of_the_test_split_are_not_opened_unless_asked_for(tmp_path):
    films(tmp_path)
    (tmp_path / "dataset" / "21.json").unlink()
    dataset = loading.load("mmimdb", data_dir=tmp_path, layout=BINARY, splits=("train", "validation"))
    assert dataset.test is None
    with pytest.raises(m3col.InputError, match=r"21\.json: is missing"):
        loading.load("mmimdb", data_dir=tmp_path, layout=BINARY)


def test_every_fault_of_films_is_reported_at_once(tmp_path):
    films(tmp_path)
    for name, content in (("01", {"plot": "x", "genres": []}), ("02", {"plot": ["x"], "genres": ["Comedi"]}),
                          ("03", {"plot": [], "genres": ["War"]})):  # fmt: skip
        (tmp_path / "dataset" / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "dataset" / "04.json").write_text("{")
    (tmp_path / "dataset" / "05.jpeg").unlink()
    with pytest.raises(m3col.InputError) as caught:
        loading.load("mmimdb", data_dir=tmp_path, layout=BINARY)
    text = str(caught.value)
    for line in (
        "01.json: 'plot' must be a list of texts, but is a text",
        "genre 'comedi' is unknown; did you mean 'comedy'?",
        "03.json: the text is empty",
        "04.json: is not JSON",
        "05.jpeg",
    ):
        assert line in text


def test_ids_that_leave_the_folder_or_repeat_are_faults(tmp_path):
    films(tmp_path)
    (tmp_path / "split.json").write_text(json.dumps({"train": ["01", "../02", "01"], "dev": ["01"], "test": 3}))
    with pytest.raises(m3col.InputError) as caught:
        loading.load("mmimdb", data_dir=tmp_path, layout=BINARY)
    text = str(caught.value)
    assert "entry 2: '../02' is not an id" in text and text.count("'01' is in 'train' already") == 2
    assert "'test' must be a list of ids, but is a number" in text


def test_memes_are_tested_on_dev_because_test_has_no_labels(tmp_path):
    memes(tmp_path / "hateful_memes")
    dataset = loading.load("hateful_memes", data_dir=tmp_path)
    assert {split: len(part) for split, part in dataset.splits.items()} == {"train": 6, "test": 3}
    assert dataset.classes == ("benign", "hateful")
    names = [dataset.classes[label] for label in dataset.train.labels]
    assert names == ["benign", "hateful"] * 3
    assert dataset.test.inputs["text"].values[0] == "text dev 0"
    report = check(tmp_path / "hateful_memes")
    assert not report.faults and any("has no labels; the test split is dev.jsonl" in line for line in report.warnings)


def test_every_fault_of_memes_is_reported_at_once(tmp_path):
    memes(tmp_path)
    wrong = ["{", "[]", '{"img": 1, "text": null, "label": 0}', '{"img": "img/a.png", "text": "x", "label": 2}',
             '{"img": "../a.png", "text": "x", "label": 1}']  # fmt: skip
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write("\n".join(wrong))
    with pytest.raises(m3col.InputError) as caught:
        loading.load("hateful_memes", data_dir=tmp_path)
    text = str(caught.value)
    for line in ("row 7: is not JSON", "row 8: must be an object, but is a list",
                 "row 9: 'img' must be a text, but is a number",
                 "row 9: 'text' must be a text, but is null", "row 10: 'label' must be 0 or 1, but is 2",
                 "row 11: image '../a.png'"):  # fmt: skip
        assert line in text


def test_null_is_no_film_and_no_meme(tmp_path):
    films(tmp_path / "a")
    (tmp_path / "a" / "dataset" / "01.json").write_text("null")
    with pytest.raises(m3col.InputError, match=r"01\.json: must be an object, but is null"):
        loading.load("mmimdb", data_dir=tmp_path / "a", layout=BINARY)
    (tmp_path / "a" / "split.json").write_text("null")
    with pytest.raises(m3col.InputError, match=r"split\.json: must be an object of lists of ids, but is null"):
        loading.load("mmimdb", data_dir=tmp_path / "a", layout=BINARY)
    (tmp_path / "a" / "split.json").write_text(json.dumps({"train": ["02"], "validation": ["03"]}))
    with pytest.raises(m3col.InputError, match="'validation' is no split"):
        loading.load("mmimdb", data_dir=tmp_path / "a", layout=BINARY)
    memes(tmp_path / "b")
    with (tmp_path / "b" / "train.jsonl").open("a") as file:
        file.write("null\n")
    with pytest.raises(m3col.InputError, match="row 7: must be an object, but is null"):
        loading.load("hateful_memes", data_dir=tmp_path / "b")


def test_a_meme_in_two_splits_is_a_fault(tmp_path):
    memes(tmp_path)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write((tmp_path / "dev.jsonl").read_text())
    with pytest.raises(m3col.InputError, match=r"dev\.jsonl: row 1: id 'dev0' is in train\.jsonl as well"):
        loading.load("hateful_memes", data_dir=tmp_path)


def test_every_list_of_a_film_is_checked(tmp_path):
    films(tmp_path)
    (tmp_path / "dataset" / "01.json").write_text(json.dumps({"plot": 3, "genres": ["War", None]}))
    (tmp_path / "dataset" / "02.json").write_text(json.dumps({"plot": [" ", "second"], "genres": ["War"]}))
    with pytest.raises(m3col.InputError) as caught:
        loading.load("mmimdb", data_dir=tmp_path, layout=BINARY)
    text = str(caught.value)
    assert "'plot' must be a list of texts, but is a number" in text and "has null in it" in text
    assert "02.json" not in text


def test_check_describes_films(tmp_path):
    films(tmp_path)
    report = check(tmp_path, layout=BINARY)
    assert not report.faults and any("several plots" in line for line in report.warnings)
    assert len(report.class_rows) == 23
