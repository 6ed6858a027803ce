"""Files that are either complete or not there: written beside their place, flushed to disk, then renamed."""

import getpass
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

PART = ".part"  # how the name of a file ends that is being written


def user() -> str:
    """Who runs this; the number where the system knows no name for it, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Replaces a file in one step: a reader sees the old content or the new one, whatever dies meanwhile.

    Args:
        path: the file; its folder must exist.

    Yields:
        An empty temporary file in the same folder, to be written in the block. At the end of the block it is flushed to
        disk and renamed to `path`; after an exception it is removed, and `path` stays as it was.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        flush(temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Replaces a text file in one step."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Replaces a JSON file in one step."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path, default: Any) -> Any:
    """What a JSON file holds; `default` where it is not there or not readable."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return default


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well, and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        for file in temporary.iterdir():
            flush(file)
        os.chmod(temporary, 0o755)
        if path.exists():
            shutil.rmtree(path)
        os.rename(temporary, path)
        flush(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def holder(path: Path) -> str:
    """Which process holds the lock on a file, in words, as far as this machine knows."""
    try:
        inode = str(path.stat().st_ino)
        fields = [line.split() for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines()]
        pids = [int(f[4]) for f in fields if f[1] == "FLOCK" and f[5].rpartition(":")[2] == inode]
        return ", ".join(f"process {pid} ({psutil.Process(pid).name()})" for pid in dict.fromkeys(pids) if pid > 0)
    except (OSError, ValueError, IndexError, psutil.Error):
        return ""


def flush(path: Path) -> None:
    """What was written to a file, or renamed in a folder, is on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
