"""Row alignment: by a pandas index, by position if there is none, refused if ids differ."""

import numpy as np
import pandas as pd
import pytest

from m3col.data import arrays, row_alignment
from m3col.data.checks import dataset_values
from m3col.errors import InputError

IDS = [f"P{n}" for n in range(6)]
LABELS = [0, 1, 0, 1, 0, 1]


def frame(columns: int, name: str, ids=IDS) -> pd.DataFrame:
    values = np.arange(6 * columns, dtype=float).reshape(6, columns) * 1.5
    return pd.DataFrame(values, index=ids, columns=[f"{name}{n}" for n in range(columns)])


A, B, L = frame(3, "a"), frame(2, "b"), pd.Series(LABELS, index=IDS)
ORDERED = arrays.from_arrays({"a": A, "b": B}, L)


def shuffled(values):
    return values.sample(frac=1, random_state=3)


@pytest.mark.parametrize(
    ("modalities", "labels", "more"),
    [
        ({"a": A, "b": B}, shuffled(L), {}),
        ({"a": A, "b": shuffled(B)}, L, {}),
        ({"a": A, "b": shuffled(B)}, shuffled(L).to_frame("y"), {}),
        ({"a": A, "b": B.iloc[::-1]}, L, {"groups": shuffled(pd.Series(list("uvuvuv"), index=IDS))}),
        ({"a": A, "b": B.iloc[::-1]}, L.to_numpy(), {}),
        ({"a": A, "b": B.to_numpy()}, shuffled(L), {}),
        ({"a": A, "b": B.to_numpy()}, list(LABELS), {"ids": shuffled(pd.Series(IDS, index=IDS))}),
    ],
)
def test_every_part_gets_the_order_of_the_first(modalities, labels, more):
    dataset = arrays.from_arrays(modalities, labels, **more)
    assert dataset.train.ids.tolist() == IDS
    assert dataset.train.labels.tolist() == LABELS
    for name in ("a", "b"):
        np.testing.assert_array_equal(dataset.train.inputs[name], ORDERED.train.inputs[name])
    if "groups" in more:
        assert dataset.train.groups.tolist() == list("uvuvuv")


def test_numbers_as_ids_are_aligned_with_the_default_index():
    default = frame(2, "b", ids=range(6))
    other = frame(3, "a", ids=range(6)).sample(frac=1, random_state=1)
    dataset = arrays.from_arrays({"b": default, "a": other}, LABELS)
    # `other` has an index of its own, so that its order leads; the default index of `b` follows it.
    assert dataset.train.ids.tolist() == [str(n) for n in other.index]
    np.testing.assert_array_equal(dataset.train.inputs["b"], default.loc[other.index].to_numpy())


def test_tables_with_pandas_own_index_are_taken_by_position():
    dataset = arrays.from_arrays({"a": frame(3, "a", range(6)), "b": frame(2, "b", range(6))}, pd.Series(LABELS))
    assert dataset.train.ids.tolist() == [f"train-{n}" for n in range(6)]


def test_several_levels_and_dates_are_ids_as_well():
    for ids in (pd.MultiIndex.from_product([["x", "y"], [1, 2, 3]]), pd.date_range("2020-01-01", periods=6)):
        dataset = arrays.from_arrays({"a": frame(3, "a", ids), "b": shuffled(frame(2, "b", ids))}, LABELS)
        np.testing.assert_array_equal(dataset.train.inputs["b"], B.to_numpy())


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (B.rename(index={"P0": "Q0"}), ["only in modality 'a': 'P0'", "only in modality 'b': 'Q0'"]),
        (B.iloc[:4], ["only in modality 'a': 'P4', 'P5'"]),
        (pd.concat([B, B.rename(index=lambda name: f"{name}x")]), ["'P0x'", "(6 in all)"]),
        (B.reset_index(drop=True), ["pandas' own index", "give it the index of modality 'a'"]),
        (B.set_axis([*IDS[:5], "P0"]), ["modality 'b': every id must be unique", "'P0' (2 times)"]),
        (B.set_axis([*IDS[:5], None]), ["modality 'b': row 6 has no id"]),
        (B.set_axis(range(10, 16)), ["only in modality 'b': 10, 11"]),
    ],
)
def test_ids_that_do_not_fit_are_refused(other, words):
    with pytest.raises(InputError) as caught:
        arrays.from_arrays({"a": A, "b": other}, LABELS)
    assert all(word in str(caught.value) for word in words), caught.value.faults


def test_ids_that_differ_in_their_type_are_told():
    with pytest.raises(InputError, match="texts on one side and numbers on the other"):
        arrays.from_arrays({"a": frame(3, "a", [*"543210"]), "b": frame(2, "b", [5, 4, 3, 2, 1, 0])}, LABELS)


def test_repeated_ids_are_refused_in_training_even_in_one_order():
    ids = [*IDS[:5], "P0"]
    with pytest.raises(InputError, match=r"every id must be unique.*reset_index"):
        arrays.from_arrays({"a": frame(3, "a", ids), "b": frame(2, "b", ids)}, LABELS)


def test_a_held_out_split_is_aligned_as_well_and_every_fault_names_its_split():
    held_out = {"a": A, "b": shuffled(B)}
    dataset = arrays.from_arrays({"a": A, "b": B}, L, test=(held_out, shuffled(L)))
    np.testing.assert_array_equal(dataset.test.inputs["b"], B.to_numpy())
    assert dataset.test.labels.tolist() == LABELS
    with pytest.raises(InputError, match="test: modality 'a' and labels have rows of different ids"):
        arrays.from_arrays({"a": A, "b": B}, L, test=({"a": A, "b": B}, L.rename(index={"P1": "Q"})))


@pytest.mark.parametrize("what", ["ids", "groups"])
def test_a_missing_group_or_id_is_a_fault(what):
    with pytest.raises(InputError, match=f"{what}: row 2 is missing"):
        arrays.from_arrays({"a": A, "b": B}, L, **{what: ["u", None, "v", "w", "x", "y"]})


def test_align_with_a_slow_twin():
    rng = np.random.default_rng(0)
    for _ in range(50):
        count = int(rng.integers(1, 9))
        names = [str(n) for n in rng.permutation(20)[:count]]
        parts = {key: pd.Index(rng.permutation(names)) for key in "abc"}
        faults: list[str] = []
        alignment = row_alignment.align(parts, "", faults, unique=True)
        assert not faults
        for key, index in parts.items():
            order = alignment.orders.get(key, np.arange(count))
            assert [index[at] for at in order] == list(parts["a"])


def test_a_range_that_does_not_begin_at_0_is_an_index_of_its_own():
    # As of a table from which rows were cut: its ids are 3 to 8, not positions.
    late, early = frame(3, "a", range(3, 9)), frame(2, "b", range(6))
    with pytest.raises(InputError, match="rows of different ids"):
        arrays.from_arrays({"a": late, "b": early}, LABELS)
    dataset = arrays.from_arrays({"a": late, "b": shuffled(frame(2, "b", range(3, 9)))}, LABELS)
    assert dataset.train.ids.tolist() == [str(n) for n in range(3, 9)]
    np.testing.assert_array_equal(dataset.train.inputs["b"], B.to_numpy())


def test_pandas_own_index_beside_the_same_numbers_in_another_order_is_told():
    ids = [3, 0, 5, 1, 4, 2]
    dataset = arrays.from_arrays({"a": frame(3, "a", ids), "b": frame(2, "b", range(6))}, LABELS)
    np.testing.assert_array_equal(dataset.train.inputs["b"], frame(2, "b", range(6)).loc[ids].to_numpy())
    (line,) = dataset.warnings
    assert "modality 'b' has pandas' own index" in line and "if the rows of modality 'b' are in the order of" in line


class OfAnotherLibrary:
    """A table or column of another library with a method `to_pandas`, with or without an explicit index."""

    def __init__(self, values):
        self.values = values

    def to_pandas(self):
        return self.values


def test_tables_of_other_libraries_are_treated_alike_everywhere():
    # With ids they are aligned, as tables and as labels ...
    given = {"a": A, "b": OfAnotherLibrary(shuffled(B))}
    dataset = arrays.from_arrays(given, OfAnotherLibrary(shuffled(L)))
    np.testing.assert_array_equal(dataset.train.inputs["b"], B.to_numpy())
    assert dataset.train.labels.tolist() == LABELS
    # ... and the index that pandas makes on the way is none.
    given = {"a": A, "b": OfAnotherLibrary(B.reset_index(drop=True))}
    dataset = arrays.from_arrays(given, OfAnotherLibrary(pd.Series(LABELS)))
    np.testing.assert_array_equal(dataset.train.inputs["b"], B.to_numpy())
    assert dataset.warnings == ()


def test_a_library_that_is_missing_is_told():
    class Broken:
        def to_pandas(self):
            raise ImportError("pyarrow is required")

    for given in (({"a": Broken(), "b": B}, L), ({"a": A, "b": B}, Broken())):
        with pytest.raises(InputError, match="pyarrow is required"):
            arrays.from_arrays(*given)


def test_faults_name_the_row_of_the_caller():
    labels = shuffled(L.astype(object))
    labels.iloc[4] = None
    with pytest.raises(InputError, match="train labels: row 5: the label is missing"):
        arrays.from_arrays({"a": A, "b": B}, labels)
    other = shuffled(B)
    other.iloc[0, 1] = 1e40
    (line,) = dataset_values.value_faults(arrays.from_arrays({"a": A, "b": other}, L))
    assert f"(id {other.index[0]!r}), column 2 (b1): 1e+40" in line


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"classes": {0: "u", 1: "v"}}, "classes: must be a list of names"),
        ({"classes": {"u", "v"}}, "classes: must be a list of names"),
        ({"classes": "uv"}, "classes: must be a list of names"),
        ({"classes": [0, 1]}, "classes: must be a list of names"),
        ({"classes": ["1", "0"]}, "which are not their positions 0..C-1; rename the classes"),
        ({"classes": ["1", "2"]}, "which are not their positions"),
        ({"test": {"a": A, "b": B}}, "test: must be a pair (modalities, labels), but is a dict"),
        ({"validation": ({"a": A, "b": B}, L, L)}, "validation: must be a pair"),
    ],
)
def test_arguments_that_could_mean_something_else(more, words):
    with pytest.raises(InputError) as caught:
        arrays.from_arrays({"a": A, "b": B}, L, **more)
    assert words in str(caught.value)


def test_labels_may_be_tensors_of_one_number():
    import torch

    assert arrays.from_arrays({"a": A.to_numpy()}, [torch.tensor(n) for n in LABELS]).train.labels.tolist() == LABELS
