"""What a study was made of and with: its data in numbers, the versions of packages, the commit of the code."""

import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from m3col.data.dataset import Dataset
from m3col.storage import atomic_files

SENT = "git.json"  # beside this file, in a copy

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
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_state() -> dict[str, Any]:
    """Commit of the code that runs, and whether it was changed since; None where it is not a checkout. A copy that was
    sent to a cluster brings that of the checkout which it was made of."""
    here = Path(__file__).parent
    if (here / SENT).exists():
        return dict(atomic_files.read_json(here / SENT, {"commit": None, "dirty": False}))

    def ask(*words: str) -> str | None:
        try:
            answer = subprocess.run(
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
        return answer.stdout.strip()

    return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}


def version_warnings(stored: Mapping[str, str]) -> list[str]:
    now = versions()
    return [
        f"{name} was {stored[name]} when the study began and is now {now[name]}"
        for name in stored
        if name in now and stored[name] != now[name]
    ]
