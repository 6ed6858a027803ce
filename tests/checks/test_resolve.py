"""A config and its data, judged together: all faults of both, and what is resolved when there is none."""

import shutil
from collections import namedtuple

import numpy as np
import pandas as pd
import pytest

from m3col import tasks
from m3col.checks.limits import disk_faults, parameter_count
from m3col.checks.resolve import as_dataset, check_against_data, resolve
from m3col.config import loading
from m3col.config.loading import with_overrides
from m3col.data.arrays import from_arrays
from m3col.data.columns import MediaColumn
from m3col.data.dataset import Dataset, build_split
from m3col.data.images import cache
from m3col.errors import InputError
from m3col.training.fold_trainer import FoldTrainer
from tests.data.builders import edit, write_folder
from tests.support import pairs
from tests.support.helpers import tiny_config, tiny_data

DATA = tiny_data()
RNG = np.random.default_rng(0)
VIEWS = {"a": RNG.normal(size=(12, 3)), "b": RNG.normal(size=(12, 2))}
LABELS = np.arange(12) % 2


def faults(run=None, data=DATA, **overrides) -> list[str]:
    with pytest.raises(InputError) as caught:
        resolve(run or tiny_config(**overrides), data=data, where="x.yaml")
    return list(caught.value.faults)


def test_what_depends_on_the_data_is_resolved():
    found = resolve(tiny_config(), data=DATA).config
    assert (found.validation.kind, found.metric, found.data.modalities) == ("kfold", "val/auroc", ["view_0", "view_1"])
    assert resolve(tiny_config(), data=tiny_data(classes=3)).config.metric == "val/macro_f1"
    assert resolve(found, data=DATA).config == found
    split = from_arrays(VIEWS, LABELS, validation=(VIEWS, LABELS))
    assert resolve(tiny_config(), data=split).config.validation.kind == "given"
    assert resolve(tiny_config(data__modalities=[2, 1]), data=tiny_data(modalities=3)).config.data.modalities == [
        "view_0",
        "view_1",
    ]


def test_data_may_be_pairs_frames_or_splits():
    frames = {name: pd.DataFrame(x, columns=[f"{name}{k}" for k in range(x.shape[1])]) for name, x in VIEWS.items()}
    assert as_dataset(DATA) is DATA
    assert as_dataset((VIEWS, LABELS)).test is None
    found = as_dataset({"train": (frames, LABELS), "test": (frames, LABELS)})
    assert found.features["a"] == ("a0", "a1", "a2") and len(found.test) == 12


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (3, ["int"]),
        ((VIEWS,), ["tuple"]),
        ({"test": (VIEWS, LABELS)}, ["'train'"]),
        ({"train": VIEWS, "tset": (VIEWS, LABELS), "test": 3}, ["'tset'", "'test'?", "'train' must be a pair", "int"]),
        ((VIEWS, LABELS[:5]), ["same number of rows"]),
        ((VIEWS, np.zeros(12)), ["at least two classes"]),
        ((VIEWS, LABELS + 0.5), ["integers 0..C-1"]),
        ((VIEWS, ["yes"] * 12), ["at least two classes", "0 (yes)"]),
        ((VIEWS, ["yes", 1] * 6), ["integers 0..C-1", "'yes'"]),
        (({**VIEWS, "a": [["x", "y"]] * 12}, LABELS), ["'a'", "number"]),
        (({**VIEWS, "a": np.zeros(12)}, LABELS), ["'a'", "[12]"]),
        ({"train": (VIEWS, LABELS), "test": ({"a": VIEWS["a"]}, LABELS)}, ["test", "modalities"]),
        ({"train": (VIEWS, LABELS), "test": (VIEWS, LABELS + 1)}, ["label 2", "never occurs in training"]),
    ],
)
def test_arrays_are_judged_as_strictly_as_files(data, words):
    text = "\n".join(faults(data=data))
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"metric": "val/aurocc"}, ["metric 'val/aurocc' is never reported", "val/auroc"]),
        ({"metric": "val/accuracy_view_7"}, ["never reported", "val/accuracy_view_"]),
        ({"metric": "auroc"}, ["never reported", "'val/auroc'"]),
        ({"metric": "train/loss"}, ["of the training samples", "'val/auroc'"]),
        ({"metric": "val/ce_view_0", "method": "concat", "objective__unimodal_supervision": False}, ["never reported"]),
        ({"objective__class_weight": [1, 2, 3]}, ["each of the 2 classes", "has 3"]),
        ({"validation__folds": 21}, ["class 0", "20", "at most 20"]),
        ({"validation__kind": "given"}, ["validation.kind", "kfold"]),
        ({"data__preprocess": {"view_0": ["minmax"], "view_9": []}}, ["'view_9' is unknown", "'view_1' has no steps"]),
        ({"data__preprocess": [{"variance": 1e9}]}, ["variance", "largest"]),
        ({"data__modalities": ["view_0", "view_x"]}, ["x.yaml: data.modalities", "'view_x'"]),
        ({"data__modalities": [1, 3]}, ["number 3", "1..2"]),
        ({"method": "single", "data__modalities": ["nope"]}, ["'nope'"]),
    ],
)
def test_config_against_data(overrides, words):
    text = "\n".join(faults(**overrides))
    assert all(word in text for word in words), text
    assert all(line.startswith("x.yaml: ") for line in text.splitlines())


def test_a_metric_for_two_classes_is_told_apart_from_a_misspelt_one():
    (line,) = faults(data=tiny_data(classes=3), metric="val/auroc")
    assert "for two classes" in line and "has 3" in line and "'val/macro_f1'" in line


def test_one_modality_is_too_few_unless_the_method_is_for_one():
    (line,) = faults(data=tiny_data(modalities=1))
    assert "method 'm3col' needs at least two modalities, but the data has one (view_0)" in line
    alone = tiny_config(method="single", data__modalities=["view_0"])
    assert resolve(alone, data=DATA).dataset.modalities == ("view_0",)


def test_missing_values_need_impute_and_infinite_ones_are_refused():
    views = {**VIEWS, "a": VIEWS["a"].copy()}
    views["a"][3, 1] = np.nan
    (line,) = faults(data=(views, LABELS), validation__folds=2)
    assert "'a', train: row 4, column 2" in line and "nan" in line and "impute" in line
    assert resolve(tiny_config(data__preprocess=["impute"], validation__folds=2), data=(views, LABELS))
    views["a"][3, 1] = np.inf
    (line,) = faults(data=(views, LABELS), data__preprocess=["impute"], validation__folds=2)
    assert line.startswith("arrays, modality 'a', train: row 4, column 2") and "inf is infinite" in line


def test_all_faults_of_config_and_data_at_once():
    found = faults(metric="val/x", objective__class_weight=[1], validation__folds=21,
                   data__preprocess=[{"variance": 1e9}])  # fmt: skip
    assert len(found) == 5  # the variance step in each of two modalities


def test_what_rests_on_a_faulty_key_is_not_looked_at():
    run = tiny_config(metric="val/x", objective__class_weight=[1], validation__folds=21)
    prepared, found = check_against_data(run, data=DATA, faulty={"validation.folds", "metric"})
    assert prepared is None and len(found) == 1 and "class_weight" in found[0]
    assert check_against_data(run, faulty={"data.name"}) == (None, [])


def test_faults_of_files_name_file_row_and_column(tmp_path):
    folder = write_folder(tmp_path / "mine")
    edit(folder / "1_tr.csv", row=3, column=2, to="abc")
    edit(folder / "2_te.csv", row=1, column=1, to=None)
    run = loading.load({"data": {"name": "omics", "dir": str(folder)}})
    text = "\n".join(faults(run, data=None))
    assert f"{folder}/1_tr.csv: row 3, column 2: 'abc'" in text and f"{folder}/2_te.csv: row 1" in text


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of images and texts, and a cache of its own."""
    monkeypatch.setenv("M3COL_CACHE", str(tmp_path / "cache"))
    return pairs.folder(tmp_path / "data")


def test_encoders_are_judged_though_the_data_cannot_be_read(place):
    rows = (place / "test.csv").read_text().replace("label", "lable", 1)
    (place / "test.csv").write_text(rows)
    (place / "imgs/train-4.png").write_text("<html>")
    found = faults(
        pairs.config(
            place, model__image__name="vit_tny_patch16_224", data__text__max_length=999,
            mix__level={"image": "input", "txt": "input"},
        ),
        data=None,
    )  # fmt: skip
    assert [line.partition("; ")[0] for line in found] == [
        f"{place}/test.csv: column 'label' (data.label_column) is missing",
        f"{place}/train.csv: row 5: image 'imgs/train-4.png' is an HTML page",
        "x.yaml: mix.level: modality 'txt' is unknown",
        "x.yaml: mix.level must name every modality, but lacks text",
        "x.yaml: model.image.name 'vit_tny_patch16_224' is unknown to timm",
        "x.yaml: data.text.max_length must be <= 512, the positions of 'bert', but got 999",
    ]
    alone = pairs.config(
        place, data__modalities=["text"], method="single", model__image__name="vit_tny_patch16_224"
    )  # fmt: skip
    (line,) = faults(alone, data=None)
    assert "lable" in line
    wrong_name = pairs.config(place, data__dir=str(place / "no"), model__text__name="brt")
    assert ["brt" in line or "is not a folder" in line for line in faults(wrong_name, data=None)] == [True, True]


def test_a_fault_of_one_encoder_does_not_hide_those_of_the_other(place):
    run = pairs.config(place, model__image__name="vit_tny_patch16_224")
    prepared, found = check_against_data(run, faulty={"model.text.pool"})
    assert prepared is None and len(found) == 1 and "vit_tiny_patch16_224" in found[0]
    assert check_against_data(run, faulty={"model.embedding_dim"}) == (None, [])


def test_images_in_memory_are_named_by_split_and_row(place):
    (place / "imgs/train-4.png").write_text("<html>")
    paths = [str(place / f"imgs/train-{n}.png") for n in range(6)]
    train = build_split({"image": MediaColumn.of("image", paths)}, np.arange(6) % 3, "train")
    data = Dataset("mine", ("a", "b", "c"), {"image": ("image",)}, train)
    run = pairs.config(place, data__name="arrays", data__dir=None, data__modalities=["image"], method="single")
    assert faults(run, data=data)[0] == f"mine, train: row 5: {paths[4]}: is an HTML page"


def test_the_cache_is_judged_before_anything_begins(place, tmp_path, monkeypatch):
    run = pairs.config(place)
    monkeypatch.setenv("M3COL_CACHE", "/dev/null/x")
    (line,) = faults(run, data=None)
    assert line.startswith("/dev/null/x: cannot be written, because /dev/null is a file; or name another folder")
    assert resolve(with_overrides(run, {"data.cache": False}))
    monkeypatch.setenv("M3COL_CACHE", str(tmp_path / "cache"))
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**4, 10**4))
        (line,) = faults(run, data=None)
        assert "the cache of decoded images needs about" in line and "set data.cache=false" in line
    cache.decoded(resolve(run).dataset.train.inputs["image"], 18)  # as data.image.size: 16 asks for
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**4, 10**4))
    assert resolve(run)


def test_a_folder_that_is_none_is_a_fault_for_embedded_data_too(tmp_path):
    for name in ("digits", "rosmap", "omics"):
        run = loading.load({"data": {"name": name, "dir": str(tmp_path / "no")}})
        (line,) = faults(run, data=None)
        assert line == f"x.yaml: data.dir (--data-dir) {tmp_path / 'no'} is not a folder"


def test_arrays_that_are_not_there_are_asked_for():
    (line,) = faults(tiny_config(), data=None)
    assert "data.name is 'arrays'" in line and "`data`" in line


def test_disk_that_is_no_folder_or_too_small(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in disk_faults(tmp_path / "file" / "runs", 0, what="x")[0]
    assert disk_faults(tmp_path / "new" / "runs", 1000, what="x") == [] and not (tmp_path / "new").exists()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**6, 10**6))
    (line,) = disk_faults(tmp_path / "runs", 10**9, what="a search")
    assert "a search needs about 1,500 MB" in line and "only 1 MB are free" in line
    assert disk_faults(tmp_path / "runs", 10**5, what="a search") == []


@pytest.mark.parametrize("method", ["m3col", "concat"])
def test_the_size_of_a_checkpoint_is_known_beforehand(method):
    run = tiny_config(method=method)
    trainer = FoldTrainer(run, DATA.train, features=DATA.features, task=tasks.build(classes=2))
    features = {name: len(values) for name, values in DATA.features.items()}
    assert parameter_count(run, features, 2) == sum(p.numel() for p in trainer.method.parameters())
