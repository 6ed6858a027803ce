"""The script that compares two checkouts sees every difference, and only differences."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "same_numbers.py"
SPEC = importlib.util.spec_from_file_location("same_numbers", PATH)
assert SPEC is not None and SPEC.loader is not None
same_numbers = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(same_numbers)

OLD = {"a": {"loss": "0x1.0p+0", "n": 3}, "b": "text"}


@pytest.mark.parametrize(
    ("new", "places"),
    [
        (OLD, []),
        ({**OLD, "b": "other"}, ["/b"]),
        ({**OLD, "a": {"loss": "0x1.0000000000001p+0", "n": 3}}, ["/a/loss"]),
        ({"a": OLD["a"]}, ["/b"]),
        ({**OLD, "c": 1}, ["/c"]),
        ({}, ["/a", "/b"]),
    ],
)
def test_differences_by_place(new, places):
    assert [line.partition(":")[0] for line in same_numbers.differences(OLD, new)] == places


def test_digests_and_exact_numbers_see_the_last_bit():
    x = np.array([0.1, 0.2])
    assert same_numbers.digest(x) == same_numbers.digest(x.copy())
    assert same_numbers.digest(x) != same_numbers.digest(np.nextafter(x, 1))
    assert same_numbers.digest(x) != same_numbers.digest(x.astype(np.float32))
    assert same_numbers.exact({"v": 0.1}) != same_numbers.exact({"v": np.nextafter(0.1, 1)})


def test_each_checkout_runs_its_own_code_wherever_the_script_is_started(tmp_path, monkeypatch):
    """Also where the current folder holds another one, in which Ray's workers would look first."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    started = []

    def run(command, *, cwd, env, **options):
        started.append((Path(cwd), env["PYTHONPATH"], Path(command[1]).is_absolute()))
        return subprocess.CompletedProcess(command, 0, stdout="{}\n", stderr="")

    monkeypatch.setenv("M3COL_DATA", str(tmp_path))  # the script sets it
    monkeypatch.chdir(tmp_path / "new")
    monkeypatch.setattr(same_numbers.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["same_numbers.py", "../old", ".", "--only", "rosmap"])
    assert same_numbers.main() == 0
    assert [(path.resolve().name, absolute) for path, _, absolute in started] == [("old", True), ("new", True)]
    assert all(str(path) == python_path for path, python_path, _ in started)
