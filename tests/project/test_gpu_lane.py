"""The tests of `make test-gpu` are left out by `make test`, are skipped with a reason without a card, and some of them
run on the CPU here, so that they are not broken when a card comes."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import REPOSITORY
from tests.gpu import conftest as lane

LANE = REPOSITORY / "tests" / "gpu"


class Item:
    """What the hook of the lane sees of a test."""

    def __init__(self, path: Path, *marks: str) -> None:
        self.path, self.marks, self.reasons = path, set(marks), []

    def add_marker(self, mark: Any) -> None:
        self.marks.add(mark.name)
        self.reasons += mark.args

    def get_closest_marker(self, name: str) -> str | None:
        return name if name in self.marks else None


@pytest.fixture
def items() -> list[Any]:
    return [Item(LANE / "test_cuda.py"), Item(REPOSITORY / "tests/config/test_rules.py"),
            Item(LANE / "test_two_cards.py", "gpu2"), Item(LANE / "test_search.py")]  # fmt: skip


@pytest.mark.parametrize(("cards", "skipped"), [(0, {"one": True, "two": True}), (1, {"one": False, "two": True}),
                                                (2, {"one": False, "two": False})])  # fmt: skip
def test_every_test_of_the_lane_is_marked_and_skipped_where_it_lacks_its_cards(cards, skipped, items, monkeypatch):
    monkeypatch.setattr(lane, "REHEARSAL", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    one, other, two, search = items
    lane.pytest_collection_modifyitems(items)
    assert "gpu" in one.marks & two.marks & search.marks and other.marks == set()
    assert {"one": "skip" in one.marks, "two": "skip" in two.marks} == skipped
    assert all(len(item.reasons) == ("skip" in item.marks) for item in (one, two, search))
    assert items == [search, other, one, two], "the driver's CUDA context is checked before other tests open one"


def test_make_test_leaves_them_out_and_make_test_gpu_runs_them():
    commands = dict(re.findall(r"^(test[a-z-]*):.*\n\t(.*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert all('not gpu"' in commands[name] for name in ("test", "test-all", "test-random"))
    assert "-m gpu tests/gpu" in commands["test-gpu"] and "M3COL_TEST_GPU=1" in commands["test-gpu"]


def test_those_that_are_quick_pass_on_the_cpu():
    """With faults that only the arithmetic of a card could have left out."""
    files = [f"tests/gpu/test_{name}.py" for name in ("step", "state", "waiting", "ddp")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:randomly", "-m", "gpu", "-rs", *files, "-k",
         "(step_in_float64 and balanced and 2 and m3col) or resumes_from_the_checkpoint or of_tables or "
         "waits_are_counted or torch_reports or one_rank_returns"],
        cwd=REPOSITORY, env={**os.environ, "M3COL_GPU_REHEARSAL": "1", "M3COL_TEST_GPU": ""}, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"\b1[0-9] passed, 1 skipped, \d+ deselected", done.stdout), done.stdout[-500:]
    assert "it needs CUDA itself, which a rehearsal on the CPU lacks" in done.stdout
    assert "waits of tables, m3col: " in done.stdout and torch.__version__ in done.stdout
