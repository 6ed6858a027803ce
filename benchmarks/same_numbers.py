"""Checks that two checkouts compute bitwise equal results: trainings, a search, two DDP workers, predictions.

    python benchmarks/same_numbers.py OLD NEW [--only digits,search] [--data DIR]

OLD and NEW are folders with a checkout each; both run with the Python that runs this script. Every case is a process of
its own that imports m3col from one checkout. What they print as JSON is compared: losses, metrics and parameters as
exact numbers, predictions and splits as digests. A model checkpoint that OLD has written is also loaded and used by
NEW. Real data (ROSMAP, emoji) is taken from `--data`, $M3COL_DATA, ./data or ../shared/data, and left out where it is
not.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

SMALL = {"train.epochs": 6, "model.embedding_dim": 32, "model.classifier_dim": 16}
DIGITS: dict[str, dict[str, Any]] = {
    "m3col": {},
    "mixup": {"method": "mixup"},
    "concat": {"method": "concat"},
    "single": {"method": "single", "data.modalities": ["pixels"]},
    "class weights": {"objective.class_weight": "balanced"},
    "batches": {"train.batch_size": 50, "train.accumulate": 2, "model.dropout": 0.3},
    "shards": {"train.batch_size": 60, "train.shards": 2},
    "folds": {"validation.kind": "kfold", "validation.folds": 3},
    "mixed embeddings": {"mix.level": "embedding", "mix.probability": 0.5},
    "float64": {"train.precision": "float64"},
}
SEARCH = {
    "base": "digits",
    "overrides": {"train.epochs": 10, "validation.kind": "holdout", "model.embedding_dim": 32},
    "space": {
        "objective.beta": {"low": 0.01, "high": 1.0, "log": True},
        "objective.temperature": {"low": 0.05, "high": 1.0},
    },
    "search": {"trials": 6, "concurrency": 1, "replicates": 1, "confirm": {"top": 2, "seeds": 1}},
    "final": {"seeds": 2},
}


def digest(array: Any) -> str:
    """SHA-256 of an array's bytes, with its shape and type."""
    import numpy as np

    x = np.ascontiguousarray(array)
    return hashlib.sha256(f"{x.shape} {x.dtype}".encode() + x.tobytes()).hexdigest()[:16]


def exact(values: Any) -> Any:
    """Numbers as hexadecimal text, without loss."""
    if isinstance(values, dict):
        return {str(key): exact(value) for key, value in values.items()}
    return float(values).hex() if isinstance(values, float) else values


def _trained(result: Any, test: Any) -> dict[str, Any]:
    history = result.history.drop(columns="time")
    results = {
        "metrics": exact(dict(result.metrics)),
        "history": {c: digest(history[c].to_numpy(float)) for c in history},
    }
    return results | {
        "predictions": {} if test is None else {k: digest(v) for k, v in result.predictor.votes(test).items()}
    }


def digits(folder: Path) -> dict[str, Any]:
    import m3col

    test = m3col.data.load("digits").test.inputs
    results = {}
    for name, changes in DIGITS.items():
        result = m3col.train("digits", overrides=SMALL | changes, runs=folder, tracking_uri="none")
        chosen = {m: test[m] for m in result.predictor.modalities}
        results[name] = _trained(result, chosen)
        if name == "m3col":
            results["checkpoint"] = str(result.checkpoint)
    return results


def _of_folder(name: str, changes: dict[str, Any]) -> Callable[[Path], dict[str, Any]]:
    def train(folder: Path) -> dict[str, Any]:
        import m3col

        try:
            data_folder = m3col.data.locate(name)
        except m3col.InputError:
            return {"left out": f"{name} is not here"}
        overrides = changes | {"data.dir": str(data_folder.absolute())}
        result = m3col.train(name, overrides=overrides, runs=folder, tracking_uri="none")
        results = _trained(result, None)
        return results | {"model": _digests(result.checkpoint)}

    return train


def _digests(folder: Path) -> dict[str, str]:
    """Digests of the tensors of a model checkpoint, by name."""
    from safetensors.numpy import load_file

    return {key: digest(v) for path in sorted(folder.glob("*.safetensors")) for key, v in load_file(path).items()}


def workers(folder: Path) -> dict[str, Any]:
    import tune

    changes = SMALL | {"train.precision": "float64", "train.batch_size": 64, "train.shards": 2}
    result = tune.train("digits", workers=2, overrides=changes, runs=folder, tracking_uri="none")
    return _trained(result, None)


def search(folder: Path) -> dict[str, Any]:
    import pandas as pd

    import tune

    result = tune.search(SEARCH, runs=folder, tracking_uri="none", num_cpus=2)
    trials = result.trials.drop(columns="seconds")
    study = result.studies[0]
    rows = pd.read_parquet(study / "predictions.parquet")
    return {
        "trials": {column: exact(dict(enumerate(trials[column].tolist()))) for column in trials},
        "splits": hashlib.sha256((study / "splits.csv").read_bytes()).hexdigest(),
        "winner": exact(result.best_metrics),
        "test table": result.test_table.to_csv(index=False, float_format="%.17g"),
        "predictions": {column: digest(rows[column].to_numpy().astype(str)) for column in rows},
    }


CASES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "digits": digits,
    "rosmap": _of_folder("rosmap", {"train.epochs": 3, "validation.kind": "kfold"}),
    "emoji": _of_folder("emoji", {"train.epochs": 2}),
    "workers": workers,
    "search": search,
}


def _old_checkpoint(path: Path) -> dict[str, Any]:
    """Digests of the predictions of this checkout with a model checkpoint that another one wrote."""
    import m3col

    test = m3col.data.load("digits").test.inputs
    return {name: digest(value) for name, value in m3col.load(path).votes(test).items()}


def _run(checkout: Path, case_arguments: list[str]) -> dict[str, Any]:
    """Runs one case in a process that imports from a checkout.

    The checkout is also its current folder, because Ray's workers search modules there first.
    """
    environment = os.environ | {
        "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore",
        "RAY_AUTH_MODE": "disabled",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, os.path.abspath(__file__), "--child", *case_arguments],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{checkout}: {' '.join(case_arguments)} failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """All differences between two results, one line each."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys((*old, *new))
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{path}/{key}")]
    return [] if old == new else [f"{path}: {old!r:.80} and {new!r:.80}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", nargs="*", type=Path, metavar="OLD NEW")
    parser.add_argument("--only", help="cases, with commas between; default: all")
    parser.add_argument("--data", type=Path, help="folder with real data sets")
    parser.add_argument("--child", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        case, folder = arguments.child
        call = CASES.get(case)
        print(json.dumps(_old_checkpoint(Path(folder)) if call is None else call(Path(folder))))
        return 0
    if len(arguments.checkouts) != 2:
        parser.error("give two checkouts")
    if arguments.data is not None:
        os.environ["M3COL_DATA"] = str(arguments.data)
    candidates = [os.environ.get("M3COL_DATA"), "data", "../shared/data"]
    data_folder = next((Path(candidate) for candidate in candidates if candidate and Path(candidate).is_dir()), None)
    if data_folder is not None:
        os.environ["M3COL_DATA"] = str(data_folder.absolute())
    old, new = (path.absolute() for path in arguments.checkouts)
    count = 0
    for case in arguments.only.split(",") if arguments.only else CASES:
        with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
            before, after = _run(old, [case, first]), _run(new, [case, second])
            path = before.pop("checkpoint", None)
            after.pop("checkpoint", None)
            if path is not None:
                before["checkpoint of the old one"] = before["m3col"]["predictions"]
                after["checkpoint of the old one"] = _run(new, ["checkpoint", path])
        lines = differences(before, after)
        count += len(lines)
        print(
            f"{case}: {before.get('left out') or ('equal' if not lines else f'{len(lines)} differences')}", flush=True
        )
        for line in lines[:20]:
            print(f"  {line}")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
