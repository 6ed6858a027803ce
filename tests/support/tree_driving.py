"""A tree of studies driven by hand: without Ray, and with trainings from a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m3col.data import arrays
from m3col.data.dataset import Dataset
from m3col.tracking.mlflow_store import Tracker
from tests.support.driving import drive
from tune import checks
from tune.outer import tree_run
from tune.outer.tree_folder import TreeFolder
from tune.outer.tree_report import TreeReport

TREE: dict[str, Any] = {
    "base": "digits",
    "overrides": {"model.embedding_dim": 4, "model.classifier_dim": 4, "train.epochs": 2, "checkpoint.every_s": 0.0},
    "space": {"objective.beta": {"low": 0.01, "high": 1.0, "log": True}},
    "validation": {"kind": "kfold", "folds": 2},
    "search": {"trials": 2, "replicates": 0, "confirm": None, "pruner": "none"},
    "final": {"seeds": 1, "draws": 100, "baselines": False, "rows": {"no contrast": {"objective.beta": 0.0}}},
    "outer": {"kind": "kfold", "folds": 2, "repeats": 1},
}


def samples(count: int = 48) -> Dataset:
    """Two classes that a table of two columns tells apart, mostly; a third of the samples are the test split."""
    draw = np.random.default_rng(3)
    labels = np.arange(count) % 2
    tables = {name: draw.normal(size=(count, 2)) + labels[:, None] for name in ("a", "b")}
    train, test = np.arange(count) % 3 > 0, np.arange(count) % 3 == 0
    held_out = ({name: x[test] for name, x in tables.items()}, labels[test])
    return arrays.from_arrays({name: x[train] for name, x in tables.items()}, labels[train], test=held_out)


def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a study are driven in this process from now on, one at a time, and no plots are drawn."""

    def run(coordinator: Any, dataset: Dataset, request: Any, *, warn: Any = None) -> None:
        drive(coordinator, dataset)

    monkeypatch.setattr("tune.engine.ray_tune.run", run)
    monkeypatch.setattr("tune.results.report.PLOTS", {})


def run(
    runs: Path, config: Mapping[str, Any] | None = TREE, *, tracker: Tracker | None = None, resume: str | bool = False,
    name: str = "tree", **overrides: Any,
) -> tuple[TreeFolder, TreeReport]:  # fmt: skip
    """What `tune.search` does of one tree, called `name`. Overrides: `outer__repeats=2`."""
    options = checks.Options(runs=runs, resume=resume, warn=lambda line: None)
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    (item,) = checks.validate(config, data=samples(), overrides=changes, options=options)
    folder = tree_run.open_folder(item, runs, name, "search", options)
    try:
        request: Any = None  # without Ray nothing is requested
        return folder, tree_run.run_tree(tree_run.TreeRun(item, folder, tracker, request, options, "search"))
    finally:
        folder.unlock()
