"""A search as a person starts it: a process of its own, with a Ray cluster of its own."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from m3col.config import yaml_files
from tests.support.driving import small

SEARCH = small(search__trials=5, final__seeds=1, final__draws=100)


def start_search(runs: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "RAY_ADDRESS": ""}
    command = [sys.executable, "-m", "jobs.cli", "search", *words, "--plain"]
    return subprocess.Popen(
        [*command, "--runs-dir", str(runs), "--tracking-uri", "none"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True,
    )  # fmt: skip


def wait_for(process: subprocess.Popen[str], text: str, *, seconds: float = 120) -> str:
    seen = ""
    deadline = time.monotonic() + seconds
    assert process.stdout is not None
    while time.monotonic() < deadline:
        line = process.stdout.readline()
        seen += line
        if text in line:
            return seen
        if not line and process.poll() is not None:
            break
    raise AssertionError(f"{text!r} did not appear in:\n{seen}")


def config_file(folder: Path, config: dict[str, Any] = SEARCH) -> Path:
    path = folder / "little.yaml"
    path.write_text(yaml_files.dump(config))
    return path
