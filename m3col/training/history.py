"""What the training loop records: one entry per epoch, and the best epoch so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from m3col.data.columns import ModalityData
from m3col.data.dataset import Split
from m3col.data.splits import Fold
from m3col.tasks.base import Task


@dataclass(frozen=True)
class TrainingJob:
    """What one training works on.

    Attributes:
        pool: the samples that `folds` index.
        folds: which samples train and which validate; a model is trained for each.
        features: names of the columns, by modality.
        task: what is predicted.
        fold_offset: number of the first fold, which keys its random draws.
        test_inputs: inputs whose primary outputs are wanted during a refit; their labels are not needed.
        predict_test_every: epochs between two such evaluations; 0: none.
        rates: learning rates to replay.
        keep_best: whether to end with the weights of the epoch that was best by the validation samples.
    """

    pool: Split
    folds: Sequence[Fold]
    features: Mapping[str, tuple[str, ...]]
    task: Task
    fold_offset: int = 0
    test_inputs: Mapping[str, ModalityData] | None = None
    predict_test_every: int = 0
    rates: Sequence[float] = ()
    keep_best: bool = False


@dataclass(frozen=True)
class Best:
    """The best epoch so far by the validation metric, and each fold's weights after it."""

    epoch: int
    score: float
    weights: Sequence[Mapping[str, Tensor]]


@dataclass
class Record:
    """One epoch: `value` is the smoothed score (PROTOCOL 4), None where there is no validation part."""

    epoch: int
    time: float
    value: float | None
    metrics: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "time": self.time, "value": self.value, "metrics": self.metrics}
