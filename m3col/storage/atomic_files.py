"""Atomic writes: a file is written under a temporary name in the same folder, flushed to disk, then renamed."""

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

PART = ".part"  # suffix of temporary names of files that are being written


def user() -> str:
    """Name of the current user; the user id where the system has no name for it, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Replaces a file atomically: readers see the old or the new content, also if the process is killed.

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
    """Replaces a text file atomically."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Replaces a JSON file atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path, default: Any) -> Any:
    """The content of a JSON file; `default` where the file is missing or unreadable."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return default


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder that is renamed to `path` at the end of the block, or removed after an exception."""
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
    """The local processes that lock a file, as text for a message; "" where none is known."""
    try:
        inode = str(path.stat().st_ino)
        fields = [line.split() for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines()]
        pids = [int(f[4]) for f in fields if f[1] == "FLOCK" and f[5].rpartition(":")[2] == inode]
        return ", ".join(f"process {pid} ({psutil.Process(pid).name()})" for pid in dict.fromkeys(pids) if pid > 0)
    except (OSError, ValueError, IndexError, psutil.Error):
        return ""


def flush(path: Path) -> None:
    """Flushes a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
