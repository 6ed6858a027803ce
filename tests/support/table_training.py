"""A training without gradients: each epoch's value follows from a formula of the config, and from the epochs before it.

Whatever a study does around a training, checkpoints among it, is as always. A run that goes on from the wrong epoch, or
from another run's state, ends with another value, as it would with weights.
"""

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import torch

from m3col.errors import TrainingFailed
from m3col.training import loop
from m3col.training.fold_trainer import FoldTrainer

_ROWS = 7


class TableTrainer(FoldTrainer):
    """Its model never learns: what its logits are taken from is a small table, which is its whole state."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._table = np.zeros((_ROWS, self.task.width))

    @cached_property
    def _centres(self) -> np.ndarray:
        """The mean of the training samples of each class."""
        values, labels = self._values(self._inputs), self._labels.numpy()
        return np.stack([values[labels == number].mean(0) for number in range(self.task.width)])

    def _values(self, inputs: Mapping[str, Any]) -> np.ndarray:
        source = inputs[sorted(inputs)[0]]
        return source.rows(slice(0, len(source))).double().numpy()

    def train_epoch(self, epoch: int, *, learning_rate: float) -> dict[str, float]:
        """Moves the table towards a height that depends on the config; a learning rate of 0.05 is best."""
        if not np.isfinite(learning_rate) or learning_rate > 1e10:
            raise TrainingFailed(f"the training loss became nan in epoch {epoch} (fold {self.fold})")
        beta = self.config.objective.beta or 0.0
        skill = 1.0 / (1.0 + abs(np.log10(learning_rate / 0.05)) + 0.1 * beta)
        key = zlib.crc32(f"{self.seed}/{self.fold}/{epoch}/{learning_rate!r}/{beta!r}".encode())
        noise = np.random.default_rng(key).normal(size=self._table.shape)
        self._table = 0.8 * self._table + 0.2 * skill + 0.02 * noise
        return {"loss": float(2.0 - skill + 0.01 * noise[0, 0])}

    def logits(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The higher the table, the more of its rows tell the class whose centre is nearest."""
        values = self._values(inputs)
        rows = np.arange(len(values)) % _ROWS
        nearest = ((values[:, None] - self._centres) ** 2).sum(2).argmin(1)
        found = self._table[rows]
        found[np.arange(len(rows)), nearest] += found[:, -1] - rows / _ROWS
        return {name: found.copy() for name in self.outputs}

    def state(self) -> dict[str, torch.Tensor]:
        return {"table": torch.tensor(self._table)}

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._table = tensors["table"].numpy().copy()


@contextmanager
def training_of(kind: str) -> Iterator[None]:
    """While it lasts, trainings in this process are "real" ones, or those of a "table"."""
    with pytest.MonkeyPatch.context() as patched:
        if kind == "table":
            patched.setattr(loop, "FoldTrainer", TableTrainer)
        yield
