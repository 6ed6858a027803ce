"""Hyperparameter search: Ray Tune runs the trials, Optuna proposes and prunes, the study's folder is the record.

    import tune
    found = tune.search("digits", overrides={"search.trials": 20})
    found.best_config, found.test_table
    tune.train("digits", workers=2)

Names are resolved on first use, so that importing this package does not wait for ray.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tune.api import SearchResult as SearchResult
    from tune.api import search as search
    from tune.training import train as train

_PLACES = {"SearchResult": "tune.api", "search": "tune.api", "train": "tune.training"}
__all__ = ["SearchResult", "search", "train"]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'tune' has no attribute {name!r}")
