"""Small files of the structure that MultiBench's have."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np


def affect(kind: str = "mosi", *, rows: int = 12, steps: int = 6, seed: int = 0) -> dict[str, Any]:
    """Splits of padded sequences. Row 0 of each split has no text, row 1 a value of -inf in its audio."""
    rng = np.random.default_rng(seed)
    widths = {"mosi": (20, 5), "ur_funny": (371, 81), "mustard": (371, 81)}[kind]
    splits: dict[str, Any] = {}
    for number, split in enumerate(("train", "valid", "test")):
        count = rows - 2 * number
        parts: dict[str, Any] = {
            "vision": rng.normal(size=(count, steps, widths[0])),
            "audio": rng.normal(size=(count, steps, widths[1])),
            "text": rng.normal(size=(count, steps, 7)).astype(np.float32),
        }
        for row in range(count):
            front = row % steps  # steps of padding in front
            for values in parts.values():
                values[row, :front] = 0
        parts["text"][0] = 0
        parts["audio"][1, -1, 0] = -np.inf
        labels = rng.integers(0, 2, size=(count, 1, 1)).astype(float)
        if kind == "mosi":
            labels = rng.integers(-3, 4, size=(count, 1, 1)).astype(float)
            labels[2:5, 0, 0] = 0, -2.5, 1.5
        elif kind == "mustard":
            labels = 2 * labels - 1
            labels[1:3, 0, 0] = 1, -1
        else:
            labels[1:3, 0, 0] = 1, 0
        parts["labels"] = labels
        parts["id"] = np.array([[f"film{row}", "0"] for row in range(count)], dtype=object)
        splits[split] = parts
    return splits


def mimic(*, rows: int = 40, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    series = rng.normal(size=(rows, 24, 12))
    series[3, 2, 1], series[4, 0, 0] = np.nan, np.inf
    return {
        "ep_tdata": series,
        "adm_features_all": rng.normal(size=(rows, 5)),
        "adm_labels_all": rng.integers(0, 2, size=(rows, 6)).astype(float),
        "y_icd9": rng.integers(0, 2, size=(rows, 20)).astype(float),
    }


def write(value: Any, path: Path, *, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path
