"""The examples of docs/data_formats.md behave as the page says."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from m3col.data import label_tables, labels
from m3col.data.formats import missing_marks, table_csv

PAGE = (Path(__file__).parents[2] / "docs" / "data_formats.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```([\w-]+)\n(.*?)```\n((?:>[^\n]*\n)*)", PAGE, re.DOTALL)
X = [[0.5, -1.25, 3], [2, 0.125, 1e6], [-7.5, 4, 2.5]]


def blocks(kind: str) -> list[tuple[str, list[str]]]:
    blocks = [
        (text, [line[2:] for line in quoted.splitlines() if line != ">"])
        for name, text, quoted in BLOCKS
        if name == kind
    ]
    assert blocks, kind
    return blocks


def test_the_page_has_examples_of_each_kind():
    counts = {kind: len(blocks(kind)) for kind in ("read", "refused", "labels", "labels-refused", "python")}
    assert counts == {"read": 4, "refused": 11, "labels": 2, "labels-refused": 1, "python": 1}


@pytest.mark.parametrize("number", range(4))
def test_what_is_read(tmp_path, number):
    path, faults = tmp_path / "1_tr.csv", list[str]()
    path.write_text(blocks("read")[number][0], encoding="utf-8")
    np.testing.assert_array_equal(table_csv.read_matrix(path, faults), X)
    assert faults == []


@pytest.mark.parametrize("number", range(11))
def test_what_is_refused(tmp_path, number):
    text, messages = blocks("refused")[number]
    path, faults = tmp_path / "1_tr.csv", list[str]()
    path.write_text(text, encoding="utf-8")
    assert table_csv.read_matrix(path, faults) is None
    assert len(messages) == len(faults) and all(
        fault.removeprefix(f"{path}: ").startswith(message) for fault, message in zip(faults, messages, strict=True)
    ), faults


def test_labels(tmp_path):
    path = tmp_path / "labels_tr.csv"
    for kind in ("labels", "labels-refused"):
        for text, messages in blocks(kind):
            path.write_text(text, encoding="utf-8")
            faults: list[str] = []
            parsed = labels.parse(table_csv.read_labels(path, faults) or [], str(path), faults)
            assert (parsed is None) == bool(messages)
            assert [fault.removeprefix(f"{path}: ") for fault in faults] == messages


def test_tables_of_labels(tmp_path):
    path = tmp_path / "labels_tr.csv"
    for kind, count in (("label-table", 2), ("label-table-refused", 1)):
        assert len(blocks(kind)) == count
        for text, messages in blocks(kind):
            path.write_text(text, encoding="utf-8")
            faults: list[str] = []
            names, rows = table_csv.read_label_table(path, faults)
            table = pd.DataFrame(rows, columns=None if names is None else list(names))
            parsed = label_tables.read(table if names else rows, str(path), faults, form="binary", text_numbers=True)
            assert [fault.removeprefix(f"{path}: ") for fault in faults] == messages
            if not messages:
                assert parsed[0].values.tolist() == [[1, 0], [0, 1], [1, 1]]
                assert parsed[0].classes == (("action", "comedy") if names else ("label_0", "label_1"))


def test_the_marks_of_missing_values_are_those_of_the_code():
    part = PAGE.partition("one of these words:")[2].partition(". The same list")[0]
    named = set(re.findall(r"`([^`]+)`", part))
    assert named <= missing_marks.MARKS and len(named) >= 15
