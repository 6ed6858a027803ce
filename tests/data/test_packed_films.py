"""The packed file of MM-IMDb: tables of features, with genres and splits as the file names them."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

import m3col
from m3col.data import loading
from m3col.data.checks.check_folder import check
from m3col.data.formats import mmimdb_packed
from m3col.data.formats.csv_columns import Layout
from m3col.data.formats.mmimdb import GENRES

BINARY = Layout(form="binary")
COUNT = 40
ENDS = {"train": (0, 26), "dev": (26, 32), "test": (32, COUNT)}
NAMES = [name.title() for name in (*GENRES[::-1][3:], *GENRES[::-1][:3])]  # in an order of its own, as published


def content() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    genres = rng.integers(0, 2, size=(COUNT, len(GENRES))).astype(np.int32)
    genres[:2] = np.eye(2, dtype=np.int32)[:, [0] * len(GENRES)]  # in training every genre is there, and is not
    return {
        "features": rng.normal(size=(COUNT, 7)).astype(np.float32),
        "vgg_features": rng.normal(size=(COUNT, 9)).astype(np.float32),
        "genres": genres,
        "imdb_ids": np.array([f"{700 + row:07d}" for row in range(COUNT)], dtype="S7"),
        "images": rng.integers(0, 255, size=(COUNT, 3, 4, 4)).astype(np.int32),
    }


def write(folder: Path, *, names=NAMES, ends=ENDS, **changes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / mmimdb_packed.FILE, "w") as file:
        for name, array in {**content(), **changes}.items():
            if array is not None:
                file.create_dataset(name, data=array)
        if names is not None and "genres" in file:
            file["genres"].attrs["target_names"] = names if isinstance(names, str) else json.dumps(names)
        if ends is not None:
            kinds = [("split", "S5"), ("source", "S12"), ("start", "i8"), ("stop", "i8")]
            lines = [(split, source, *own) for split, own in ends.items() for source in ("features", "genres")]
            file.attrs["split"] = np.array(lines, dtype=kinds)
    return folder


def faults(folder: Path, **settings) -> str:
    with pytest.raises(m3col.InputError) as caught:
        loading.load("mmimdb_packed", data_dir=folder, layout=BINARY, **settings)
    return str(caught.value)


def test_rows_are_those_of_the_file_with_the_genres_by_name(tmp_path):
    write(tmp_path / "mmimdb_packed")
    dataset = loading.load("mmimdb_packed", data_dir=tmp_path, layout=BINARY)
    source = content()
    assert dataset.classes == GENRES and dataset.kinds == {"image": "numeric", "text": "numeric"}
    for split, name in (("train", "train"), ("validation", "dev"), ("test", "test")):
        part, (start, stop) = dataset.splits[split], ENDS[name]
        assert part.ids.tolist() == [f"{700 + row:07d}" for row in range(start, stop)]
        assert np.array_equal(part.inputs["image"], source["vgg_features"][start:stop])
        assert np.array_equal(part.inputs["text"], source["features"][start:stop])
        for at, genre in enumerate(GENRES):
            column = [name.lower() for name in NAMES].index(genre)
            assert part.labels[:, at].tolist() == source["genres"][start:stop, column].tolist()
    assert dataset.features["text"][:2] == ("features_0", "features_1")


def test_only_what_is_asked_for_is_read(tmp_path):
    write(tmp_path, features=None)
    dataset = loading.load(
        "mmimdb_packed", data_dir=tmp_path, layout=BINARY, modalities=["image"], splits=("train", "validation")
    )
    assert dataset.modalities == ("image",) and dataset.unselected == ("text",) and dataset.test is None
    assert "has no array 'features' of its own; it has genres, images, imdb_ids, vgg_features" in faults(tmp_path)


def test_without_a_table_of_splits_the_rows_are_the_published_ones(tmp_path, monkeypatch):
    write(tmp_path, ends=None)
    assert "has 40 films, but no attribute 'split' that says their splits" in faults(tmp_path)
    assert sum(stop - start for start, stop in mmimdb_packed.PUBLISHED.values()) == 25_959
    monkeypatch.setattr(mmimdb_packed, "PUBLISHED", ENDS)
    assert len(loading.load("mmimdb_packed", data_dir=tmp_path, layout=BINARY).validation) == 6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"names": None}, "'genres' must name its columns in the attribute 'target_names'"),
        ({"names": "[1"}, "'genres' must name its columns in the attribute 'target_names'"),
        ({"names": "3"}, "'genres' must name its columns in the attribute 'target_names'"),
        ({"names": [*NAMES[:-1], "Wester"]}, "genre 'wester' is unknown; did you mean 'western'?"),
        ({"names": NAMES[:-1]}, "but has 23 columns and 22 names, 22 of them different"),
        ({"names": [*NAMES[:-1], NAMES[0]]}, "but has 23 columns and 23 names, 22 of them different"),
        ({"genres": np.full((COUNT, 23), 2)}, "must be 0 or 1"),
        ({"genres": np.zeros((COUNT, 23))}, "is in no training sample"),
        ({"genres": np.zeros(COUNT)}, "'genres' must be numbers in 2 dimensions, but is float64 [40]"),
        ({"imdb_ids": np.arange(COUNT)}, "'imdb_ids' must be texts in 1 dimensions, but is int64 [40]"),
        ({"imdb_ids": np.array([b"1"] * COUNT)}, "'1'"),
        ({"features": np.zeros((COUNT - 1, 7))}, "must have the same number of films, but have imdb_ids 40"),
        ({"ends": {"train": (0, 30), "dev": (26, 40)}}, "rows 26 to 40 of validation must be some of 40, and of no"),
        ({"ends": {"train": (0, 50)}}, "rows 0 to 50 of train must be some of 40"),
        ({"ends": {"dev": (0, 20)}}, "the attribute 'split' has no training split"),
    ],
)
def test_every_fault_in_words(tmp_path, changes, words):
    write(tmp_path, **changes)
    assert words in faults(tmp_path)


def test_links_and_damage_are_refused(tmp_path):
    write(tmp_path, features=None)
    with h5py.File(tmp_path / mmimdb_packed.FILE, "a") as file:
        file["features"] = h5py.ExternalLink("other.h5", "features")
    assert "has no array 'features' of its own" in faults(tmp_path)
    (tmp_path / mmimdb_packed.FILE).write_bytes(b"no HDF5")
    assert "cannot be read as HDF5" in faults(tmp_path)
    with pytest.raises(m3col.InputError, match="set task: multi_label"):
        loading.load("mmimdb_packed", data_dir=tmp_path)


def test_a_training_and_a_check_of_the_folder(tmp_path):
    write(tmp_path / "mmimdb_packed")
    overrides = {
        "data.dir": str(tmp_path), "train.epochs": 1, "objective.projector_hidden": 8, "objective.projector_dim": 4,
        "objective.evaluations": 1, "model.embedding_dim": 8, "objective.fusion_heads": 2, "train.batch_size": 13,
    }  # fmt: skip
    run = m3col.train("mmimdb_packed", overrides=overrides, runs=tmp_path / "runs", tracking_uri="none")
    assert 0 <= run.metrics["test/macro_f1"] <= 1
    report = check(tmp_path / "mmimdb_packed")
    assert report.ok and len(report.class_rows) == 23
    assert [row[:4] for row in report.rows] == [
        (name, split, str(count), str(width))
        for name, width in (("image", 9), ("text", 7))
        for split, count in (("train", 26), ("validation", 6), ("test", 8))
    ]
    assert report.class_columns == ("label", "train", "validation", "test")


def test_a_check_reports_missing_and_constant_values_and_faults(tmp_path):
    holes = content()["features"]
    holes[3, 2], holes[4, 1], holes[:, 5] = np.nan, np.nan, 1
    report = check(write(tmp_path, features=holes))
    (row,) = [row for row in report.rows if row[:2] == ("text", "train")]
    assert row[4:] == ("1", "2") and report.ok
    assert any("text has missing values; data.preprocess needs `impute` first" in line for line in report.warnings)
    holes[3, 2] = np.inf
    assert "inf is infinite" in check(write(tmp_path, features=holes)).faults[0]
    report = check(write(tmp_path, imdb_ids=np.arange(COUNT)))
    assert not report.ok and "'imdb_ids' must be texts" in report.faults[0] and report.rows == ()
