"""Augmentations of numeric tables and sequences.

Letters: n samples of this rank, L features of a table or steps of the longest sequence, F features of a step. A table
is [n, L], a batch of sequences [n, L, F] with the number of steps of each in `lengths` [n]; what is behind the end of a
sequence stays as it is. Below, "steps" are the features of a table as well.
Source: Liang et al., FactorCL, NeurIPS 2023, and CoMM (arXiv 2409.07402), appendix.
Differs: the published mixup takes the other sample from the batch; here it is one of the training fold, so that ranks
  that have different samples need none of each other's.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m3col import devices
from m3col.augmentation.draws import Draws
from m3col.augmentation.registry import NONE, parse
from m3col.augmentation.settings import ConsecutiveDrop, Drop, InputMixup, Noise, OneOf, Permute, Window
from m3col.data.columns import FloatArray, IntArray
from m3col.data.dataset import BoolArray

Others = Callable[[IntArray], Tensor]


def noise(x: Tensor, settings: Noise, draws: Draws, *, lengths: IntArray | None = None) -> Tensor:
    """x + sd * N(0, 1), on every number of the chosen samples."""
    chosen = draws.coin(settings.p, "noise", shared=settings.shared)
    if lengths is None:
        numbers = draws.normal(x.shape[1], "noise")
    else:
        numbers = _padded(draws.of_steps(lengths, "noise", width=x.shape[2], fill=0.0), x)
    return torch.where(_moved(chosen, x).reshape(-1, *[1] * (x.ndim - 1)), x + settings.sd * _moved(numbers, x), x)


def drop(x: Tensor, settings: Drop, draws: Draws, *, lengths: IntArray | None = None) -> Tensor:
    """Sets a share of the steps to 0. The number of steps is rounded down."""
    shares, steps = _shares(x, settings.share, draws, "drop", lengths)
    keys = _step_keys(x, draws, "drop", lengths)
    ranks = np.argsort(np.argsort(keys, axis=1, kind="stable"), axis=1, kind="stable")
    chosen = draws.coin(settings.p, "drop", shared=settings.shared)
    return _without(x, chosen[:, None] & (ranks < np.floor(shares * steps)[:, None]))


def consecutive_drop(
    x: Tensor, settings: ConsecutiveDrop, draws: Draws, *, lengths: IntArray | None = None
) -> Tensor:  # fmt: skip
    """Sets neighbouring steps to 0. Their number is rounded down."""
    inside = _window(x, settings.share, draws, "consecutive_drop", lengths, round_up=False)
    chosen = draws.coin(settings.p, "consecutive_drop", shared=settings.shared)
    return _without(x, chosen[:, None] & inside)


def crop(x: Tensor, settings: Window, draws: Draws, *, lengths: IntArray | None = None) -> Tensor:
    """Keeps neighbouring steps and sets the others to 0. The number that is kept is rounded up."""
    inside = _window(x, settings.share, draws, "crop", lengths, round_up=True)
    behind = np.arange(x.shape[1]) >= _lengths(x, lengths)[:, None]
    return _without(x, draws.coin(settings.p, "crop")[:, None] & ~inside & ~behind)


def permute(x: Tensor, settings: Permute, draws: Draws, *, lengths: IntArray | None = None) -> Tensor:
    """Puts the steps of the chosen samples in random order."""
    keys = _step_keys(x, draws, "permute", lengths)
    order = np.argsort(keys, axis=1, kind="stable")
    order = np.where(draws.coin(settings.p, "permute")[:, None], order, np.arange(x.shape[1]))
    if lengths is not None:
        order = np.where(np.isinf(keys), np.arange(x.shape[1]), order)
    rows = torch.arange(len(x), device=x.device)[:, None]
    return x[rows, _moved(order, x)]


def one_of(x: Tensor, settings: OneOf, draws: Draws, *, lengths: IntArray | None = None) -> Tensor:
    """Applies one of several augmentations to each sample, drawn uniformly."""
    kind = "numeric" if lengths is None else "sequence"
    drawn = np.floor(draws.uniform(1, "one_of")[:, 0] * len(settings.of))
    result = x
    for number, item in enumerate(settings.of):
        changed = x
        for chosen in parse([] if item == NONE else [item], kind=kind):
            changed = chosen.augmentation.apply(x, chosen.settings, draws, lengths=lengths)
        mine = _moved(drawn == number, x).reshape(-1, *[1] * (x.ndim - 1))
        result = torch.where(mine, changed, result)
    return result


def input_mixup(x: Tensor, settings: InputMixup, draws: Draws, *, count: int, others: Others) -> Tensor:
    """lam x + (1 - lam) x', lam ~ Beta(alpha, alpha).

    Args:
        x: [n, ...].
        settings: alpha and probability.
        draws: random numbers.
        count: number of samples of the training fold.
        others: returns samples of the training fold by position.
    """
    lam = np.where(draws.coin(settings.p, "input_mixup"), draws.beta(settings.alpha, "input_mixup"), 1.0)
    partners = (draws.uniform(1, "input_mixup")[:, 0] * count).astype(np.int64)
    weight = _moved(lam, x).reshape(-1, *[1] * (x.ndim - 1))
    return torch.where(weight == 1, x, weight * x + (1 - weight) * others(partners))


def _lengths(x: Tensor, lengths: IntArray | None) -> IntArray:
    return np.full(len(x), x.shape[1]) if lengths is None else lengths


def _shares(
    x: Tensor, share: list[float], draws: Draws, name: str, lengths: IntArray | None
) -> tuple[FloatArray, IntArray]:
    """A random share [n] of the steps of each sample, and the number of its steps [n]."""
    low, high = share
    return low + (high - low) * draws.uniform(1, f"{name}/share")[:, 0], _lengths(x, lengths)


def _step_keys(x: Tensor, draws: Draws, name: str, lengths: IntArray | None) -> FloatArray:
    """A random number per step [n, L]; infinity behind the end of a sequence."""
    if lengths is None:
        return draws.uniform(x.shape[1], name)
    return _padded(draws.of_steps(lengths, name), x, fill=np.inf)


def _window(
    x: Tensor, share: list[float], draws: Draws, name: str, lengths: IntArray | None, *, round_up: bool
) -> BoolArray:
    """A mask [n, L] of neighbouring steps at a random place inside of each sample."""
    shares, steps = _shares(x, share, draws, name, lengths)
    widths = (np.ceil if round_up else np.floor)(shares * steps)
    starts = np.floor(draws.uniform(1, f"{name}/start")[:, 0] * (steps - widths + 1))
    at = np.arange(x.shape[1])
    inside: BoolArray = (at >= starts[:, None]) & (at < (starts + widths)[:, None])
    return inside


def _without(x: Tensor, dropped: BoolArray) -> Tensor:
    mask = _moved(dropped, x)
    return torch.where(mask.reshape(*mask.shape, *[1] * (x.ndim - 2)), torch.zeros_like(x), x)


def _padded(numbers: FloatArray, x: Tensor, fill: float = 0.0) -> FloatArray:
    """`numbers` with as many steps as `x`, which is padded to a longer sequence of the batch."""
    missing = x.shape[1] - numbers.shape[1]
    return np.pad(numbers, [(0, 0), (0, missing), *[(0, 0)] * (numbers.ndim - 2)], constant_values=fill)


def _moved(values: NDArray[Any], x: Tensor) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    tensor = tensor.to(x.dtype) if tensor.is_floating_point() else tensor
    return devices.moved(tensor, x.device)
