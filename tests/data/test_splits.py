"""Partitions: their content, reproducibility, and file format."""

import numpy as np
import pytest

from m3col.data import arrays, dataset, splits
from m3col.data import dataset as data_dataset
from m3col.errors import InputError


def build(labels, **options) -> data_dataset.Dataset:
    labels = np.asarray(labels)
    return arrays.from_arrays({"a": np.arange(len(labels), dtype=float)[:, None]}, labels, **options)


@pytest.fixture
def toy() -> dataset.Dataset:
    held_out = ({"a": np.zeros((4, 1))}, [0, 1, 2, 0])
    return build([0] * 12 + [1] * 8 + [2] * 5, validation=held_out)


def same(a: list[splits.Fold], b: list[splits.Fold]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(f.train, g.train) and np.array_equal(f.validation, g.validation)
        for f, g in zip(a, b, strict=True)
    )


def test_folds_are_disjoint_complete_stratified_and_a_function_of_the_seed(toy):
    folds = splits.draw(toy, kind="kfold", folds=5, seed=3)
    assert sorted(np.concatenate([f.validation for f in folds]).tolist()) == list(range(25))
    for fold in folds:
        assert sorted([*fold.train, *fold.validation]) == list(range(25))
        counts = np.bincount(toy.train.labels[fold.validation], minlength=3)
        assert counts[0] in (2, 3) and counts[1] in (1, 2) and counts[2] == 1
        assert fold.train.dtype == np.int64
    assert same(folds, splits.draw(toy, kind="kfold", folds=5, seed=3))
    assert not same(folds, splits.draw(toy, kind="kfold", folds=5, seed=4))


def test_holdout_given_and_none(toy):
    (holdout,) = splits.draw(toy, kind="holdout", fraction=0.2, seed=0)
    assert np.bincount(toy.train.labels[holdout.validation]).tolist() == [2, 2, 1]
    (given,) = splits.draw(toy, kind="given")
    assert given.train.tolist() == list(range(25)) and given.validation.tolist() == [25, 26, 27, 28]
    assert len(splits.pool(toy, "given")) == 29 and len(splits.pool(toy, "kfold")) == 25
    (everything,) = splits.draw(toy, kind="none")
    assert len(everything.train) == 25 and everything.validation.shape == (0,)
    assert splits.default_kind(toy) == "given" and splits.default_kind(build([0, 1])) == "kfold"


def test_groups_stay_together():
    dataset = build([0, 1] * 12, groups=np.repeat(np.arange(8), 3))
    groups = dataset.train.groups
    for fold in splits.draw(dataset, kind="kfold", folds=4):
        assert not set(groups[fold.train]) & set(groups[fold.validation])
    assert "keep groups together" in splits.faults(dataset, kind="holdout")[0]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"kind": "kfold", "folds": 6}, r"class 2 \(2\) has only 5 training samples; at most 5 folds"),
        ({"kind": "kfold", "folds": 1}, "whole number >= 2, but got 1"),
        ({"kind": "kfold", "folds": True}, "got True"),
        ({"kind": "kfould"}, "did you mean 'kfold'"),
        ({"kind": "holdout", "fraction": 1.0}, "between 0 and 1"),
        ({"kind": "holdout", "fraction": float("nan")}, "between 0 and 1"),
        ({"kind": "holdout", "fraction": 0.01}, "leaves 1 for validation and 24 for training"),
    ],
)
def test_refuses(toy, options, match):
    with pytest.raises(InputError, match=match):
        splits.draw(toy, **options)


def test_refuses_given_without_a_split_and_classes_of_one():
    dataset = build([0, 0, 0, 1])
    assert "needs a validation split" in splits.faults(dataset, kind="given")[0]
    assert "class 1 (1) has one" in splits.faults(dataset, kind="holdout")[0]
    assert "no k is possible" in splits.faults(dataset, kind="kfold", folds=2)[0]


def test_the_file_brings_every_kind_of_partition_back(toy, tmp_path):
    path = tmp_path / "splits.csv"
    drawn = {kind: splits.draw(toy, kind=kind, seed=1) for kind in ("kfold", "holdout", "none")}
    splits.write_csv(path, toy.train.ids, drawn)
    again = splits.read_csv(path, ids=toy.train.ids)
    assert again.keys() == drawn.keys() and all(same(again[kind], drawn[kind]) for kind in drawn)
    assert path.read_text().splitlines()[0] == "id,kfold,holdout,none"
    assert [p.name for p in tmp_path.iterdir()] == ["splits.csv"]


def test_refuses_a_file_of_other_samples_or_with_other_content(toy, tmp_path):
    path = tmp_path / "splits.csv"
    splits.write_csv(path, toy.train.ids, {"p": splits.draw(toy, kind="kfold")})
    with pytest.raises(InputError, match="has 25 samples, but the data set has 24"):
        splits.read_csv(path, ids=toy.train.ids[1:])
    with pytest.raises(InputError, match="row 2: sample 'train-0', but the data set has 'x'"):
        splits.read_csv(path, ids=["x", *toy.train.ids[1:]])
    for content, match in (
        ("id,p\na,x\n", "column 'p': a fold is a whole number"),
        ("id,p\na,0\nb,2\n", "without a gap"),
        ("id,p\na,-2\n", "or -1"),
        ("id,p\na\n", "rows of that length"),
        ("", "header"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=match):
            splits.read_csv(path)
    with pytest.raises(InputError, match="cannot be read"):
        splits.read_csv(tmp_path / "nowhere.csv")


def test_refuses_to_write_folds_that_overlap(tmp_path):
    fold = splits.Fold(train=np.array([0]), validation=np.array([1]))
    with pytest.raises(ValueError, match="at most once"):
        splits.write_csv(tmp_path / "s.csv", ["a", "b"], {"p": [fold, fold]})
    assert not list(tmp_path.iterdir())
