"""Small data and configs that several tests share."""

from typing import Any

import numpy as np

from m3col.config import loading
from m3col.config.schema import RunConfig
from m3col.data.arrays import from_arrays
from m3col.data.dataset import Dataset
from m3col.methods import registry

TINY: dict[str, Any] = {
    "model": {"embedding_dim": 8, "classifier_dim": 8},
    "train": {"epochs": 6, "learning_rate": 0.01},
    "data": {"name": "arrays"},
}


def tiny_config(**overrides: Any) -> RunConfig:
    """A config that trains in a blink; `overrides` use `__` for the dots of a key."""
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    return loading.load(TINY, overrides=changes)


def allowed(method: str) -> dict[str, Any]:
    """What a method must be allowed before it trains, as an override of `tiny_config`."""
    key = "objective.store_training_rows"
    return {key.replace(".", "__"): True} if key in registry.find(method).keys else {}


def tiny_data(*, samples: int = 40, classes: int = 2, modalities: int = 2, seed: int = 0, test: int = 20) -> Dataset:
    """Gaussian blobs, a little apart, with a test split."""
    rng = np.random.default_rng(seed)
    labels = np.arange(samples + test) % classes
    views = {
        f"view_{m}": rng.normal(size=(samples + test, 5 + m)) + 0.7 * labels[:, None] * ((np.arange(5 + m) % 2) - 0.5)
        for m in range(modalities)
    }
    cut = samples
    return from_arrays(
        {name: value[:cut] for name, value in views.items()},
        labels[:cut],
        test=({name: value[cut:] for name, value in views.items()}, labels[cut:]),
    )
