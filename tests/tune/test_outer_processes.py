"""A tree of studies as a person starts it, with Ray: killed, and resumed by its name."""

import os
import signal

import pandas as pd
import psutil
import pytest

from m3col.config import yaml_files
from tests.support import tree_driving
from tests.support.search_process import start_search, wait_for
from tune import checks
from tune.outer import tree_run

pytestmark = pytest.mark.slow

CONFIG = {
    "base": "digits",
    "overrides": {"model.embedding_dim": 4, "model.classifier_dim": 4, "train.epochs": 3, "checkpoint.every_s": 0.0},
    "validation": {"kind": "holdout"},
    "search": {"trials": 1},
    "final": {"seeds": 1, "draws": 100, "baselines": ["linear"], "rows": {"concat": {"method": "concat"}}},
    "outer": {"kind": "kfold", "folds": 2, "repeats": 1},
}


def test_a_tree_that_was_killed_is_resumed_by_its_name_and_ends_as_an_unbroken_one(tmp_path, monkeypatch):
    path = tmp_path / "tree.yaml"
    path.write_text(yaml_files.dump(CONFIG))
    process = start_search(tmp_path / "killed", str(path), "--name", "mine")
    wait_for(process, "mine/split_01")
    wait_for(process, "trials/0 ")
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    for child in children:  # no part of the first search may help the second
        if child.is_running():
            child.kill()
    process.communicate(timeout=20)
    resumed = start_search(tmp_path / "killed", "--resume", "mine")
    text, _ = resumed.communicate(timeout=180)
    assert resumed.returncode == 0 and "mine: m3col on digits, 2 outer splits" in text, text
    assert "split_00\n" not in text  # which had ended

    tree_driving.without_ray(monkeypatch)
    options = checks.Options(runs=tmp_path / "unbroken", warn=lambda line: None)
    (item,) = checks.validate(CONFIG, data=None, overrides={}, options=options)
    folder = tree_run.open_folder(item, tmp_path / "unbroken", "mine", "search", options)
    report = tree_run.run_tree(tree_run.TreeRun(item, folder, None, item.config.request, options, "search"))
    written = pd.read_csv(tmp_path / "killed" / "mine" / "results" / "outer.csv")
    pd.testing.assert_frame_equal(written, report.table, check_dtype=False, check_exact=False, rtol=1e-12)
    assert (tmp_path / "killed" / "mine" / "results" / "summary.md").read_text() == report.summary
