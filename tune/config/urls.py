"""The URLs in a search's config: those that cannot be used, and those that hold a password."""

from collections.abc import Callable, Mapping
from typing import Any

from m3col.config.keys import get, without
from m3col.storage.object_store import uri_faults
from m3col.storage.redaction import has_password, redacted
from tune.study import database


def faults(raw: Mapping[str, Any], who: Callable[[str], str]) -> list[str]:
    """Lines for `storage` and `tracking` of a search's raw config; `who` gave a key. A config is stored, shown and sent
    to MLflow, so that no URL in it may hold a password. Nothing is connected to."""
    return [f"{who(key)}: {line}" for key, lines in _found(raw).items() for line in lines]


def usable(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The config without the URLs that have faults: nobody is to be asked for what stands there."""
    return without(raw, _found(raw))


def _found(raw: Mapping[str, Any]) -> dict[str, list[str]]:
    judges: dict[str, Callable[[str], list[str]]] = {
        "storage.uri": lambda uri: uri_faults(uri, "storage.uri"),
        "storage.database": database.faults,
        "tracking.uri": _tracking_faults,
    }
    given = {key: get(raw, key) for key in judges}
    found = {key: judges[key](value) for key, value in given.items() if isinstance(value, str)}
    return {key: lines for key, lines in found.items() if lines}


def _tracking_faults(uri: str) -> list[str]:
    if not has_password(uri):
        return []
    return [
        "tracking.uri must hold no password, because it is stored and shown; put it into MLFLOW_TRACKING_USERNAME and "
        f"MLFLOW_TRACKING_PASSWORD, and leave it out of {redacted(uri)!r}"
    ]
