"""How often a test split has been scored below a runs folder: every look at it makes the next one weaker."""

import json
import time
from pathlib import Path
from typing import Any

_NAME = "test_ledger.jsonl"


def add(runs: Path, *, dataset: str, digest: str, by: str, rows: int) -> None:
    """Notes that `rows` models were scored on the test split with this digest; the same `by` counts once."""
    if any(entry["by"] == by and entry["digest"] == digest for entry in entries(runs)):
        return
    entry = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "dataset": dataset, "digest": digest, "by": by, "rows": rows}
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / _NAME).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(entry) + "\n")


def entries(runs: Path) -> list[dict[str, Any]]:
    path = runs / _NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.strip()]


def times_scored(runs: Path, digest: str, *, before: str) -> int:
    """Entries for this test split that stand before the one by `before`."""
    count = 0
    for entry in entries(runs):
        if entry["by"] == before:
            break
        count += entry["digest"] == digest
    return count
