"""The file of finished trainings of benchmarks/trifeatures.py: resumed with the same options alone."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
OPTIONS = {
    "data_seed": 42, "size": 32, "pairs": 96, "test_pairs": 64, "fit_pairs": 50, "epochs": 1, "encoder": "alexnet",
    "width": 64, "learning_rate": 1e-3,
}  # fmt: skip


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(FOLDER))
        spec = importlib.util.spec_from_file_location("trifeatures_script", FOLDER / "trifeatures.py")
        module = importlib.util.module_from_spec(spec)
        patched.setitem(sys.modules, "trifeatures_script", module)
        spec.loader.exec_module(module)
        yield module


def line(seed: int, **changes) -> str:
    entry = {"row": "comm", "seed": seed, "target": "share", "scores": {"share": 0.5}, "options": OPTIONS | changes}
    return json.dumps(entry) + "\n"


def finished(script, path: Path, text: str):
    path.write_text(text)
    return script.finished(path, argparse.Namespace(**OPTIONS, threads=2))


def test_a_last_line_that_was_cut_off_is_removed(script, tmp_path):
    path = tmp_path / "done.jsonl"
    for cut in ("", line(1)[:30], line(1)[:-1]):
        done = finished(script, path, line(0) + cut)
        assert [training.seed for training in done] == [0] and path.read_text() == line(0)
    assert finished(script, path, line(0)[:20]) == {} and path.read_text() == ""
    assert script.finished(tmp_path / "none", argparse.Namespace()) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (line(0) + line(1, epochs=2, width=8), ["line 2 has --epochs 2, but this call has 1", "--width 8"]),
        (line(0) + "no JSON\n", ["line 2 is not one of this script"]),
        ("[1]\n" + line(0), ["line 1 is not one of this script"]),
        (line(0).replace(', "options"', ', "older"'), ["line 1 does not say its options; give another file"]),
    ],
)
def test_other_options_and_other_files_are_refused(script, tmp_path, text, words):
    with pytest.raises(SystemExit) as caught:
        finished(script, tmp_path / "done.jsonl", text)
    assert all(word in str(caught.value) for word in words) and "Traceback" not in str(caught.value)


def test_every_option_of_the_script_is_stored_or_chooses_what_is_trained(script, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["trifeatures.py"])
    others = {"quick", "out", "rows", "seeds", "threads"}
    assert {*vars(script.arguments())} == {*script.OPTIONS} | others and {*OPTIONS} == {*script.OPTIONS}
