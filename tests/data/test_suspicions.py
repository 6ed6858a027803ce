"""Data warnings: samples in two splits, columns that number the rows, class names that differ only in case."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from m3col.checks.resolve import check_against_data
from m3col.config.loading import load
from m3col.data import arrays
from m3col.data.checks import data_warnings
from m3col.data.columns import MediaColumn
from m3col.data.dataset import Dataset, build_split

COUNT = 30
SORTED = np.arange(COUNT) * 3 // COUNT
MIXED = np.arange(COUNT) % 3


def noise(columns: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(COUNT, columns))


def warnings_of(x: np.ndarray, labels: np.ndarray) -> list[str]:
    return data_warnings.of_dataset(arrays.from_arrays({"a": x, "b": noise(2, 9)}, labels))


def with_column(values, at: int = 0) -> np.ndarray:
    x = noise()
    x[:, at] = values
    return x


@pytest.mark.parametrize(
    ("x", "labels", "words"),
    [
        (with_column(np.arange(COUNT)), MIXED, "column 1 (a_0) is the row number; remove it"),
        (with_column(np.arange(COUNT) + 7), SORTED, "is the row number; the rows are sorted by class"),
        (with_column(1000 + 3 * np.arange(COUNT), 2), MIXED, "column 3 (a_2) grows or falls from each row to the next"),
        (with_column(-np.sqrt(np.arange(COUNT))), MIXED, "grows or falls from each row to the next"),
        (with_column(20200101 + np.cumsum(1 + MIXED)), SORTED, "so that it alone separates the classes"),
        (with_column(np.random.default_rng(0).permutation(COUNT)), MIXED, "as row numbers in another order do"),
        (with_column(5 + np.random.default_rng(1).permutation(COUNT)), SORTED, "as row numbers in another order do"),
        (with_column(MIXED), MIXED, "column 1 (a_0) equals the label in every row"),
        (with_column(SORTED), SORTED, "equals the label in every row"),
        (with_column(10 * SORTED + 5), SORTED, "follows the order of the rows, which are sorted by class"),
        (with_column(np.repeat([9, 8, 5, 4, 2, 1], 5)), SORTED, "follows the order of the rows"),
    ],
)
def test_columns_that_follow_the_rows(x, labels, words):
    lines = warnings_of(x, labels)
    assert len(lines) == 1 and words in lines[0] and "modality 'a'" in lines[0], lines


@pytest.mark.parametrize(
    ("x", "labels"),
    [
        (noise(), SORTED),
        (with_column(10 * MIXED + 5), MIXED),  # a good feature in rows of any order
        (with_column(np.arange(COUNT) == COUNT - 1), SORTED),  # one sample with a mutation
        (with_column(np.repeat([1, 2, 5, 6, 8, 9], 5)), MIXED),  # rises with the rows, which are in no order of classes
        (with_column(np.ones(COUNT)), SORTED),
        (with_column(np.where(np.arange(COUNT) == 3, np.nan, np.arange(COUNT))), MIXED),
        (with_column(SORTED + np.linspace(0, 1.5, COUNT)[::-1]), SORTED),
    ],
)
def test_columns_that_are_measurements(x, labels):
    assert warnings_of(x, labels) == []


def test_many_columns_are_counted():
    lines = warnings_of(np.outer(np.arange(COUNT), np.arange(2, 11)).astype(float), MIXED)
    assert len(lines) == 6 and lines[-1].endswith("4 more columns of this kind")


@pytest.mark.parametrize("name", ["Unnamed: 0", "index", "level_0"])
def test_columns_that_are_called_as_pandas_calls_row_numbers(name):
    frame = pd.DataFrame(noise(2)[:6], columns=[name, "g"])
    (line,) = data_warnings.of_dataset(arrays.from_arrays({"a": frame}, [0, 1] * 3))
    assert f"column 1 ({name}) is what pandas or R calls a column of row numbers" in line


def test_whole_numbers_are_no_ids_that_two_splits_share():
    a, b = (pd.DataFrame(noise(4, seed)[:6], index=range(1, 7)) for seed in (0, 1))
    dataset = arrays.from_arrays({"a": a}, [0, 1] * 3, test=({"a": b}, [0, 1] * 3))
    assert dataset.train.ids.tolist() == [*"123456"] and data_warnings.of_dataset(dataset) == []


def test_few_rows_say_nothing():
    few = {"a": np.arange(8.0).reshape(8, 1), "b": noise(2)[:8]}
    assert data_warnings.of_dataset(arrays.from_arrays(few, [0, 1] * 4)) == []


def part(rows) -> tuple[dict[str, np.ndarray], np.ndarray]:
    return {"a": noise()[rows], "b": noise(2, 9)[rows]}, MIXED[rows]


@pytest.mark.parametrize(
    ("held_out", "words"),
    [
        ({"test": part(np.arange(20, 30))}, "10 pairs of samples across train and test are equal in every value"),
        (
            {"validation": part(np.arange(28, 30))},
            "(train row 29 = validation row 1; 2 of the 2 samples of validation)",
        ),
    ],
)
def test_samples_in_two_splits(held_out, words):
    lines = data_warnings.of_dataset(arrays.from_arrays(*part(np.arange(30)), **held_out))
    assert len(lines) == 1 and words in lines[0]


def test_samples_that_share_one_modality_only_are_different():
    views, labels = part(np.arange(10))
    other = {"a": views["a"], "b": noise(2, 5)[:10]}
    assert data_warnings.of_dataset(arrays.from_arrays(views, labels, test=(other, labels))) == []


def test_zero_and_missing_values_are_compared_as_what_they_are():
    a = np.array([[0.0, np.nan], [1.0, 2.0], [3.0, 4.0]])
    b = np.array([[-0.0, -np.nan], [9.0, 9.0]])
    lines = data_warnings.across_splits(arrays.from_arrays({"a": a}, [0, 1, 0], test=({"a": b}, [0, 1])))
    assert len(lines) == 1 and "1 pairs" in lines[0] and "train row 1 = test row 1" in lines[0]


def test_ids_in_two_splits():
    ids = [f"P{n}" for n in range(10)]
    a = pd.DataFrame(noise()[:10], index=ids)
    b = pd.DataFrame(noise(4, 3)[:10], index=[*ids[7:], *(f"Q{n}" for n in range(7))])
    lines = data_warnings.of_dataset(arrays.from_arrays({"a": a}, MIXED[:10], test=({"a": b}, MIXED[:10])))
    assert lines == ["arrays: of its ids 3 stand in train and in test (train row 8 = test row 1)"]
    assert not any("P7" in line for line in lines)  # reports go to MLflow, ids do not


def texts(values, labels, split: str):
    return build_split({"text": MediaColumn.of("text", values)}, np.array(labels), split)


def test_texts_in_two_splits():
    train, test = texts(["one", "two", "three"], [0, 1, 0], "train"), texts(["four", "two"], [0, 1], "test")
    dataset = Dataset("t", ("x", "y"), {"text": ("text",)}, train, test=test)
    (line,) = data_warnings.of_dataset(dataset)
    assert "1 pairs of samples across train and test" in line and "train row 2 = test row 2" in line


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["Red", "red", "blue"] * 10, "the classes 'Red' (10 samples) and 'red' (10 samples) differ only in case"),
        (["Lum A", "Lum  A", "lum a"] * 10, "'Lum  A' (10 samples) and 'Lum A' (10 samples) and 'lum a' (10 samples)"),
        ([" a", "a", "b"] * 10, "label ' a', with blanks around it, stands in 10 rows and is read as 'a'"),
        (["stra\u00dfe", "STRASSE", "b"] * 10, "differ only in case"),
    ],
)
def test_classes_that_are_alike(labels, words):
    dataset = arrays.from_arrays({"a": noise(), "b": noise(2, 9)}, labels)
    lines = [*dataset.warnings, *data_warnings.of_dataset(dataset)]
    assert any(words in line for line in lines), lines


def test_samples_on_both_sides_of_a_fold():
    x, y = noise(), noise(2, 9)
    x[15:], y[15:] = x[:15], y[:15]
    given = ({"a": x, "b": y}, MIXED[np.arange(COUNT) % 15])
    for kind in ("kfold", "holdout"):
        run = load({"data": {"name": "arrays"}}, overrides={"validation.kind": kind})
        prepared, faults = check_against_data(run, data=given)
        assert not faults
        (line,) = prepared.dataset.warnings
        assert "validation samples equal a training sample of their fold in every value" in line
        assert "(row " in line


def test_groups_keep_equal_samples_on_one_side():
    x, y = noise(), noise(2, 9)
    x[15:], y[15:] = x[:15], y[:15]
    labels = MIXED[np.arange(COUNT) % 15]
    dataset = arrays.from_arrays({"a": x, "b": y}, labels, groups=np.arange(COUNT) % 15)
    run = load({"data": {"name": "arrays"}}, overrides={"validation.kind": "kfold", "validation.folds": 3})
    prepared, faults = check_against_data(run, data=dataset)
    assert not faults and prepared.dataset.warnings == ()


def test_groups_in_two_splits():
    labels = MIXED[:10]
    whole = arrays.from_arrays({"a": noise()[:10]}, labels, groups=list("aabbccddee"))
    other = dataclasses.replace(
        whole.train.take([0, 1, 2]), inputs={"a": noise(4, 3)[:3]}, ids=np.array(["x", "y", "z"])
    )
    lines = data_warnings.across_splits(dataclasses.replace(whole, test=other))
    assert lines == ["arrays: of its groups 2 stand in train and in test (train row 1 = test row 1)"]


def test_groups_on_both_sides_of_a_fold():
    from m3col.data.splits import Fold

    samples = arrays.from_arrays({"a": noise()}, MIXED, groups=np.arange(COUNT) // 2).train
    fold = Fold(train=np.arange(1, COUNT), validation=np.array([0]))
    (line,) = data_warnings.across_folds("t", samples, [fold])
    assert line == "t: 1 groups stand on both sides of a fold"


def test_equal_rows_with_a_slow_twin():
    rng = np.random.default_rng(4)
    a, b = (rng.integers(0, 2, size=(count, 3)).astype(float) for count in (20, 9))
    first, second = (build_split({"x": x}, np.zeros(len(x), np.int64), name) for x, name in ((a, "train"), (b, "test")))
    twin = [(i, j) for j in range(len(b)) for i in range(len(a)) if (a[i] == b[j]).all()]
    assert sorted(data_warnings.equal_rows(first, second, same=False)) == sorted(twin)
    inside = [(i, j) for j in range(len(a)) for i in range(j) if (a[i] == a[j]).all()]
    assert sorted(data_warnings.equal_rows(first, first, same=True)) == sorted(inside)
