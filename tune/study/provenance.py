"""Provenance of a study: a description of its data, the versions of packages, the git commit of the code."""

import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from m3col.data.dataset import Dataset
from m3col.storage import atomic_files

SENT = "git.json"  # next to this file, in a copy of the code that was sent to a cluster

_PACKAGES = ("m3col", "torch", "numpy", "scikit-learn", "ray", "optuna", "mlflow")


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "classes": list(dataset.classes),
        "modalities": list(dataset.modalities),
        "features": {name: len(values) for name, values in dataset.features.items()},
        "train": len(dataset.train),
        "test": len(dataset.test) if dataset.test is not None else 0,
        "known_issues": dataset.known_issues,
        "dropped": dataset.dropped,
        "warnings": list(dataset.warnings),
    }


def versions() -> dict[str, str]:
    packages = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            packages[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            packages[package] = "not installed"
    return packages


def git_state() -> dict[str, Any]:
    """Returns `commit` of the running code, None if it is not a git checkout, and `dirty`: whether it has changes.

    A copy that was sent to a cluster contains the state of its checkout, in the file `SENT`.
    """
    here = Path(__file__).parent
    if (here / SENT).exists():
        return dict(atomic_files.read_json(here / SENT, {"commit": None, "dirty": False}))

    def git(*words: str) -> str | None:
        try:
            result = subprocess.run(
                ["git", *words],
                cwd=here,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=10,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return result.stdout.strip()

    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}


def version_warnings(stored: Mapping[str, str]) -> list[str]:
    """Returns a line for each package whose version has changed since the study began."""
    now = versions()
    return [
        f"{name} was {stored[name]} when the study began and is now {now[name]}"
        for name in stored
        if name in now and stored[name] != now[name]
    ]
