"""Learning rates over epochs. One schedule serves all folds of a training, so that they stay in lockstep."""

import math
from collections.abc import Sequence

import torch

from m3col.config.schema import TrainConfig

_LOWEST_RATE = 1e-6  # of "warmup_cosine", at its start and towards its end


class Schedule:
    """The learning rate of each epoch. Call `rate(epoch)` before each epoch and `observe(value)` after it.

    Args:
        config: the section `train:` of the run config.
        higher_is_better: whether a higher value of the watched metric is better.
        replay: learning rates of an earlier training to repeat, for a refit without a validation metric of its own;
            empty: the schedule of the config.
    """

    def __init__(self, config: TrainConfig, *, higher_is_better: bool = True, replay: Sequence[float] = ()) -> None:
        self._config = config
        self._replay = tuple(replay)
        parameter = torch.nn.Parameter(torch.zeros(1))
        # torch's plateau schedule changes the rate of an optimizer: this one exists only to hold that rate.
        self._holder = torch.optim.SGD([parameter], lr=config.learning_rate)
        self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._holder,
            mode="max" if higher_is_better else "min",
            factor=config.schedule.gamma,
            patience=config.schedule.patience,
        )

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 1."""
        kind = self._config.schedule.kind
        if self._replay:
            return self._replay[min(epoch, len(self._replay)) - 1]
        if kind == "step":
            drops = (epoch - 1) // self._config.schedule.step_size
            return self._config.learning_rate * self._config.schedule.gamma**drops
        if kind == "plateau":
            return float(self._holder.param_groups[0]["lr"])
        if kind == "warmup_cosine":
            return self._warmup_cosine(epoch - 1)
        return self._config.learning_rate

    def _warmup_cosine(self, epoch: int) -> float:
        """From `_LOWEST_RATE` to the rate of the config in the first W epochs, then back along half a cosine.

        Args:
            epoch: number of the epoch, from 0.
        """
        top, warmup, epochs = self._config.learning_rate, self._config.schedule.warmup, self._config.epochs
        if epoch < warmup:
            return top if warmup == 1 else _LOWEST_RATE + epoch * (top - _LOWEST_RATE) / (warmup - 1)
        share = (epoch - warmup) / (epochs - warmup)
        return _LOWEST_RATE + (top - _LOWEST_RATE) * (1 + math.cos(math.pi * share)) / 2

    def observe(self, value: float) -> None:
        """Passes the watched metric of a finished epoch to the plateau schedule."""
        if self._config.schedule.kind == "plateau" and not self._replay:
            self._plateau.step(value)

    def catch_up(self, values: Sequence[float]) -> None:
        """Replays the watched metric of finished epochs, one value per epoch, after a resume."""
        for value in values:
            self.observe(value)
