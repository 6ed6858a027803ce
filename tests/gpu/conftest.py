"""The tests of `make test-gpu`: all of this folder are marked `gpu`, and those that need two cards also `gpu2`.

With M3COL_GPU_REHEARSAL=1 they run on the CPU, so that faults of the tests themselves show without a card. Tests with
the fixture `card` need CUDA itself and are skipped in a rehearsal.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import cards

REHEARSAL = os.environ.get("M3COL_GPU_REHEARSAL") == "1"

_REPORTED: list[str] = []

_HERE = Path(__file__).parent
_FIRST = "test_search.py"  # checks that a driver opens no CUDA context, which later tests of this process do


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks and skips the tests of this folder: the hook of a folder sees those of all folders."""
    own = [item for item in items if _HERE in item.path.parents]
    count = torch.cuda.device_count() if own and torch.cuda.is_available() else 0
    for item in own:
        item.add_marker(pytest.mark.gpu)
        if REHEARSAL:
            continue
        if not count:
            item.add_marker(pytest.mark.skip("torch.cuda is not available: no NVIDIA GPU, or no driver for it"))
        elif item.get_closest_marker("gpu2") and count < 2:
            item.add_marker(pytest.mark.skip("it needs two GPUs, one for each rank of NCCL, and there is one"))
    places = [number for number, item in enumerate(items) if _HERE in item.path.parents]
    for place, item in zip(places, sorted(own, key=lambda item: item.path.name != _FIRST), strict=True):
        items[place] = item


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints what the tests measured below the name of the card."""
    if _REPORTED:
        terminalreporter.section(cards.description())
        for line in _REPORTED:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The first GPU; in a rehearsal the CPU."""
    return torch.device("cpu") if REHEARSAL else torch.device("cuda", 0)


@pytest.fixture
def card(device: torch.device) -> torch.device:
    """The first GPU, for tests that have no meaning on a CPU."""
    if device.type != "cuda":
        pytest.skip("it needs CUDA itself, which a rehearsal on the CPU lacks")
    return device


@pytest.fixture(scope="session")
def report() -> Callable[[str, object], None]:
    """A function that prints a figure below the results of the tests."""

    def add(what: str, value: object) -> None:
        _REPORTED.append(f"{what}: {value}")

    return add


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3COL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
