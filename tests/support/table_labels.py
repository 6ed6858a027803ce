"""Small data whose labels are tables: several labels per sample, or numbers, that two modalities determine together."""

from typing import Any

import numpy as np
import pandas as pd

NAMES = {"multi_label": ("action", "comedy", "drama"), "regression": ("height", "time")}

TRAIN, TEST = 90, 60

# The default of each task is lower or higher by the end of such a training than by that of the constant baseline.
QUICK: dict[str, Any] = {
    "model.embedding_dim": 16, "model.classifier_dim": 16, "train.epochs": 40, "train.learning_rate": 0.02,
    "train.schedule.kind": "none", "train.weight_decay": 0.0, "data.preprocess": ["standard"],
}  # fmt: skip


def draw(task: str, count: int = TRAIN + TEST, *, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs by modality and labels [count, C]."""
    rng = np.random.default_rng(seed)
    inputs = {"a": rng.normal(size=(count, 4)), "b": rng.normal(size=(count, 3))}
    noise = 0.2 * rng.normal(size=(count, 3))
    numbers = np.column_stack([inputs["a"][:, 0] + inputs["b"][:, 0], inputs["a"][:, 1] - inputs["b"][:, 1],
                               inputs["b"][:, 2]]) + noise  # fmt: skip
    if task == "multi_label":
        return inputs, (numbers > [0.0, 0.7, 0.7]).astype(np.int64)
    return inputs, numbers[:, :2] * [10.0, 0.01] + [170.0, 1e4]


def frames(task: str, **arguments: Any) -> dict[str, Any]:
    """The splits as DataFrames, with the names of labels or targets as columns: an argument `data` of m3col.train."""
    inputs, labels = draw(task, **arguments)
    parts = {}
    for split, rows in (("train", slice(0, TRAIN)), ("test", slice(TRAIN, None))):
        tables = {name: pd.DataFrame(x[rows], columns=[f"{name}{k}" for k in range(x.shape[1])])
                  for name, x in inputs.items()}  # fmt: skip
        parts[split] = (tables, pd.DataFrame(labels[rows], columns=list(NAMES[task])))
    return parts
