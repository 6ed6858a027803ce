"""Checks the URLs of a search config: their form, and that none contains a password."""

from collections.abc import Callable, Mapping
from typing import Any

from m3col.config.keys import get, without
from m3col.storage.object_store import uri_faults
from m3col.storage.redaction import has_password, redacted
from tune.study import database


def faults(raw: Mapping[str, Any], who: Callable[[str], str]) -> list[str]:
    """Returns the faults of the URLs in `storage` and `tracking`, without connecting to any.

    A config is stored, shown and sent to MLflow, so no URL in it may contain a password.

    Args:
        raw: the raw config of a search.
        who: says for a key which file or override set it.
    """
    return [f"{who(key)}: {line}" for key, lines in _faults_by_key(raw).items() for line in lines]


def usable(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config without faulty URLs, so that nothing connects to one."""
    return without(raw, _faults_by_key(raw))


def _faults_by_key(raw: Mapping[str, Any]) -> dict[str, list[str]]:
    checks: dict[str, Callable[[str], list[str]]] = {
        "storage.uri": lambda uri: uri_faults(uri, "storage.uri"),
        "storage.database": database.faults,
        "tracking.uri": _tracking_faults,
    }
    values = {key: get(raw, key) for key in checks}
    faults_of = {key: checks[key](value) for key, value in values.items() if isinstance(value, str)}
    return {key: lines for key, lines in faults_of.items() if lines}


def _tracking_faults(uri: str) -> list[str]:
    if not has_password(uri):
        return []
    return [
        "tracking.uri must hold no password, because it is stored and shown; put it into MLFLOW_TRACKING_USERNAME and "
        f"MLFLOW_TRACKING_PASSWORD, and leave it out of {redacted(uri)!r}"
    ]
