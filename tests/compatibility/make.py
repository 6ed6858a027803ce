"""Writes what the tests of this folder read: a checkpoint, a study and an MLflow model of an older version.

Run it with the older checkout first on the path; `git worktree add /tmp/old cbb441f` makes the one of version 0.1:

    PYTHONPATH=/tmp/old python tests/compatibility/make.py tests/compatibility/version_0_1

It uses what has been public since then, and nothing of the checkout that it stands in.
"""

import json
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import m3col
import tune

SMALL = {"train.epochs": 3, "model.embedding_dim": 4, "model.classifier_dim": 4, "validation.kind": "holdout"}
SEARCH = {
    "base": "digits",
    "overrides": SMALL,
    "space": {"objective.beta": {"low": 0.01, "high": 1.0}},
    "search": {"trials": 2, "replicates": 0, "confirm": None, "concurrency": 1, "pruner": "none"},
    "final": {"seeds": 1},
}


def arrays() -> dict[str, tuple[dict[str, np.ndarray], np.ndarray]]:
    """Two views of 40 training and 10 test samples in two classes."""
    rng = np.random.default_rng(7)
    labels = np.arange(50) % 2
    views = {
        name: np.round(rng.normal(size=(50, columns)) + labels[:, None], 3) for name, columns in (("a", 3), ("b", 4))
    }
    parts = {"train": slice(0, 40), "test": slice(40, 50)}
    return {split: ({name: x[at] for name, x in views.items()}, labels[at]) for split, at in parts.items()}


def without_traces(folder: Path, places: Sequence[str]) -> None:
    """Removes what is large and not read, and the names of the machine and of its folders."""
    for path in [*folder.rglob("*.png"), *folder.rglob("lock"), *folder.rglob("log.txt")]:
        path.unlink()
    for path in [*folder.rglob("MLmodel"), *folder.rglob("*.json")]:
        text = path.read_text(encoding="utf-8").replace(f'"{socket.gethostname()}"', '"a-machine"')
        for place in places:
            text = text.replace(place, "/elsewhere")
        path.write_text(text, encoding="utf-8")


def main(into: Path) -> None:
    into.mkdir(parents=True, exist_ok=True)
    data = arrays()
    with tempfile.TemporaryDirectory() as scratch:
        runs = Path(scratch) / "runs"
        uri = f"sqlite:///{Path(scratch) / 'mlflow.db'}"
        result = m3col.train("digits", data=data, overrides=SMALL, runs=runs, tracking_uri=uri)
        shutil.copytree(result.checkpoint, into / "checkpoint")
        (model,) = {path.parent for path in Path(scratch).rglob("MLmodel")}
        shutil.copytree(model, into / "mlflow_model")
        found = tune.search(SEARCH, data=data, runs=runs, tracking_uri="none", name="old")
        shutil.copytree(found.studies[0], into / "study")
        expected = {
            "version": m3col.__version__,
            "probabilities": result.predict_proba(data["test"][0]).tolist(),
            "of the study": m3col.load(found.studies[0] / "results" / "model").predict_proba(data["test"][0]).tolist(),
            "trials": found.trials["value"].tolist(),
        }
        without_traces(into, [scratch, str(Path(m3col.__file__).parents[1])])
    (into / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
