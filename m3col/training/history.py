"""What the training loop records: one entry per epoch, and the best epoch so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from m3col.data.columns import ModalityData
from m3col.data.dataset import Split
from m3col.data.splits import Fold


@dataclass(frozen=True)
class TrainingJob:
    """What one training works on.

    `pool`: the samples that folds index; `features`: names per modality; `probe`: inputs whose fused logits are wanted
    during a refit every `probe_every` epochs (their labels are not needed); `rates`: learning rates to replay;
    `keep_best`: end with the weights of the epoch that was best by the validation part, not with the last ones.
    """

    pool: Split
    folds: Sequence[Fold]
    features: Mapping[str, tuple[str, ...]]
    num_classes: int
    fold_offset: int = 0
    probe: Mapping[str, ModalityData] | None = None
    probe_every: int = 0
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
