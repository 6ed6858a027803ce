"""Attempts on a shared path and on a real S3 server: one process writes, another finds, fetches and forgets."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tune.study.attempts import Attempts

RUN = "trials/3"
CONFIG: dict[str, Any] = {"train": {"seed": 0}, "data": {"dir": "/a"}, "checkpoint": {"every_s": 1}}


class Place:
    """A study as one machine sees it; with `uri`, another machine has another folder."""

    def __init__(self, folder: Path, uri: str | None) -> None:
        self.folder, self.uri = folder, uri

    def attempts(self, machine: str, config: Mapping[str, Any] = CONFIG) -> Attempts:
        study = self.folder / (machine if self.uri else "shared")
        if self.uri is None:
            (study / RUN).mkdir(parents=True, exist_ok=True)  # the driver does
        return Attempts(str(study), RUN, uri=self.uri, config=config)


@pytest.fixture(params=["s3", "path", "uri of a path"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "path":
        return Place(tmp_path, None)
    return Place(tmp_path, request.getfixturevalue("s3") if request.param == "s3" else str(tmp_path / "store"))


def write(attempt: Path, epoch: int) -> Path:
    folder = attempt / f"epoch-{epoch:06d}"
    folder.mkdir()
    save_file({"weights": np.full(3, epoch)}, folder / "fold-0.safetensors")
    save_file({}, folder / "probes.safetensors")
    about = {"made_by": "m3col", "format": 1, "kind": "training", "epoch": epoch, "history": [], "best": None}
    (folder / "checkpoint.json").write_text(json.dumps(about))
    return folder


def test_another_process_finds_the_checkpoint_with_the_most_epochs(place: Place) -> None:
    first, second, third = (place.attempts(name) for name in ("a", "b", "c"))
    assert first.newest() is None
    old, new = first.new(), second.new()
    assert old.name != new.name and old.name.startswith("attempt-1") and new.name.startswith("attempt-2")
    for epoch in (2, 9, 10):
        first.publish(write(old, epoch))
    second.publish(write(new, 4))
    assert third.newest() == f"{old.name}/epoch-000010"
    fetched = third.fetch(f"{old.name}/epoch-000010")
    assert json.loads((fetched / "checkpoint.json").read_text())["epoch"] == 10
    assert {path.name for path in fetched.iterdir()} == {"checkpoint.json", "fold-0.safetensors", "probes.safetensors"}
    assert third.new().name.startswith("attempt-3")
    third.drop([f"{old.name}/epoch-000010", f"{old.name}/epoch-000010"])
    assert place.attempts("d").newest() == f"{old.name}/epoch-000009"
    second.clear_checkpoints()
    assert place.attempts("d").newest() is None
    third.close()


def test_where_the_study_is_not_mounted_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="does not see the study's folder; mount it on every node"):
        Attempts(str(tmp_path / "study"), RUN, uri=None, config=CONFIG).new()
    assert not (tmp_path / "study").exists()


def test_attempts_made_with_another_config_are_passed_over(place: Place) -> None:
    first = place.attempts("a")
    path = first.new()
    first.publish(write(path, 5))
    free = {**CONFIG, "data": {"dir": "/b"}, "checkpoint": {"every_s": 9}}
    assert place.attempts("b", free).newest() == f"{path.name}/epoch-000005"
    assert place.attempts("b", {**CONFIG, "train": {"seed": 1}}).newest() is None


def test_of_published_checkpoints_the_newest_two_stay(s3: str, tmp_path: Path) -> None:
    mine = Attempts(str(tmp_path), RUN, uri=s3, config=CONFIG)
    path = mine.new()
    for epoch in range(1, 6):
        mine.publish(write(path, epoch))
    other = Attempts(str(tmp_path / "b"), RUN, uri=s3, config=CONFIG)
    assert other._remote is not None
    found = {item.name.split("/")[1] for item in other._remote.files() if "epoch" in item.name}
    assert found == {"epoch-000004", "epoch-000005"}


def test_a_checkpoint_without_its_marker_is_none(s3: str, tmp_path: Path) -> None:
    mine = Attempts(str(tmp_path), RUN, uri=s3, config=CONFIG)
    path = mine.new()
    mine.publish(write(path, 3))
    torn = write(path, 7)
    assert mine._remote is not None
    mine._remote.put(torn / "fold-0.safetensors", f"{path.name}/epoch-000007/fold-0.safetensors")
    other = Attempts(str(tmp_path / "b"), RUN, uri=s3, config=CONFIG)
    assert other.newest() == f"{path.name}/epoch-000003"
    other.clear_checkpoints()
    assert [item.name for item in mine._remote.files()] == [f"{path.name}/attempt.json"]


def test_nothing_of_a_fetched_checkpoint_lies_in_the_study_folder_and_the_scratch_goes(s3: str, tmp_path: Path) -> None:
    mine = Attempts(str(tmp_path / "study"), RUN, uri=s3, config=CONFIG)
    path = mine.new()
    assert tmp_path not in path.parents
    mine.publish(write(path, 3))
    mine.close()
    assert not path.exists() and not (tmp_path / "study").exists()
    with pytest.raises(FileNotFoundError, match=s3):
        mine.fetch("attempt-9/epoch-000001")
    mine.close()
