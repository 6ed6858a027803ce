"""Real processes that train together: ranks forked from one server that has imported torch and our own code once."""

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch.multiprocessing

# What a rank would import: seconds for each of them. None of it starts a thread, which a fork would lose.
_IMPORTED = [
    "torch", "torch.distributed", "torch.nn.parallel", "sklearn.model_selection", "timm", "transformers",
    "m3col.training.loop", "m3col.methods.m3col", "m3col.models.build",
]  # fmt: skip


def start_ranks(count: int, function: Callable[..., None], *args: Any) -> None:
    """Runs `function(rank, *args)` in `count` processes to its end. Raises where one of them raises or dies."""
    multiprocessing.set_forkserver_preload(_IMPORTED)
    torch.multiprocessing.start_processes(function, args, nprocs=count, start_method="forkserver")
