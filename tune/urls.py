"""The URLs in a search's config: those that cannot be used, and those that hold a password."""

from collections.abc import Callable, Mapping
from typing import Any

from m3col.judge import get
from m3col.secrets import has_password, redacted
from m3col.storage import uri_faults
from tune import database


def faults(raw: Mapping[str, Any], who: Callable[[str], str]) -> list[str]:
    """Lines for `storage` and `tracking` of a search's raw config; `who` gave a key. A config is stored, shown and sent
    to MLflow, so that no URL in it may hold a password. Nothing is connected to."""
    uri, url, tracking = (get(raw, key) for key in ("storage.uri", "storage.database", "tracking.uri"))
    found = []
    if isinstance(uri, str):
        found += [f"{who('storage.uri')}: {line}" for line in uri_faults(uri, "storage.uri")]
    if isinstance(url, str):
        found += [f"{who('storage.database')}: {line}" for line in database.faults(url)]
    if isinstance(tracking, str) and has_password(tracking):
        found.append(
            f"{who('tracking.uri')}: tracking.uri must hold no password, because it is stored and shown; put it into "
            f"MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, and leave it out of {redacted(tracking)!r}"
        )
    return found
