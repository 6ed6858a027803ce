"""The file that `m3col data convert` leaves in a folder: the data set's name, and remarks about the converted file."""

import json
import os
from pathlib import Path
from typing import Any

REMARKS = "conversion.json"

_LARGEST = 100_000  # bytes


def name_of(folder: Path) -> str | None:
    """The name of the converted data set; None for a folder that was not converted."""
    name = _content(folder).get("name")
    return name if isinstance(name, str) else None


def remarks_of(folder: Path) -> list[str]:
    """What a user should know about the converted file, one line each."""
    remarks = _content(folder).get("remarks")
    return [line for line in remarks if isinstance(line, str)] if isinstance(remarks, list) else []


def _content(folder: Path) -> dict[str, Any]:
    path = folder / REMARKS
    if not os.path.isfile(path) or path.stat().st_size > _LARGEST:  # False also for a path that is too long
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
