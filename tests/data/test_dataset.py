"""Tests of splits and data sets in memory."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from m3col.data import arrays, dataset
from m3col.data import dataset as data_dataset
from m3col.errors import InputError


@pytest.fixture
def toy() -> data_dataset.Dataset:
    rng = np.random.default_rng(0)
    inputs = {"a": rng.normal(size=(8, 3)), "b": rng.normal(size=(8, 2))}
    held_out = {"a": rng.normal(size=(4, 3)), "b": rng.normal(size=(4, 2))}
    return arrays.from_arrays(inputs, [0, 1] * 4, test=(held_out, [0, 1, 1, 0]))


def test_take_keeps_every_part_aligned(toy):
    part = toy.train.take([5, 0])
    assert part.ids.tolist() == ["train-5", "train-0"]
    assert part.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(part.inputs["b"], toy.train.inputs["b"][[5, 0]])
    assert part.present["a"].tolist() == [True, True]


def test_concat_appends_and_drops_labels_that_one_side_lacks(toy):
    both = dataset.concat(toy.train, toy.test)
    assert len(both) == 12 and both.labels.tolist() == [0, 1] * 4 + [0, 1, 1, 0]
    assert dataset.concat(toy.train, toy.test.without_labels()).labels is None


def test_select_takes_names_and_numbers_in_the_order_of_the_data_set(toy):
    assert toy.select([2, "a"]).modalities == ("a", "b")
    assert list(toy.select([2]).test.inputs) == ["b"]


@pytest.mark.parametrize(
    ("choice", "match"),
    [
        ([], "at least one"),
        (["a", 1], "named twice"),
        ([3], r"number 3 is not in 1\.\.2; nearest 2 \(b\)"),
        ([0], "nearest 1"),
        ([True], "True is unknown"),
        ("a", "must be a list"),
    ],
)
def test_select_refuses(toy, choice, match):
    with pytest.raises(InputError, match=match):
        toy.select(choice)


def test_select_names_the_nearest_modality():
    dataset = arrays.from_arrays({"mRNA": np.eye(4), "protein": np.eye(4)}, [0, 1, 0, 1])
    with pytest.raises(InputError, match="'protien' is unknown; did you mean 'protein'"):
        dataset.select(["protien"])


def test_digests_follow_the_content_of_each_split_alone(toy):
    before = toy.digests()
    assert before.keys() == {"train", "test"} and toy.without_test().digests().keys() == {"train"}
    changed = {name: x.copy() for name, x in toy.test.inputs.items()}
    changed["b"][0, 0] += 1e-9
    for replacement in (
        dataclasses.replace(toy.test, inputs=changed),
        toy.test.without_labels(),
        dataclasses.replace(toy.test, ids=np.array(["x"] * 4)),
        dataclasses.replace(toy.test, labels=1 - toy.test.labels),
    ):
        after = dataclasses.replace(toy, test=replacement).digests()
        assert after["train"] == before["train"] and after["test"] != before["test"]


def test_digest_is_pinned():
    dataset = arrays.from_arrays({"a": np.array([[1.0, np.nan], [0.5, 2.0]])}, [0, 1])
    assert dataset.digests()["train"].startswith("e35a953da9f3")


def test_a_split_refuses_parts_of_different_length(toy):
    with pytest.raises(ValueError, match="same number of samples"):
        dataclasses.replace(toy.train, labels=np.array([0, 1]))


def test_frames_give_feature_names_and_ids():
    frame = pd.DataFrame({"g1": [1, 2, 3, 4], "g2": [0.5, None, 1, 2]}, index=["p1", "p2", "p3", "p4"])
    dataset = arrays.from_arrays({"genes": frame}, [0, 1, 0, 1])
    assert dataset.features == {"genes": ("g1", "g2")}
    assert dataset.train.ids.tolist() == ["p1", "p2", "p3", "p4"]
    assert np.isnan(dataset.train.inputs["genes"][1, 1])


def test_arrays_in_memory_are_copied():
    x = np.eye(4)
    dataset = arrays.from_arrays({"a": x}, [0, 1, 0, 1])
    x[:] = 7
    assert dataset.train.inputs["a"].max() == 1


def test_a_cell_that_is_no_number_is_named():
    for frame in (pd.DataFrame({"t": ["1", "w", "2", "3"]}), pd.DataFrame({"t": list("wxyz"), "u": range(4)})):
        with pytest.raises(InputError, match=r"column 't' must be a number, but is '\w'"):
            arrays.from_arrays({"d": frame}, [0, 1, 0, 1])


def test_every_fault_of_arrays_at_once():
    with pytest.raises(InputError) as caught:
        arrays.from_arrays(
            {
                "a": np.zeros((4, 2)),
                "b": np.zeros(4),
                "c": np.zeros((3, 2)),
                "d": pd.DataFrame({"t": list("wxyz")}),
            },
            [0, 1.5, 1, np.nan],
            test=({"a": np.zeros((0, 2))}, []),
        )
    text = str(caught.value)
    for part in (
        "'b': must have shape [samples",
        "c 3",
        "'d': is a table with one column of texts; hand over the column: frame['t']",
        "row 2: a label",
        "row 4: the label is missing",
    ):
        assert part in text
    assert "test: there is no sample" in text


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"test": ({"a": np.zeros((2, 3))}, [0, 1])}, "has 3 columns, but training has 2"),
        ({"test": ({"b": np.zeros((2, 2))}, [0, 1])}, r"modalities must be \['a'\]"),
        ({"test": ({"a": np.zeros((2, 2))}, [0, 2])}, r"row 2: label 2 never occurs in training"),
        ({"test": ({"a": pd.DataFrame({"u": [1], "a_1": [1]})}, [0])}, "column 1 is 'u', but 'a_0'"),
        ({"validation": ({"a": np.zeros((2, 2))}, None)}, "validation: labels are needed"),
        ({"ids": ["x", "x", "y", "z"]}, "'x' occurs 2 times"),
        ({"groups": ["x"]}, "same number of rows.*groups 1"),
        ({"classes": ["only"]}, "labels must be 0..0"),
    ],
)
def test_refuses_parts_that_do_not_fit(arguments, match):
    with pytest.raises(InputError, match=match):
        arrays.from_arrays({"a": np.zeros((4, 2))}, [0, 1, 0, 1], **arguments)


@pytest.mark.parametrize(
    ("labels", "match"),
    [([0, 0, 0], "at least two classes"), ([1, 2, 1], "subtract 1"), ([0, 2, 3], "of 0..3 1 never occurs")],
)
def test_refuses_labels_that_are_not_0_to_c(labels, match):
    with pytest.raises(InputError, match=match):
        arrays.from_arrays({"a": np.zeros((3, 2))}, labels)
