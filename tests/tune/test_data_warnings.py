"""What is suspicious about a data set, or was left out of it, is told before a search and stands in its summary."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from m3col.config import yaml_files
from tests.data.pair_builders import write_food101
from tests.support import pairs
from tests.support.driving import prepare_study
from tune.results import summary, test_table
from tune.results.study_results import StudyResults
from tune.study.record import StudyFolder


def test_the_same_image_in_two_splits_and_pairs_that_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("M3COL_CACHE", str(tmp_path / "cache"))
    data = write_food101(tmp_path / "food")
    for number in range(3):
        (data / "images/train/cat" / f"cat_train_{number}.jpg").unlink()
    shutil.copy(data / "images/train/dog/dog_train_0.jpg", data / "images/test/emu/emu_test_0.jpg")
    run = pairs.config(data, data__name="food101", data__text__columns=None).to_dict()
    (tmp_path / "food.yaml").write_text(yaml_files.dump(run))
    config: dict[str, Any] = {"base": str(tmp_path / "food.yaml"), "space": {"objective.beta": [0.1, 0.2]}}
    folder, ready = prepare_study(tmp_path / "runs", config)
    many, same = ready.warnings
    assert "3 of 30 pairs (10 %) are left out" in many and "1 have an image" in same
    about = json.loads((folder.path / "study.json").read_text())["dataset"]
    assert about["dropped"] == {"train: no image": 3} and about["warnings"] == [many, same]


def test_the_summary_counts_what_was_left_out(finished_study: StudyFolder) -> None:
    results = StudyResults.read(finished_study)
    plain = summary.write(results, test_table.all_metrics(results))
    assert "Samples left out" not in plain and "Warning of the data" not in plain
    about = {
        "dropped": {"train: no image": 3, "test: no text": 1},
        "warnings": ["train and test overlap: 7 images"],
    }
    described = {**results.described, "dataset": {**results.described["dataset"], **about}}
    changed = dataclasses.replace(results, described=described)
    text = summary.write(changed, test_table.all_metrics(changed))
    for line in (
        "- Samples left out: 3 (train: no image).",
        "- Samples left out: 1 (test: no text).",
        "- Warning of the data: train and test overlap: 7 images.",
    ):
        assert line in text.splitlines()
