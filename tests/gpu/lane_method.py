"""A method that notes what its process sees, and fails at certain learning rates, which tell the trials of a search
apart. It runs in the processes of Ray."""

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from m3col.methods.batch import Batch, Step
from m3col.methods.concat import Concat
from tune.engine import trials

FATAL, TOO_LARGE = 0.01, 0.011  # learning rates
FAILS_IN = 3  # epoch
FOLDER = "M3COL_LANE_FOLDER"  # environment variable: where events are noted
_TOGETHER_S = 120.0


class Watched(Concat):
    """Fails in epoch 3 at two learning rates: FATAL with a device-side assertion, at the first attempt only; TOO_LARGE
    with an allocation of half of the card, always. Without a GPU it raises exceptions of the same classes."""

    def __init__(self, config: Any, **given: Any) -> None:
        self.rate, self.last = config.train.learning_rate, config.train.epochs
        self.folder = Path(os.environ[FOLDER])
        on_card = torch.cuda.is_initialized()
        self.note("start", allocated=torch.cuda.memory_allocated() if on_card else 0)
        super().__init__(config, **given)

    def note(self, event: str, **values: Any) -> None:
        line = {"event": event, "rate": self.rate, "pid": os.getpid(), "at": time.time(), **values}
        with (self.folder / "events.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def losses(self, batch: Batch, step: Step) -> dict[str, torch.Tensor]:
        trials._MEMORY_WAIT_S = 0.1  # in the processes of trials alone
        device = next(self.parameters()).device
        if step.epoch == 1:
            self.note(
                "epoch 1", device=str(device), visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
                backend=dist.get_backend() if dist.is_initialized() else None,
                fraction=torch.cuda.get_per_process_memory_fraction() if device.type == "cuda" else None,
            )  # fmt: skip
            self._wait_for_others()
        if step.epoch == FAILS_IN:
            self._fail(device)
        if step.epoch == self.last:
            self.note("last epoch", reserved=torch.cuda.memory_reserved() if device.type == "cuda" else 0)
        return super().losses(batch, step)

    def _wait_for_others(self) -> None:
        """Waits until as many trials compute as the file "together" says, so that they share the card."""
        together = self.folder / "together"
        if not together.exists():
            return
        (self.folder / f"alive-{self.rate}").touch()
        until = time.monotonic() + _TOGETHER_S
        while len(list(self.folder.glob("alive-*"))) < int(together.read_text()):
            if time.monotonic() > until:
                raise TimeoutError("the trials do not run at the same time")
            time.sleep(0.05)

    def _fail(self, device: torch.device) -> None:
        marker = self.folder / f"failed-{self.rate}"
        if self.rate == TOO_LARGE:
            if device.type != "cuda":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 40 GiB")
            total = torch.cuda.get_device_properties(device).total_memory
            torch.empty(total // 2, dtype=torch.uint8, device=device)
        if self.rate == FATAL and not marker.exists():
            marker.touch()
            if device.type != "cuda":
                raise torch.AcceleratorError("CUDA error: device-side assert triggered")
            torch._assert_async(torch.zeros((), dtype=torch.bool, device=device))
