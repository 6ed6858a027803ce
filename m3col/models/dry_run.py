"""What a module gives and which of its weights take part, found by one run without cost."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class DryRun:
    """`width` of the output [1, width]; `unused`: names of parameters that no gradient reaches."""

    width: int
    unused: tuple[str, ...]


def dry_run(make: Callable[[], nn.Module], run: Callable[[nn.Module], Tensor]) -> DryRun:
    """Runs a twin of a module on the meta device, where neither weights nor results take memory.

    make: builds the twin; run: its output, for an input made on the current default device. Modules that look at
    values cannot run there: they are built and run once on the CPU, and torch's generator is left as it was. Raises
    what `make` and `run` raise there.
    """
    try:
        with torch.device("meta"):
            return _look(make(), run)
    except (RuntimeError, NotImplementedError):
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return _look(make(), run)


def _look(module: nn.Module, run: Callable[[nn.Module], Tensor]) -> DryRun:
    module.eval()
    with torch.enable_grad():
        output = run(module)
        output.sum().backward()
    return DryRun(output.shape[-1], tuple(name for name, p in module.named_parameters() if p.grad is None))
