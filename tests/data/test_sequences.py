"""Sequences in memory: the column, what is read from Python, and the faults of it."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import torch

from m3col.data.arrays import from_arrays
from m3col.data.checks import data_warnings
from m3col.data.columns import join, kind_of
from m3col.data.dataset import concat
from m3col.data.digests import feed
from m3col.data.sequences import values
from m3col.data.sequences.column import SequenceColumn
from m3col.errors import InputError
from tests.support.sequence_data import draw_sequences, sequence_dataset


def digest(column: SequenceColumn) -> str:
    sha = hashlib.sha256()
    feed(sha, "series", column)
    return sha.hexdigest()


def test_a_column_gives_back_its_sequences_after_taking_and_joining():
    sequences = draw_sequences(6)
    column = SequenceColumn.of(sequences)
    assert kind_of(column) == "sequence" and len(column) == 6 and column.width == 3
    picked = column[np.array([4, 1, 4])]
    assert picked.table is column.table  # shared, not copied
    other = SequenceColumn.of(draw_sequences(2, seed=1))
    joined = join(join(picked, column[:2]), other)
    wanted = [sequences[row] for row in (4, 1, 4, 0, 1)] + [other.sequence(0), other.sequence(1)]
    assert isinstance(joined, SequenceColumn) and len(joined) == len(wanted)
    for row, sequence in enumerate(wanted):
        assert np.array_equal(joined.sequence(row), sequence)
    assert np.array_equal(joined.steps, np.concatenate(wanted))
    assert joined.offsets.tolist() == [0, *np.cumsum([len(sequence) for sequence in wanted])]
    with pytest.raises(ValueError, match="one kind"):
        join(column, np.zeros((6, 3)))


@pytest.mark.parametrize("cut", ["end", "front"])
def test_truncation_keeps_the_first_or_the_last_steps(cut):
    sequences = draw_sequences(8)
    short = SequenceColumn.of(sequences).truncated(3, cut=cut)
    for row, sequence in enumerate(sequences):
        assert np.array_equal(short.sequence(row), sequence[:3] if cut == "end" else sequence[-3:])


@pytest.mark.parametrize("offsets", [[0, 2, 2, 3], [0, 2], [1, 3], [0, 3, 2, 3], [[0, 3]]])
def test_offsets_that_do_not_divide_the_table_are_refused(offsets):
    with pytest.raises(InputError, match="offsets must"):
        SequenceColumn.from_offsets(np.zeros((3, 2)), np.array(offsets))


def test_a_digest_depends_on_values_and_lengths_and_not_on_the_table_they_are_in():
    sequences = draw_sequences(5)
    column = SequenceColumn.of(sequences)
    assert digest(column[np.array([3, 0])]) == digest(SequenceColumn.of([sequences[3], sequences[0]]))
    moved = SequenceColumn.from_offsets(column.table, np.array([0, 1, len(column.table)]))
    assert digest(moved) != digest(SequenceColumn.from_offsets(column.table, np.array([0, 2, len(column.table)])))
    changed = [sequence.copy() for sequence in sequences]
    changed[2][0, 0] += 1
    assert digest(SequenceColumn.of(changed)) != digest(column)
    negative = np.array([[np.copysign(np.nan, -1)]], np.float32)
    assert digest(SequenceColumn.of([negative])) == digest(SequenceColumn.of([np.array([[np.nan]])]))


def test_all_forms_of_the_same_sequences_give_the_same_data_set():
    sequences = draw_sequences(6)
    labels, table = np.arange(6) % 2, np.arange(12.0).reshape(6, 2)
    frames = [pd.DataFrame(sequence, columns=["x", "y", "z"]) for sequence in sequences]
    forms = {
        "arrays": sequences,
        "tensors": [torch.tensor(sequence) for sequence in sequences],
        "lists": [sequence.tolist() for sequence in sequences],
        "column": SequenceColumn.of(sequences),
        "objects": pd.Series(sequences).to_numpy(),
        "frames": [frame[["z", "x", "y"]] if row else frame for row, frame in enumerate(frames)],
    }
    digests = {}
    for name, form in forms.items():
        dataset = from_arrays({"series": form, "table": table}, labels)
        assert dataset.kinds == {"series": "sequence", "table": "numeric"}
        digests[name] = dataset.train.digest()
        wanted = ("x", "y", "z") if name == "frames" else ("series_0", "series_1", "series_2")
        assert dataset.features["series"] == wanted
    assert len(set(digests.values())) == 1
    cube = np.stack([np.ones((4, 3)), np.zeros((4, 3))])
    assert from_arrays({"series": cube, "table": table[:2]}, [0, 1]).train.inputs["series"].lengths.tolist() == [4, 4]


def test_a_series_of_sequences_is_aligned_by_its_index():
    sequences = draw_sequences(4)
    series = pd.Series(sequences, index=list("dbca"))
    table = pd.DataFrame({"x": [1.0, 2, 3, 4]}, index=list("abcd"))
    dataset = from_arrays({"table": table, "series": series}, pd.Series([0, 1, 0, 1], index=list("abcd")))
    for row, at in enumerate((3, 1, 2, 0)):
        assert np.array_equal(dataset.train.inputs["series"].sequence(row), sequences[at])


def test_splits_with_sequences_are_taken_and_joined():
    dataset = sequence_dataset()
    both = concat(dataset.train, dataset.test)
    part = both.take([41, 3])
    assert np.array_equal(part.inputs["series"].sequence(0), dataset.test.inputs["series"].sequence(1))
    assert np.array_equal(part.inputs["series"].sequence(1), dataset.train.inputs["series"].sequence(3))


def test_every_fault_is_reported_at_once():
    series = draw_sequences(9)
    series[1] = np.zeros((0, 3))
    series[2] = np.zeros((2, 4))
    series[3] = np.full((2, 3), np.nan)
    series[4] = np.array([[1.0, np.inf, 2], [1e40, 0, 0]])
    series[5] = np.array([["a", "b", "c"]])
    series[6] = np.zeros(3)
    with pytest.raises(InputError) as caught:
        from_arrays({"series": series, "table": np.full((9, 1), "x")}, np.arange(9) % 2)
    lines = [line for line in caught.value.faults if "series" in line]
    text = "\n".join(lines)
    assert "train, modality 'series': sequence 2: has no steps; leave the sample out" in lines
    assert "train, modality 'series': sequence 3: has 4 features, but sequence 1 has 3" in lines
    assert "sequence 4: every value is missing; leave the sample out" in text
    assert "sequence 5: step 1, feature 2: inf is infinite" in text
    assert "sequence 5: step 2, feature 1: 1e+40 does not fit into float32 (at most 3.4e+38); scale the feature" in text
    assert "sequence 6: step 1, column 1 must be a number, but is 'a'" in text
    assert "sequence 7: must have shape" in text
    assert len(caught.value.faults) > len(lines)  # those of the table as well


def test_many_faults_of_one_rule_are_counted():
    with pytest.raises(InputError) as caught:
        values.read([np.full((1, 2), np.nan)] * 8 + [np.ones((1, 2))], "series")
    assert len(caught.value.faults) == 6 and caught.value.faults[-1] == "series: 3 more: no value"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([np.zeros(3), np.zeros(2)], "one feature is an array"),
        (np.zeros((2, 0, 3)), "must have shape"),
        (5, "is a int"),
        ("file.csv", "is 'file.csv'"),
        (pd.DataFrame({"x": [1]}), "must be a list of arrays"),
        ([pd.DataFrame({"x": [1.0]}), pd.DataFrame({"y": [1.0]})], "sequence 2: the feature 'x' is missing"),
        ([pd.DataFrame({"x": [1.0]}), pd.DataFrame({"x": [1.0], "y": [2.0]})], "has the feature 'y'"),
    ],
)
def test_other_values_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        values.read(given, "series")


def test_a_prediction_matches_features_by_name_and_refuses_another_number():
    frame = pd.DataFrame({"y": [1.0, 2], "x": [3.0, 4], "extra": [0.0, 0]})
    column = values.user_sequences([frame], ("x", "y"), where="series", may_miss=False)
    assert column.sequence(0).tolist() == [[3, 1], [4, 2]]
    for given in (np.zeros((1, 2, 3)), [np.zeros((2, 3))], SequenceColumn.of([np.zeros((2, 3))])):
        with pytest.raises(InputError, match="3"):
            values.user_sequences(given, ("x", "y"), where="series", may_miss=False)


def test_a_held_out_split_must_have_the_same_kind_and_features():
    labels, table = [0, 1, 0, 1], np.zeros((4, 3))
    series = draw_sequences(4)
    with pytest.raises(InputError, match="has numbers, but training has arrays"):
        from_arrays({"a": series, "b": table}, labels, test=({"a": table, "b": table}, labels))
    with pytest.raises(InputError, match="has 2 features, but training has 3"):
        narrow = [sequence[:, :2] for sequence in series]
        from_arrays({"a": series, "b": table}, labels, test=({"a": narrow, "b": table}, labels))


def test_equal_samples_in_two_splits_and_features_without_values_are_warned_of():
    series, table = draw_sequences(4), np.arange(8.0).reshape(4, 2)
    for sequence in series:
        sequence[:, 1] = np.nan
    dataset = from_arrays({"a": series, "b": table}, [0, 1, 0, 1], test=({"a": series[:1], "b": table[:1]}, [0]))
    warnings = "\n".join(data_warnings.of_dataset(dataset))
    assert "1 pairs of samples across train and test are equal in every value" in warnings
    assert "modality 'a': feature 2 (a_1) has no value at any step" in warnings
    other = from_arrays({"a": series, "b": table}, [0, 1, 0, 1], test=({"a": series[1:2], "b": table[:1]}, [0]))
    assert not data_warnings.across_splits(other)
