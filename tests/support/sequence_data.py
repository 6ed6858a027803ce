"""Small data with sequences that several tests share."""

from typing import Any

import numpy as np

from m3col.data.arrays import from_arrays
from m3col.data.dataset import Dataset


def draw_sequences(count: int, *, features: int = 3, longest: int = 7, seed: int = 0) -> list[np.ndarray]:
    """`count` random arrays [T_i, features] in float32 with 1 to `longest` steps."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, count)
    return [rng.normal(size=(length, features)).astype(np.float32) for length in lengths]


def sequence_inputs(count: int, *, seed: int = 0) -> tuple[dict[str, Any], np.ndarray]:
    """A modality of sequences, whose first feature rises or falls over time with the label, and a table."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    series = draw_sequences(count, seed=seed, longest=9)
    for values, label in zip(series, labels, strict=True):
        values[:, 0] += (2 * label - 1) * np.linspace(0, 2, len(values))
    table = rng.normal(size=(count, 4)) + 0.5 * labels[:, None]
    return {"series": series, "table": table}, labels


def sequence_dataset(*, samples: int = 40, test: int = 12, seed: int = 0) -> Dataset:
    """Sequences and a table, with a test split."""
    inputs, labels = sequence_inputs(samples + test, seed=seed)
    first = {name: values[:samples] for name, values in inputs.items()}
    second = {name: values[samples:] for name, values in inputs.items()}
    return from_arrays(first, labels[:samples], test=(second, labels[samples:]))
