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
    """The data, folds and options of one training.

    Attributes:
        pool: the samples that `folds` index.
        folds: the training and the validation samples of each fold; one model is trained per fold.
        features: names of the columns, by modality.
        task: what is predicted.
        pretrain: samples without labels for methods without labels, see `Dataset.pretrain`; None: the training fold.
        fold_offset: number of the first fold, which keys its random draws.
        test_inputs: inputs of the test split, whose logits are recorded during a refit. No labels are needed.
        predict_test_every: epochs between two such predictions; 0: no predictions.
        rates: learning rates per epoch to replay, in place of those of the schedule; empty: the schedule's.
        keep_best: whether to end with the weights of the epoch with the best validation score.
    """

    pool: Split
    folds: Sequence[Fold]
    features: Mapping[str, tuple[str, ...]]
    task: Task
    pretrain: Split | None = None
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
    """The metrics of one epoch.

    Attributes:
        epoch: number of the epoch, from 1.
        time: when it ended, in Unix seconds.
        value: the smoothed validation score (docs/protocol.md, section 4); None without a validation split.
        metrics: metrics by name, such as "train/loss".
    """

    epoch: int
    time: float
    value: float | None
    metrics: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values for JSON."""
        return {"epoch": self.epoch, "time": self.time, "value": self.value, "metrics": self.metrics}
