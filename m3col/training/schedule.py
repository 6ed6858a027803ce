"""Learning rates over epochs. One schedule serves all folds of a training, so that they stay in lockstep."""

from collections.abc import Sequence

import torch

from m3col.config.schema import TrainConfig


class Schedule:
    """`rate(epoch)` before each epoch (1-based), `observe(value)` after it.

    `replay`: the rates of an earlier training, for a refit without a validation metric of its own.
    """

    def __init__(self, config: TrainConfig, *, higher_is_better: bool = True, replay: Sequence[float] = ()) -> None:
        self._config = config
        self._replay = tuple(replay)
        parameter = torch.nn.Parameter(torch.zeros(1))
        self._holder = torch.optim.SGD([parameter], lr=config.learning_rate)
        self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._holder,
            mode="max" if higher_is_better else "min",
            factor=config.schedule.gamma,
            patience=config.schedule.patience,
        )

    def rate(self, epoch: int) -> float:
        kind = self._config.schedule.kind
        if self._replay:
            return self._replay[min(epoch, len(self._replay)) - 1]
        if kind == "step":
            drops = (epoch - 1) // self._config.schedule.step_size
            return self._config.learning_rate * self._config.schedule.gamma**drops
        if kind == "plateau":
            return float(self._holder.param_groups[0]["lr"])
        return self._config.learning_rate

    def observe(self, value: float) -> None:
        if self._config.schedule.kind == "plateau" and not self._replay:
            self._plateau.step(value)

    def catch_up(self, values: Sequence[float]) -> None:
        """Brings a new schedule to where one stands that has observed `values`, one per epoch."""
        for value in values:
            self.observe(value)
