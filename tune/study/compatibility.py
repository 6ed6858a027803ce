"""Whether a study on disk may be resumed with a given config and data."""

from collections.abc import Mapping
from typing import Any

from m3col.config.keys import flatten
from m3col.data.dataset import Dataset

# Settings that may change on resume: they affect the cost of a search, not the result of a trial.
_MAY_CHANGE = ("search.trials", "search.time_budget_s", "search.concurrency", "resources", "tracking", "run.data.dir",
               "run.checkpoint", "search.confirm", "search.replicates", "search.null", "final.seeds",
               "final.remarks", "storage.patience_s")  # fmt: skip


def differences(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Returns the settings that differ and must not, with both values."""
    old, new = dict(flatten(stored)), dict(flatten(current))
    lines = []
    for path in [*old, *(path for path in new if path not in old)]:
        if any(path == free or path.startswith(f"{free}.") for free in _MAY_CHANGE) or old.get(path) == new.get(path):
            continue
        lines.append(f"{path} was {old.get(path)!r} and is now {new.get(path)!r}; a resumed study keeps it")
    return lines


def digest_differences(stored: Mapping[str, str], dataset: Dataset, splits: str) -> list[str]:
    """Returns the parts of the data, and the folds, that differ from what the study began with."""
    digests = {**dataset.digests(), "splits": splits}
    return [
        f"{name}: the data differs from what the study began with (digest {stored[name][:12]}, now {value[:12]})"
        for name, value in digests.items()
        if name in stored and stored[name] != value
    ]
