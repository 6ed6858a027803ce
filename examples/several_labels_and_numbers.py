"""Several labels per sample, and numbers, from DataFrames to predictions. Run it with

    python examples/several_labels_and_numbers.py

The data is drawn: two measurements of the same people, `blood` and `gait`, which determine together which of three
conditions someone has, and how old someone is.
"""

import tempfile

import numpy as np
import pandas as pd

import m3col


def drawn(people: int, seed: int = 0) -> tuple[dict[str, pd.DataFrame], pd.DataFrame, pd.Series]:
    """The measurements by modality, the conditions (0 or 1 in a column for each), and the ages in years."""
    rng = np.random.default_rng(seed)
    ids = pd.Index([f"person {seed}-{number}" for number in range(people)])
    blood, gait = rng.normal(size=(people, 6)), rng.normal(size=(people, 4))
    causes = np.column_stack([blood[:, 0] + gait[:, 0], blood[:, 1] - gait[:, 1], gait[:, 2]])
    conditions = (causes + 0.3 * rng.normal(size=causes.shape) > [0.0, 0.8, 1.0]).astype(int)
    age = 50 + 8 * (blood[:, 2] + gait[:, 3]) + rng.normal(size=people)
    inputs = {
        "blood": pd.DataFrame(blood, index=ids).add_prefix("marker "),
        "gait": pd.DataFrame(gait, index=ids).add_prefix("step "),
    }
    names = ["diabetes", "gout", "limp"]
    return inputs, pd.DataFrame(conditions, index=ids, columns=names), pd.Series(age, index=ids, name="age")


SETTINGS = {
    "method": "concat", "data.preprocess": ["standard"], "train.epochs": 60, "train.learning_rate": 0.01,
    "model.embedding_dim": 32, "model.classifier_dim": 32,
}  # fmt: skip


def main(runs: str) -> tuple[m3col.TrainResult, m3col.TrainResult]:
    inputs, conditions, age = drawn(300)
    new, new_conditions, new_age = drawn(200, seed=1)

    # Several labels per sample: rare ones count more, and each has a threshold of its own.
    labels = m3col.train(
        {"validation": {"kind": "kfold", "folds": 3}},
        data={"train": (inputs, conditions), "test": (new, new_conditions)},
        overrides={**SETTINGS, "task": "multi_label", "objective.class_weight": "balanced", "threshold": "validation"},
        runs=runs,
        tracking_uri="none",
    )
    print(labels)
    print(labels.predictor.predict_table(new).head(3).round(2).to_string())

    # A number.
    numbers = m3col.train(
        {"validation": {"kind": "kfold", "folds": 3}},
        data={"train": (inputs, age), "test": (new, new_age)},
        overrides={**SETTINGS, "task": "regression"},
        runs=runs,
        tracking_uri="none",
    )
    print(numbers)
    print(numbers.predictor.predict_table(new).head(3).round(1).to_string())
    return labels, numbers


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
