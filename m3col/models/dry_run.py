"""Finds the output width and the unused weights of a module, by one run that needs no memory for weights."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class DryRun:
    """The result of a dry run.

    Attributes:
        width: width of the output [1, width].
        unused: names of the parameters that get no gradient.
    """

    width: int
    unused: tuple[str, ...]


def dry_run(make: Callable[[], nn.Module], run: Callable[[nn.Module], Tensor]) -> DryRun:
    """Builds and runs a module on the meta device, where neither weights nor results take memory.

    A module that reads values of tensors cannot run on the meta device. It is built and run on the CPU, and the state
    of torch's generator is restored.

    Args:
        make: builds the module.
        run: returns its output [1, width], for an input that it creates on the current default device.

    Returns:
        Output width and unused weights. Exceptions of `make` and `run` on the CPU are raised.
    """
    try:
        with torch.device("meta"):
            return _inspect(make(), run)
    except (RuntimeError, NotImplementedError):
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return _inspect(make(), run)


def _inspect(module: nn.Module, run: Callable[[nn.Module], Tensor]) -> DryRun:
    module.eval()
    with torch.enable_grad():
        output = run(module)
        output.sum().backward()
    return DryRun(output.shape[-1], tuple(name for name, p in module.named_parameters() if p.grad is None))
