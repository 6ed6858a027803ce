"""Numeric tables in memory, and values that a model cannot use."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from m3col.data import arrays, numeric_tables
from m3col.data.checks import dataset_values, number_limits
from m3col.data.formats.missing_marks import is_missing
from m3col.errors import InputError

PLAIN = np.array([[1.0, 0.0], [0.0, 2.5], [3.0, 0.0]])


class OfAnotherLibrary:
    """A table with a method `to_pandas`, like those of polars and pyarrow."""

    def to_pandas(self) -> pd.DataFrame:
        return pd.DataFrame(PLAIN, columns=["x", "y"])


@pytest.mark.parametrize(
    "given",
    [
        PLAIN,
        PLAIN.tolist(),
        torch.tensor(PLAIN),
        torch.tensor(PLAIN, requires_grad=True),
        torch.tensor(PLAIN).to_sparse(),
        torch.tensor(PLAIN, dtype=torch.bfloat16),
        torch.tensor(PLAIN.T.copy()).T,
        scipy.sparse.csr_matrix(PLAIN),
        pd.DataFrame(PLAIN).astype("Float64"),
        pd.DataFrame(PLAIN).astype(pd.SparseDtype("float", 0.0)),
        pd.DataFrame(PLAIN).astype(object),
        OfAnotherLibrary(),
        np.ma.masked_array(PLAIN, mask=False),
    ],
    ids=lambda given: type(given).__name__,
)
def test_the_same_numbers_in_many_forms(given):
    np.testing.assert_array_equal(numeric_tables.read(given, "here").values, PLAIN)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (pd.DataFrame({"x": pd.array([1, None, 3], dtype="Int64")}), [1, np.nan, 3]),
        (pd.DataFrame({"x": pd.array([True, None, False], dtype="boolean")}), [1, np.nan, 0]),
        (pd.DataFrame({"x": [1, None, "NA"]}, dtype=object), [1, np.nan, np.nan]),
        (np.ma.masked_array([[1], [2], [3]], mask=[[0], [1], [0]]), [1, np.nan, 3]),
        ([[1], [None], [float("nan")]], [1, np.nan, np.nan]),
    ],
)
def test_what_is_missing_is_nan(given, expected):
    np.testing.assert_array_equal(numeric_tables.read(given, "here").values[:, 0], expected)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (pd.DataFrame({"g": [1.0, 2], "sex": ["m", "f"]}), "here: row 1, column 'sex' must be a number, but is 'm'"),
        (pd.DataFrame({"g": ["1.5", "2"]}), "turn text into numbers with pandas.to_numeric"),
        (pd.DataFrame({"d": pd.date_range("2020-01-01", periods=2)}), "column 'd' holds datetime64"),
        (pd.DataFrame({"c": pd.Categorical(["a", "b"])}), "column 'c' holds category, such as 'a'"),
        (pd.DataFrame({"z": [1 + 2j, 3]}), "column 'z' holds complex128"),
        (torch.tensor([[1 + 2j]]), "column 1 holds complex64"),
        (torch.empty(2, 2, device="meta"), "cannot be read"),
        ("table.csv", "must be a table of numbers, but is 'table.csv'; read the file first"),
        (np.zeros(3), "must have shape [samples, features], but has [3]"),
        (np.zeros((3, 0)), "must have shape [samples, features], but has [3, 0]"),
        ([[1, 2], [3]], "must be a table of numbers"),
        (pd.DataFrame({"x": ["1,5", "2,5"]}), "it has a decimal comma"),
        (None, "must have shape [samples, features], but has []"),
    ],
)
def test_what_is_no_table_is_refused_by_place(given, words):
    with pytest.raises(InputError) as caught:
        numeric_tables.read(given, "here")
    assert words in str(caught.value) and all(line.startswith("here: ") for line in caught.value.faults)


def test_many_columns_of_text_are_counted():
    with pytest.raises(InputError) as caught:
        numeric_tables.read(pd.DataFrame({f"c{n}": ["x"] for n in range(9)}), "here")
    assert len(caught.value.faults) == 6 and caught.value.faults[-1] == "here: 4 more columns do not hold numbers"


@pytest.mark.parametrize(
    ("value", "precision", "words"),
    [
        (1e40, "float32", "1e+40 does not fit into float32 (at most 3.4e+38)"),
        (-1e39, "bfloat16", "-1e+39 does not fit into float32"),
        (np.inf, "float32", "inf is infinite; leave it empty (or NaN) if it is missing"),
        (-np.inf, "float64", "-inf is infinite"),
        (1e40, "float64", ""),
        (np.nan, "float32", ""),
        (3.4e38, "float32", ""),
        (1e-300, "float32", ""),
    ],
)
def test_values_that_do_not_fit(value, precision, words):
    x = PLAIN.copy()
    x[2, 1] = value
    lines = number_limits.faults(x, "here", ["a", "b"], precision=precision)
    assert [line.startswith("here: row 3, column 2 (b): ") for line in lines] == [True] * bool(words)
    assert words in "".join(lines)


def test_values_that_do_not_fit_are_counted():
    lines = number_limits.faults(np.full((3, 3), np.inf), "f.csv", None)
    assert len(lines) == 6 and lines[0].startswith("f.csv: row 1, column 1: inf")
    assert lines[-1] == "f.csv: 4 more values are infinite or too large"


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_each_split_is_looked_at_before_and_after_preprocessing(split):
    def part():
        return {"a": np.linspace(0, 1, 8).reshape(4, 2).copy()}

    parts = {name: part() for name in ("train", "validation", "test")}
    parts[split]["a"][1, 1] = 1e39
    labels = [0, 1, 0, 1]
    dataset = arrays.from_arrays(
        parts["train"], labels, validation=(parts["validation"], labels), test=(parts["test"], labels)
    )
    (line,) = dataset_values.value_faults(dataset)
    assert f"modality 'a', {split}: row 2, column 2 (a_1): 1e+39" in line
    assert dataset_values.faults(dataset, ["minmax"]) == []  # not reported twice
    assert (
        dataset_values.value_faults(dataset, "float64")
        == dataset_values.faults(dataset, ["minmax"], precision="float64")
        == []
    )
    if split != "train":
        # In range as it is, but not once it is divided by the range of the training part.
        parts[split]["a"][1, 1] = 1e10
        parts["train"]["a"] *= 1e-35
        scaled = arrays.from_arrays(
            parts["train"], labels, validation=(parts["validation"], labels), test=(parts["test"], labels)
        )
        (line,) = [line for line in dataset_values.faults(scaled, ["minmax"]) if "row 2" in line]
        assert f"{split}, after data.preprocess: row 2, column 2" in line


@pytest.mark.parametrize("value", ["", " ", "NA", " NA ", "\tnan\n", "#N/A", None, float("nan"), pd.NA, pd.NaT, np.nan])
def test_marks_of_missing_values(value):
    assert is_missing(value)


@pytest.mark.parametrize("value", ["N", "NAN1", "nano", "none at all", "0", "-", 0, 0.0, False, [], [None], "na"])
def test_what_is_no_mark_of_a_missing_value(value):
    assert not is_missing(value)


@pytest.mark.parametrize(("precision", "kind"), [("float32", np.float32), ("float64", np.float64)])
def test_the_largest_number_of_a_type_fits_into_it(precision, kind):
    largest = float(np.finfo(kind).max)
    assert number_limits.limit(precision) == largest
    assert number_limits.faults(np.array([[largest, -largest]]), "here", None, precision=precision) == []
    assert number_limits.faults(np.array([[np.nextafter(largest, np.inf)]]), "here", None, precision=precision) != []
