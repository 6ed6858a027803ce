"""The device that a training runs on, and automatic mixed precision."""

import contextlib
from typing import Any

import torch

from m3col.config.schema import RunConfig


def device_of(config: RunConfig) -> torch.device:
    """The device that `train.device` names. `auto`: the first GPU where there is one, else the CPU."""
    name = config.train.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def autocast(config: RunConfig, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The autocast context of `train.precision: bfloat16`, which does nothing for other precisions.

    Matrix products run in bfloat16; sums and losses stay in float32.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.train.precision == "bfloat16")
