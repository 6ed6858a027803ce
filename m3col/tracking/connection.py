"""Connecting to an MLflow store: the first request, with a time limit, and where a local store keeps artifacts."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from m3col.errors import InputError, reason_of
from m3col.runtime import deadline

_FIRST_REQUEST = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}


def artifact_root(artifacts: str | None, runs: Path) -> str:
    """The URI below which a local (SQLite) store keeps the artifacts of experiments.

    Raises InputError where S3 needs a package that is not installed.
    """
    if artifacts is None or not artifacts.startswith("s3://"):
        return (runs.absolute() / "mlartifacts").as_uri()
    if importlib.util.find_spec("boto3") is None:
        raise InputError(
            [f"storage.uri {artifacts}: MLflow needs the package boto3 to keep artifacts there, which is not "
             "installed; pip install 'm3col[s3]', or switch tracking off with --tracking-uri none"]
        )  # fmt: skip
    return f"{artifacts.rstrip('/')}/mlartifacts"


def first_request(client: Any) -> None:
    """Sends a first request to the store, with a short timeout and no retries. Raises whatever MLflow raises."""
    previous = {key: os.environ.get(key) for key in _FIRST_REQUEST}
    os.environ.update(_FIRST_REQUEST)
    try:
        client.search_experiments(max_results=1)
    finally:
        for key, value in previous.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def within(seconds: float, call: Callable[[], None], *, store: str) -> None:
    """Makes the first call to an MLflow store, within a time limit.

    Args:
        seconds: the longest wait for it.
        call: the call.
        store: the store's address without a password, for the message.

    Raises:
        InputError: the call failed or took longer.
    """
    try:
        deadline.within(seconds, call)
    except Exception as error:  # whatever the client library raises
        raise InputError(
            [f"tracking.uri {store}: the MLflow store cannot be reached ({reason_of(error)}); start it, or leave it "
             "out: SQLite needs no server, 'none' switches tracking off"]
        ) from None  # fmt: skip
