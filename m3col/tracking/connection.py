"""Reaching an MLflow store: the first word with it, which must not hang, and where our own keeps the files of runs."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from m3col.errors import InputError, reason_of
from m3col.runtime import deadline

_AT_FIRST = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}


def artifact_place(artifacts: str | None, runs: Path) -> str:
    """The URI below which our own store keeps the files of experiments."""
    if artifacts is None or not artifacts.startswith("s3://"):
        return (runs.absolute() / "mlartifacts").as_uri()
    if importlib.util.find_spec("boto3") is None:
        raise InputError(
            [f"storage.uri {artifacts}: MLflow needs the package boto3 to keep artifacts there, which is not "
             "installed; pip install 'm3col[s3]', or switch tracking off with --tracking-uri none"]
        )  # fmt: skip
    return f"{artifacts.rstrip('/')}/mlartifacts"


def first_word(client: Any) -> None:
    """Asks the store something, without MLflow's own patience. Raises whatever MLflow raises."""
    kept = {key: os.environ.get(key) for key in _AT_FIRST}
    os.environ.update(_AT_FIRST)
    try:
        client.search_experiments(max_results=1)
    finally:
        for key, value in kept.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def within(seconds: float, call: Callable[[], None], *, what: str) -> None:
    """Makes the first call to an MLflow store.

    Args:
        seconds: the longest wait for it.
        call: the call.
        what: the store's address without a password, for the message.

    Raises:
        InputError: the call failed or took longer.
    """
    try:
        deadline.within(seconds, call)
    except Exception as error:  # whatever the client library raises
        raise InputError(
            [f"tracking.uri {what}: the MLflow store cannot be reached ({reason_of(error)}); start it, or leave it "
             "out: SQLite needs no server, 'none' switches tracking off"]
        ) from None  # fmt: skip
