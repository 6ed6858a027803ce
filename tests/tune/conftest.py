"""Studies that several tests look at; each is searched once per session, in a few seconds."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from m3col.tracking import mlflow_store
from m3col.tracking.mlflow_store import Tracker
from tests.support.driving import coordinator, drive, prepare_study, small
from tune.results import collect
from tune.study.record import StudyFolder

ROWS = {"no contrast": {"objective.beta": 0.0}, "pixels alone": {"method": "single", "data.modalities": ["pixels"]}}

PUBLISHED = {"accuracy": {"default": 90.5, "another paper": 0.8}}


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """Digits, all stages, with predictions and without results. Not to be changed: see `study_copy`."""
    config = small(
        final__rows=ROWS, final__optimistic=True, final__published=PUBLISHED,
        search__confirm={"top": 1, "seeds": 2}, search__replicates=2,
    )  # fmt: skip
    folder, ready = prepare_study(tmp_path_factory.mktemp("runs"), config, name="digits-1")
    drive(coordinator(folder, ready), ready.dataset)
    collect.collect(folder, ready.config, ready.dataset)
    return folder


@pytest.fixture
def study_copy(finished_study: StudyFolder, tmp_path: Path) -> Callable[..., StudyFolder]:
    """A copy that may be changed, in a runs folder of its own with the same ledger."""

    def copy() -> StudyFolder:
        target = tmp_path / "runs" / finished_study.name
        shutil.copytree(finished_study.path, target)
        shutil.copy(finished_study.path.parent / "test_ledger.jsonl", target.parent)
        return StudyFolder(target)

    return copy


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    """One MLflow store for all tests of a file: making one takes seconds. Studies differ by name."""
    tracker = mlflow_store.connect(None, tmp_path_factory.mktemp("store"))
    assert tracker is not None
    return tracker
