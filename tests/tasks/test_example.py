"""The example of the documentation learns what its data has to teach."""

import importlib
import sys
from pathlib import Path

import pytest

EXAMPLE = "several_labels_and_numbers"

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_example_trains_both_tasks(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.syspath_prepend(EXAMPLES)
    labels, numbers = importlib.import_module(EXAMPLE).main(str(tmp_path))
    sys.modules.pop(EXAMPLE)
    printed = capsys.readouterr().out
    assert "diabetes" in printed and "p(gout)" in printed and "vote(gait) age" in printed
    assert labels.metrics["test/macro_f1"] > 0.6 and numbers.metrics["test/r2"] > 0.8
    assert numbers.metrics["test/mae"] < 4  # years
