"""The machine that a figure was measured on, and whether a figure reaches its bar on the card that the bar is for."""

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from benchmarks.common import table

_TOOL_S = 10.0  # time limit of nvidia-smi

_QUERIED = ("driver_version", "clocks.max.sm", "clocks.sm", "power.limit")

BARS_FOR = ("H100", "H200")  # the cards that the bars are for, in the names that their driver gives them


@cache
def description() -> str:
    """One line with the card, its driver and clocks, the versions of CUDA and torch, and the CPU."""
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    if not torch.cuda.is_available():
        return f"no GPU: {os.cpu_count()} CPU cores ({_processor()}), {versions}"
    driver, highest, now, power = _queried()
    return (
        f"{torch.cuda.get_device_name()}, driver {driver}, CUDA {torch.version.cuda}, {versions}, SM clock {now} of "
        f"{highest}, power limit {power}, {os.cpu_count()} CPU cores ({_processor()})"
    )


def _queried() -> Sequence[str]:
    """What nvidia-smi says of the first GPU; "unknown" for each entry where it cannot be asked."""
    unknown = ["unknown"] * len(_QUERIED)
    if shutil.which("nvidia-smi") is None:
        return unknown
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERIED)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=_TOOL_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return unknown
    values = [value.strip() for value in done.stdout.splitlines()[0].split(",")]
    return values if len(values) == len(_QUERIED) else unknown


def _processor() -> str:
    for line in (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if os.path.exists("/proc/cpuinfo") else ()
    ):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def synchronize(device: torch.device) -> None:
    """Waits until a GPU has done all its work; does nothing for the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of a call, with all work that it gives to a GPU."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


class Stopwatch:
    """The time of the optimizer steps in the middle of an epoch; no step within waits for the GPU.

    Args:
        device: that computes.
        skip: first steps that are left out.
        last: number of the last step.
    """

    def __init__(self, device: torch.device, *, skip: int, last: int) -> None:
        self.device, self.skip, self.last, self.seconds = device, skip, last, 0.0
        self._done, self._start = 0, 0.0

    @property
    def steps(self) -> int:
        """Steps that are timed."""
        return self.last - self.skip

    def step_done(self) -> None:
        """To be called after each optimizer step."""
        self._done += 1
        if self._done in (self.skip, self.last):
            synchronize(self.device)
            now = time.perf_counter()
            if self._done == self.last:
                self.seconds = now - self._start
            self._start = now


@dataclass(frozen=True)
class Bar:
    """A figure with its bar.

    Attributes:
        what: the figure's name.
        value: as measured.
        limit: the bar.
        at_least: whether the figure must reach the bar; False: it must not exceed it.
        unit: of both.
    """

    what: str
    value: float
    limit: float
    at_least: bool = False
    unit: str = ""

    def text(self, value: float) -> str:
        """A value with the unit."""
        return f"{f'{value:,.0f}' if value >= 100 else f'{value:.3g}'} {self.unit}".strip()

    def verdict(self, card: str) -> str:
        """ "met" or "missed"; on another card than the bar is for, and without one, that it is not judged."""
        if not any(name in card for name in BARS_FOR):
            return f"not judged: the bar is for an {' or '.join(BARS_FOR)}"
        return "met" if (self.value >= self.limit if self.at_least else self.value <= self.limit) else "missed"


def bar_table(bars: Sequence[Bar]) -> str:
    """Markdown table of measured values, bars and verdicts."""
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    rows = [
        [bar.what, bar.text(bar.value), f"{'>=' if bar.at_least else '<='} {bar.text(bar.limit)}", bar.verdict(card)]
        for bar in bars
    ]
    return table(["figure", "measured", "bar", "verdict"], rows, words=["verdict"])
