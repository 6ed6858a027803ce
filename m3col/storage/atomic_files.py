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


def user() -> str:
    """Who runs this; the number where the system knows no name for it, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def write_text(path: Path, text: str) -> None:
    """Replaces a file in one step: a reader sees the old text or the new one, whatever dies meanwhile."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
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
