"""Each test has its own cache folder."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("M3COL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
