"""Append-only log of test-set evaluations below a runs folder.

Repeated evaluation on one test set biases results, so that reports state the count.
"""

import json
import time
from pathlib import Path
from typing import Any

_NAME = "test_ledger.jsonl"


def add(runs: Path, *, dataset: str, digest: str, by: str, rows: int) -> None:
    """Records an evaluation.

    Args:
        runs: the runs folder.
        dataset: name of the data set.
        digest: of the test split.
        by: the run, study or checkpoint that was evaluated; it counts once for each test split.
        rows: models that were scored.
    """
    if any(entry["by"] == by and entry["digest"] == digest for entry in entries(runs)):
        return
    entry = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "dataset": dataset, "digest": digest, "by": by, "rows": rows}
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / _NAME).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(entry) + "\n")


def entries(runs: Path) -> list[dict[str, Any]]:
    """All evaluations that were recorded, oldest first."""
    path = runs / _NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.strip()]


def times_scored(runs: Path, digest: str, *, before: str) -> int:
    """How often a test split was evaluated before one evaluation.

    Args:
        runs: the runs folder.
        digest: of the test split.
        before: the `by` of that evaluation; where it is not recorded, all evaluations count.
    """
    count = 0
    for entry in entries(runs):
        if entry["by"] == before:
            break
        count += entry["digest"] == digest
    return count
