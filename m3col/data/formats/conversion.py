"""The folder that `m3col data convert` writes, and the file that it leaves there: the data set's name, and remarks."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from m3col.errors import InputError, reason_of

REMARKS = "conversion.json"

_LARGEST = 100_000  # bytes


def check_new(folder: Path) -> None:
    """Raises InputError if the folder of `--to` exists."""
    try:
        exists = folder.exists()
    except OSError as error:
        raise InputError([f"--to: {folder} cannot be a folder ({reason_of(error)})"]) from None
    if exists:
        raise InputError([f"--to: {folder} exists already; name a new folder"])


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A draft of a new folder, which gets its name when everything was written, and is removed otherwise.

    Raises:
        InputError: the folder exists or cannot be written.
    """
    check_new(folder)
    draft = folder.with_name(f".{folder.name[:100]}.{os.getpid()}.part")  # of this process alone
    try:
        draft.mkdir(parents=True)
        yield draft
        draft.rename(folder)
    except OSError as error:
        raise InputError([f"{folder}: cannot be written ({reason_of(error)})"]) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write(folder: Path, name: str, remarks: Sequence[str], *, label: str) -> None:
    """Writes the data set's name, its usual column of labels, and the remarks about the converted files."""
    content = {"name": name, "label": label, "remarks": list(remarks)}
    (folder / REMARKS).write_text(json.dumps(content, indent=1), encoding="utf-8")


def name_of(folder: Path) -> str | None:
    """The name of the converted data set; None for a folder that was not converted."""
    name = _content(folder).get("name")
    return name if isinstance(name, str) else None


def label_of(folder: Path) -> str:
    """The column of labels that is checked if none is named."""
    label = _content(folder).get("label")
    return label if isinstance(label, str) else "label"


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
