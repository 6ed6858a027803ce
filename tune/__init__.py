"""Hyperparameter search: Ray Tune runs the trials, Optuna samples and prunes, the study's folder is the record.

    import tune
    result = tune.search("digits", overrides={"search.trials": 20})
    result.best_config, result.test_table
    tune.train("digits", workers=2)

Names are resolved on first use, so that importing this package does not wait for ray.
"""

from typing import TYPE_CHECKING

from m3col.runtime.lazy_names import lazy_names

if TYPE_CHECKING:
    from tune.api import search as search
    from tune.engine.train_api import train as train
    from tune.search_result import SearchResult as SearchResult

__all__ = ["SearchResult", "search", "train"]

__getattr__ = lazy_names(
    __name__,
    {
        "SearchResult": "tune.search_result:SearchResult",
        "search": "tune.api:search",
        "train": "tune.engine.train_api:train",
    },
)
